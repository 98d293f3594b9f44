"""Recorder: three lines that record a user's own, unmodified PyTorch model while it trains."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from metarule.identification.chains import Chain, chain_of, flow, parameters_of
from metarule.identification.problems import RecordingError
from metarule.identification.recording import Recording
from metarule.nonlinearities import OUTPUTS

BURST = 3
"""Updates in a row that are kept: each shows one exact change of the weights, three in a row a momentum."""


class Cost(NamedTuple):
    """What recording has cost so far."""

    seconds: float
    bytes: int


class Shot(NamedTuple):
    """The weights before update `time`; the batch of that update where it is known, as NumPy arrays by path."""

    time: int
    arrays: dict[str, np.ndarray]


class Recorder:
    """Records a chain of nn.Linear while it trains: bursts of 3 updates in a row, one every `every` updates.

    `recorder.snapshot(x, y)` is called AFTER each update, with the samples of the update that was just made: inputs x
    (S, ...) and targets y, classes (S,) or values (S, O). What is kept PRECEDES the update: the weights of the call
    before, copied then, and the rates (S, units) that they give the batch. A burst ends with the weights after it, so
    that W[t+1] - W[t] is exact for each of its updates. With `every` <= 4 all updates are kept; otherwise at most
    `most` snapshots: beyond, every second burst is dropped and `every` doubles. Batches of another size than the first
    are passed over. `probes` (P, ...) are stimuli shown at every snapshot and never trained on. `output` says with
    which loss the model learns ("softmax": cross-entropy, "linear": squared error, "sigmoid": binary cross-entropy);
    None: softmax for classes, sigmoid for 0 and 1 at one output, else what the model returns. The model, its mode and
    all randomness stay as they are. Raises RecordingError where the model is no such chain.
    """

    def __init__(
        self,
        model: nn.Module,
        every: int = 10,
        probes: Tensor | None = None,
        output: str | None = None,
        most: int = 256,
    ) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise RecordingError(f"every = {every!r} is not a whole number from 1 on; 10 keeps 3 updates of 10")
        if output is not None and output not in OUTPUTS:
            raise RecordingError(
                f"output = {output!r} is not one of {', '.join(OUTPUTS)}; leave it out to have it found"
            )
        if most < 2 * (BURST + 1):
            raise RecordingError(f"most = {most} holds less than two bursts; give {2 * (BURST + 1)} or more")
        self.every = every
        self.updates = 0
        self._model, self._probes, self._output, self._most = model, probes, output, most
        self._before = parameters_of(model)
        self._chain: Chain | None = None
        self._samples = 0
        self._bursts: list[list[Shot]] = []
        self._open = False  # whether the last burst waits for its next update
        self._seconds = 0.0

    def snapshot(self, x: Tensor, y: Tensor) -> None:
        """Take note of the update that was just made on inputs x (S, ...) and targets y (S,) or (S, O)."""
        began = time.perf_counter()
        x, y = torch.as_tensor(x).detach(), torch.as_tensor(y).detach()
        if self._chain is None:
            self._begin(x, y)
        now, self.updates = self.updates, self.updates + 1
        whole = len(x) == self._samples
        fits = self._due(now) and whole
        if fits and not self._open:
            # the end of a burst may lack its batch: a burst right behind would make of it a single update without one
            fits = not self._bursts or self._bursts[-1][-1].time < now - 1
            if fits:
                self._bursts.append([])
        if fits:
            self._bursts[-1].append(self._shot(now, x, y))
        elif self._open:
            self._bursts[-1].append(self._shot(now, x, y) if whole else self._shot(now, None, None))
            self._thin()
        self._open = fits
        if fits or self._due(self.updates):
            self._before = parameters_of(self._model)
        self._seconds += time.perf_counter() - began

    def _due(self, update: int) -> bool:
        return self.every <= BURST + 1 or update % self.every < BURST

    def _begin(self, x: Tensor, y: Tensor) -> None:
        self._chain, self._samples = chain_of(self._model, x), len(x)
        integers = not y.is_floating_point()
        if self._output is None:
            classes = (
                "softmax" if self._chain.sizes[-1] > 1 else "sigmoid" if int(y.max()) <= 1 else self._chain.answers
            )
            self._output = classes if integers else self._chain.answers
        after = self._model.state_dict()
        if all(torch.equal(value, after[name]) for name, value in self._before.items()):
            warnings.warn(
                "no weight has changed since the Recorder was made; call recorder.snapshot(x, y) after the update "
                "(optimizer.step()), with the batch of that update",
                stacklevel=3,
            )

    def _thin(self) -> None:
        """Drop every second burst where they have become too many, and take half as many from now on."""
        if self.every > BURST + 1 and sum(map(len, self._bursts)) > self._most:
            self._bursts = self._bursts[::2]
            self.every *= 2

    def _shot(self, update: int, x: Tensor | None, y: Tensor | None) -> Shot:
        """The weights before an update, and what they make of its batch; NaN where there is none."""
        chain = self._chain
        assert chain is not None
        arrays: dict[str, np.ndarray] = {}
        for layer, source, target in zip(chain.layers, chain.populations[:-1], chain.populations[1:], strict=True):
            name = f"{layer}." if layer else ""
            arrays[f"weights/{source}->{target}"] = _numbers(self._before[f"{name}weight"])
            if f"{name}bias" in self._before:
                arrays[f"bias/{target}"] = _numbers(self._before[f"{name}bias"])
        stimuli = [part for part in (self._probes, x) if part is not None]
        if stimuli:
            arrays |= self._rates(torch.cat([part.to(stimuli[-1]) for part in stimuli]))
        if y is not None:
            arrays["target"] = self._targets(y)
        return Shot(update, arrays)

    def _rates(self, x: Tensor) -> dict[str, np.ndarray]:
        chain = self._chain
        assert chain is not None
        assert self._output is not None
        shown = flow(self._model, self._before, x)
        made = {"input": _numbers(shown.inputs[chain.layers[0]])}
        for name, layer in zip(chain.populations[1:-1], chain.layers[1:], strict=True):
            made[f"activity/{name}"] = _numbers(shown.inputs[layer])
        made["activity/output"] = _numbers(OUTPUTS[self._output](shown.drives[chain.layers[-1]]))
        return made

    def _targets(self, y: Tensor) -> np.ndarray:
        """Targets (S, O): classes as one-hot, values as they are."""
        assert self._chain is not None
        width = self._chain.sizes[-1]
        if y.numel() == len(y) * width and (y.is_floating_point() or width == 1 or y.ndim == 2):
            return _numbers(y.reshape(len(y), width))
        if y.is_floating_point() or y.ndim != 1 or y.min() < 0 or y.max() >= width:
            raise RecordingError(
                f"y has shape {tuple(y.shape)} and dtype {y.dtype}; give classes (S,) from 0 to {width - 1}, or values "
                f"(S, {width}) for the {width} outputs"
            )
        return _numbers(nn.functional.one_hot(y.long(), width))

    @property
    def recording(self) -> Recording:
        """What has been recorded so far, until the model diverged, if it did, which warns.

        Raises RecordingError where that is less than one update.
        """
        shots = [shot for burst in self._bursts for shot in burst]
        if self._open:
            shots.append(self._shot(self.updates, None, None))
        diverged = next((place for place, shot in enumerate(shots) if not _finite(shot)), None)
        if diverged is not None:
            warnings.warn(
                f"the model diverged by update {shots[diverged].time}; what follows is left out", stacklevel=2
            )
            shots = shots[:diverged]
        if not shots or self._chain is None:
            raise RecordingError("nothing was recorded; call recorder.snapshot(x, y) after every update")
        first = shots[0].arrays
        samples = self._samples + (0 if self._probes is None else len(self._probes))
        parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "bias": {}, "activity": {}}
        for path in first:
            if "/" in path:
                part, _, name = path.partition("/")
                parts[part][name] = _stacked(shots, path, samples)
        return Recording(
            np.array([shot.time for shot in shots], dtype=np.float64),
            parts["weights"],
            parts["bias"],
            parts["activity"],
            input=_stacked(shots, "input", samples),
            target=_stacked(shots, "target", samples),
            meta=self._meta(self._chain),
        )

    def _meta(self, chain: Chain) -> dict[str, object]:
        return {
            "source": "recorder",
            "snapshot": "before",
            "nonlinearity": chain.nonlinearity,
            "beta": chain.beta,
            "output": self._output,
            "populations": list(chain.populations),
            "probes": 0 if self._probes is None else len(self._probes),
            "updates_per_snapshot": 1,
        }

    def save(self, path: str | Path) -> Path:
        """Write what has been recorded to a file, .h5 or .npz."""
        return self.recording.save(path)

    @property
    def cost(self) -> Cost:
        """Seconds spent in `snapshot` and bytes kept."""
        kept = sum(array.nbytes for burst in self._bursts for shot in burst for array in shot.arrays.values())
        held = sum(value.element_size() * value.numel() for value in self._before.values())
        return Cost(self._seconds, kept + held)

    def __repr__(self) -> str:
        shape = "-".join(map(str, self._chain.sizes)) if self._chain else "not seen yet"
        rhythm = "every update" if self.every <= BURST + 1 else f"{BURST} updates in a row of every {self.every}"
        return (
            f"Recorder({type(self._model).__name__} {shape}: {rhythm}; a call to snapshot follows its update, what is "
            f"kept precedes it; {self.updates} updates seen, {sum(map(len, self._bursts))} snapshots, "
            f"{self.cost.seconds:.3g} s, {self.cost.bytes / 1e6:.3g} MB)"
        )


def _numbers(value: Tensor) -> np.ndarray:
    """A tensor as an array of its own; numbers of 16 bits as float32."""
    value = value.detach().cpu()
    return value.to(torch.float64 if value.dtype == torch.float64 else torch.float32).numpy().copy()


def _finite(shot: Shot) -> bool:
    """Whether the weights of a shot, and the rates that they give, are numbers."""
    made = (array for path, array in shot.arrays.items() if path.startswith(("weights/", "bias/", "activity/")))
    return all(np.isfinite(array).all() for array in made)


def _stacked(shots: list[Shot], path: str, samples: int) -> np.ndarray:
    """One array (T, ...) of a path in all snapshots; samples that are missing are NaN: probes have no target."""
    whole = [shot.arrays.get(path) for shot in shots]
    first = next(array for array in whole if array is not None)
    if path.startswith(("weights/", "bias/")):
        return np.stack([array for array in whole if array is not None])
    made = np.full((len(shots), samples, first.shape[-1]), np.nan, dtype=first.dtype)
    for place, array in enumerate(whole):
        if array is None:
            continue
        # probes lead and the batch follows: a target has no probes, a burst's end no batch
        rows = slice(samples - len(array), samples) if path == "target" else slice(0, len(array))
        made[place, rows] = array
    return made
