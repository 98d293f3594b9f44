"""Problems: everything that keeps arrays from being a recording, each with its path, its index and the cure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from metarule.collect import unknown
from metarule.identification.structure import Structure, structure
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS

SCHEMA = "metarule/1"

RANKS = {"time": 1, "weights": 3, "bias": 2, "activity": 3, "input": 3, "target": 3, "reward": 2}
"""Part of a recording -> the number of its axes, time first."""

SAMPLED = ("input", "target", "activity", "reward")
"""Parts whose axis 1 is the samples of a snapshot."""


class RecordingError(ValueError):
    """A recording that cannot be used: every problem with its path in the file and the cure."""

    def __init__(self, said: str) -> None:
        super().__init__("\n".join(map(_shown, said.split("\n"))))

    @classmethod
    def of(cls, owner: str, problems: list[str]) -> RecordingError:
        """All problems of `owner` in one error, each on a line of its own."""
        return cls(f"{_shown(owner)} cannot be used:\n  " + "\n  ".join(map(_shown, problems)))


def _shown(text: str) -> str:
    """A text as a terminal can show it: names in a file may break lines, or move its cursor."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def problems_of(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with arrays named by their path ("weights/input->hidden1") and with their meta.

    NaN stands for what is missing and is allowed everywhere but in time; infinity is not, nor a path of NaN alone.
    """
    if not isinstance(meta, Mapping):
        return [f"/meta is {type(meta).__name__}, not a mapping; give a dict of what is known"]
    wrong = {path: said for path, array in arrays.items() if (said := _unusable(path, array))}
    usable = {path: array for path, array in arrays.items() if path not in wrong}
    found = list(wrong.values())
    if "time" in usable:
        found += _problems_of_time(usable["time"]) + _problems_of_length(usable)
    # what has the sizes of populations: weights, or activities where there are none
    sizing = "weights" if any(part_of(path) == "weights" for path in arrays) else "activity"
    if not any(part_of(path) == sizing for path in wrong):
        network, unconnected = structure(usable, meta)
        found += unconnected
        if network is not None:
            found += _problems_of_widths(network, usable)
        found += _problems_of_change(usable)
    return found + _problems_of_samples(usable) + _problems_of_meta(meta) + _problems_of_probes(usable, meta)


def part_of(path: str) -> str:
    """The part of a recording that a path belongs to: "weights" of "weights/input->hidden1"."""
    return path.partition("/")[0]


def _unusable(path: str, array: np.ndarray) -> str | None:
    """What is wrong with one array on its own."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        given = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        return f"/{path} is {given}; an array of real numbers (float or integer) is needed"
    rank = RANKS[part_of(path)]
    if array.ndim != rank:
        return f"/{path} has {array.ndim} axes; {rank} are needed, time first"
    if array.size == 0:
        return f"/{path} has shape {array.shape}, which is empty; leave it out or record it"
    missing = np.isnan(array)
    bad = ~np.isfinite(array) if path == "time" else np.isinf(array)
    if np.any(bad):
        place = [int(axis[0]) for axis in np.nonzero(bad)]
        return f"/{path}{place} = {array[tuple(place)]} is not finite ({int(bad.sum())} in all); cut before it"
    if np.all(missing):
        return f"/{path} is NaN everywhere, which says that nothing was recorded; leave it out"
    return None


def _problems_of_time(time: np.ndarray) -> list[str]:
    if len(time) < 2:
        return [f"/time has {len(time)} snapshots; at least two are needed: record longer"]
    steps = np.diff(time.astype(np.float64))
    if np.all(steps > 0):
        return []
    place = int(np.argmax(steps <= 0)) + 1
    return [f"/time[{place}] = {time[place]} does not come after its predecessor; sort the snapshots"]


def _problems_of_length(arrays: Mapping[str, np.ndarray]) -> list[str]:
    found, length = [], len(arrays["time"])
    for path, array in arrays.items():
        if len(array) == length:
            continue
        cure = "time is axis 0"
        if length in array.shape:
            axis = array.shape.index(length)
            cure += f"; it looks as if axis {axis} is time: numpy.moveaxis(array, {axis}, 0)"
        found.append(f"/{path} has {len(array)} entries in time, /time has {length}; {cure}")
    return found


def _problems_of_widths(network: Structure, arrays: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    owners = {"input": network.input, "target": network.output}
    named_by = "the edges of /weights" if any(part_of(path) == "weights" for path in arrays) else "populations in /meta"
    for path, array in arrays.items():
        part, _, name = path.partition("/")
        owner = owners.get(part, name)
        if part in ("time", "weights", "reward"):
            continue
        if owner not in network.sizes:
            sentence = unknown(f"a population of /{part}", owner, network.sizes)
            found.append(f"/{path}: {sentence}; populations are named by {named_by}")
        elif part == "bias" and owner == network.input:
            found.append(f"/{path}: '{owner}' is the input, which has no bias; leave it out")
        elif array.shape[-1] != network.sizes[owner]:
            found.append(
                f"/{path} has {array.shape[-1]} units, population '{owner}' has {network.sizes[owner]}; "
                "units are the last axis"
            )
    return found


def _problems_of_change(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """That nothing learns: weights, or activities where no weights are known, are the same at every snapshot."""
    part = "weights" if any(part_of(path) == "weights" for path in arrays) else "activity"
    seen = [array for path, array in arrays.items() if part_of(path) in (part, "bias")]
    # fmax and fmin pass over NaN
    if not seen or any(np.any(np.fmax.reduce(array) > np.fmin.reduce(array)) for array in seen):
        return []
    return [] if len(seen[0]) < 2 else [f"/{part}: nothing ever changes; record while the network learns"]


def _problems_of_samples(arrays: Mapping[str, np.ndarray]) -> list[str]:
    counts = {path: array.shape[1] for path, array in arrays.items() if part_of(path) in SAMPLED}
    first = next(iter(counts), "")
    return [
        f"/{path} has {count} samples, /{first} has {counts[first]}; axis 1 is the batch, the same in all"
        for path, count in counts.items()
        if count != counts[first]
    ]


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _problems_of_meta(meta: Mapping[str, Any]) -> list[str]:
    words = {
        "nonlinearity": NONLINEARITIES,
        "output": OUTPUTS,
        "snapshot": ("before", "after"),
        "clock": ("update", "epoch"),
    }
    found = [
        f"/meta: {unknown(name, str(meta[name]), allowed)}"
        for name, allowed in words.items()
        if name in meta and meta[name] not in list(allowed)
    ]
    beta, updates, schema = meta.get("beta", 1.0), meta.get("updates_per_snapshot", 1), meta.get("schema", SCHEMA)
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not (0 < beta <= sys.float_info.max):
        found.append(f"/meta: beta = {beta!r} is not a positive number; give the steepness of the nonlinearity or 1")
    if not _whole(updates, 1):
        found.append(f"/meta: updates_per_snapshot = {updates!r} is not a whole number from 1 on; count the updates")
    if schema != SCHEMA:
        found.append(f"/meta: schema = {schema!r}; this version reads '{SCHEMA}': write it by this version")
    return found


def _problems_of_probes(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> list[str]:
    probes = meta.get("probes", 0)
    if not _whole(probes, 0):
        return [
            f"/meta: probes = {probes!r} is not a whole number from 0 on; count the samples that are not trained on"
        ]
    samples = [array.shape[1] for path, array in arrays.items() if part_of(path) in SAMPLED]
    if probes > min(samples, default=0):
        held = f"each snapshot has {min(samples)} samples" if samples else "no samples are recorded"
        return [f"/meta: probes = {probes}, but {held}; probes are the first samples of each snapshot"]
    return []
