"""Recordings from a folder of ordinary PyTorch checkpoints: what was saved while a network of linear layers trained."""

from __future__ import annotations

import itertools
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from metarule.identification.problems import RecordingError

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep a model's state beside an optimizer's."""

ONLY = "only chains of nn.Linear can be read: 2-D weights in order, each with an optional 1-D bias of the same prefix"


def read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Weights and biases over time from the files of a folder, sorted by the last number in their names.

    The numbers are the times: updates, or epochs where "epoch" stands before them (meta["clock"]). Nothing is known of
    inputs, so meta["missing"] lists them. Raises RecordingError naming every file and tensor that cannot be used;
    pickled objects are refused unread.
    """
    files = _sorted(folder)
    states, problems = [], []
    for file in files.values():
        try:
            states.append(_state(file))
        except RecordingError as error:
            problems.append(str(error))
    if not problems:
        first, names = next(iter(files.values())), {name: tensor.shape for name, tensor in states[0].items()}
        for file, state in zip(files.values(), states, strict=True):
            if {name: tensor.shape for name, tensor in state.items()} != names:
                problems.append(f"{file.name} has other tensors than {first.name}; keep one network's checkpoints")
    if problems:
        raise RecordingError.of(str(folder), problems)
    arrays = {"time": np.array([*files], dtype=np.float64)}
    for path, name in _chain(folder, states[0]).items():
        arrays[path] = np.stack([state[name].numpy() for state in states])
    # of epoch=3-step=400 the step is read
    epochs = any(re.search(r"epoch\W*_*\d+\D*$", file.stem, re.IGNORECASE) for file in files.values())
    missing = ["input", "target", "activity", "reward"]
    return arrays, {"source": "checkpoints", "clock": "epoch" if epochs else "update", "missing": missing}


def _sorted(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder by the last number in their names."""
    found: dict[int, Path] = {}
    problems = []
    for file in sorted(folder.iterdir()):
        if file.suffix not in SUFFIXES:
            continue
        numbers = re.findall(r"\d+", file.stem)
        if not numbers:
            problems.append(
                f"{file.name} has no number in its name; name it by its update, as in step_120{file.suffix}"
            )
        elif int(numbers[-1]) in found:
            problems.append(f"{file.name} has the number of {found[int(numbers[-1])].name}; keep one of them")
        else:
            found[int(numbers[-1])] = file
    if not found and not problems:
        problems = [f"no file ends in {', '.join(SUFFIXES)}; give a folder of checkpoints, or the file of a recording"]
    if problems:
        raise RecordingError.of(str(folder), problems)
    return dict(sorted(found.items()))


def _state(file: Path) -> dict[str, Tensor]:
    """The tensors of one checkpoint by name; scalars and counters are left out."""
    try:
        held = load_file(file) if file.suffix == ".safetensors" else _unpickled(file)
    except (SafetensorError, OSError) as error:
        raise RecordingError(f"{file.name} is damaged ({error}); save it again") from error
    except Exception as error:  # a damaged or hostile file makes the restricted unpickler raise anything
        raise RecordingError(
            f"{file.name} is damaged or holds more than tensors ({_reason(error)}); save model.state_dict() alone"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
            break
    if not isinstance(held, dict) or not all(isinstance(name, str) for name in held):
        raise RecordingError(f"{file.name} holds {type(held).__name__}, not a state_dict; save model.state_dict()")
    tensors = {
        name: value
        for name, value in held.items()
        if isinstance(value, Tensor) and value.ndim and value.is_floating_point()
    }
    hollow = [name for name, value in tensors.items() if value.layout != torch.strided or value.is_meta]
    if hollow:
        raise RecordingError(f"{file.name}: {', '.join(hollow)} is sparse or has no values; save dense tensors")
    return {name: value.detach().to(torch.float64) for name, value in tensors.items()}


def _unpickled(file: Path) -> object:
    """What a checkpoint holds, by torch's unpickler of tensors and containers alone, which runs nothing."""
    with warnings.catch_warnings():
        # that a protocol is rare is no news to who is told what is wrong
        warnings.simplefilter("ignore")
        return torch.load(file, "cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """The sentence that says why, of the page on what to do that torch makes of it."""
    found = re.search(r"WeightsUnpickler error: (.+)|(Trying to load .+)", str(error))
    said = found[found.lastindex or 0] if found else str(error)
    return said.strip().partition("\n")[0].partition(". ")[0] or type(error).__name__


def _chain(folder: Path, state: dict[str, Tensor]) -> dict[str, str]:
    """Path in the recording -> name of the tensor, where all tensors form one chain of layers."""
    layers = [name for name, tensor in state.items() if tensor.ndim == 2]
    places = {name.rpartition(".")[0]: place for place, name in enumerate(layers)}
    problems = []
    populations = ["input", *(f"hidden{place}" for place in range(1, len(layers))), "output"]
    found = {}
    for name, tensor in state.items():
        prefix, _, kind = name.rpartition(".")
        if tensor.ndim == 2:
            place = layers.index(name)
            found[f"weights/{populations[place]}->{populations[place + 1]}"] = name
        elif tensor.ndim == 1 and kind == "bias" and prefix in places:
            found[f"bias/{populations[places[prefix] + 1]}"] = name
        else:
            problems.append(f"'{name}' has shape {tuple(tensor.shape)} and belongs to no linear layer; {ONLY}")
    for below, above in itertools.pairwise(layers):
        sent, taken = state[below].shape[0], state[above].shape[1]
        if sent != taken:
            problems.append(
                f"'{below}' has {sent} units and '{above}' takes {taken}, so that they form no chain; {ONLY}"
            )
    if not layers:
        problems.append(f"no tensor is a weight; {ONLY}")
    if problems:
        raise RecordingError.of(str(folder), problems)
    return found
