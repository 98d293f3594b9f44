"""Recording: learning dynamics as they were observed, time first; the one data type of identification."""

from __future__ import annotations

import io
import json
import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metarule.collect import unknown
from metarule.identification.structure import Structure, structure
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS

SCHEMA = "metarule/1"

DAMAGED = (
    *(OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(SyntaxError, tokenize.TokenError, OverflowError, MemoryError),
)
"""What zipfile (first line) and numpy's headers (second) raise: a flipped bit may ask for any compression or size."""


class RecordingError(ValueError):
    """A recording that cannot be used: every problem with its path in the file and the cure."""

    @classmethod
    def of(cls, owner: str, problems: list[str]) -> RecordingError:
        """All problems of `owner` in one error."""
        return cls(f"{owner} cannot be used:\n  " + "\n  ".join(problems))


@dataclass(frozen=True, eq=False)
class Recording:
    """Snapshots of one learning network, each taken before its update.

    `time` (T) counts updates; `weights` per edge "pre->post" (T, I, J), the weights of an always-on unit apart in
    `bias` per population (T, I); `activity` per population, `input` and `target` (T, S, units) for the S samples of
    the batch. `meta` says what else is known: schema, nonlinearity, output, beta, updates_per_snapshot.
    Raises RecordingError listing every problem.
    """

    time: np.ndarray
    weights: Mapping[str, np.ndarray]
    bias: Mapping[str, np.ndarray] = field(default_factory=dict)
    activity: Mapping[str, np.ndarray] = field(default_factory=dict)
    input: np.ndarray | None = None
    target: np.ndarray | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise RecordingError.of("this recording", problems)

    @property
    def structure(self) -> Structure:
        """The network that the edges describe."""
        found, _ = structure(self.weights)
        assert found is not None
        return found

    def problems(self) -> list[str]:
        """Everything that is wrong, with the path and the cure."""
        wrong = {path: sentence for path, array, rank in self._arrays() if (sentence := _unusable(path, array, rank))}
        found = list(wrong.values())
        if "/time" not in wrong:
            found += self._problems_of_time(set(wrong))
        if not any(path.startswith("/weights/") for path in wrong):
            network, of_edges = structure(self.weights)
            found += of_edges
            if network is not None:
                found += self._problems_of_widths(network, wrong)
            if self.weights and not _changes(self.weights) and not _changes(self.bias):
                found.append("/weights: nothing ever changes; record while the network learns")
        return found + self._problems_of_samples(wrong) + _problems_of_meta(self.meta)

    def _arrays(self) -> list[tuple[str, np.ndarray, int]]:
        found = [("/time", self.time, 1)]
        found += [(f"/weights/{edge}", array, 3) for edge, array in self.weights.items()]
        found += [(f"/bias/{name}", array, 2) for name, array in self.bias.items()]
        found += [(f"/activity/{name}", array, 3) for name, array in self.activity.items()]
        return found + [
            (f"/{name}", array, 3)
            for name, array in (("input", self.input), ("target", self.target))
            if array is not None
        ]

    def _problems_of_time(self, wrong: set[str]) -> list[str]:
        found = []
        if len(self.time) < 2:
            found.append(f"/time has {len(self.time)} snapshots; at least two are needed")
        elif not np.all(np.diff(self.time.astype(float)) > 0):
            place = int(np.argmin(np.diff(self.time.astype(float)))) + 1
            found.append(f"/time[{place}] = {self.time[place]} does not come after its predecessor; sort the snapshots")
        for path, array, _ in self._arrays():
            if path not in wrong and len(array) != len(self.time):
                found.append(f"{path} has {len(array)} entries in time, /time has {len(self.time)}; time is axis 0")
        return found

    def _problems_of_widths(self, network: Structure, wrong: Mapping[str, str]) -> list[str]:
        found = []
        owners = {"/input": network.input, "/target": network.output}
        for path, array, _ in self._arrays():
            folder, _, name = path.removeprefix("/").partition("/")
            owner = owners.get(path, name)
            if path in wrong or folder in ("time", "weights"):
                continue
            if owner not in network.sizes:
                sentence = unknown(f"a population of /{folder}", owner, network.sizes)
                found.append(f"{path}: {sentence}; populations are named by the edges of /weights")
            elif folder == "bias" and owner == network.input:
                found.append(f"{path}: '{owner}' is the input, which has no bias; leave it out")
            elif array.shape[-1] != network.sizes[owner]:
                found.append(
                    f"{path} has {array.shape[-1]} units, population '{owner}' has {network.sizes[owner]}; "
                    "units are the last axis"
                )
        return found

    def _problems_of_samples(self, wrong: Mapping[str, str]) -> list[str]:
        sampled = {
            path: array.shape[1]
            for path, array, _ in self._arrays()
            if path not in wrong and path.split("/")[1] in ("input", "target", "activity")
        }
        first = next(iter(sampled), "")
        return [
            f"{path} has {count} samples, {first} has {sampled[first]}; axis 1 is the batch, the same in all"
            for path, count in sampled.items()
            if count != sampled[first]
        ]

    def save(self, path: str | Path) -> Path:
        """Write the recording to an .npz file."""
        arrays = {"meta": np.array(json.dumps({**self.meta, "schema": SCHEMA}))}
        arrays |= {path.removeprefix("/"): array for path, array, _ in self._arrays()}
        path = Path(path)
        with path.open("wb") as handle:
            np.savez_compressed(handle, **arrays)  # pyright: ignore[reportArgumentType] - names are no options here
        return path


def load(path: str | Path) -> Recording:
    """Read an .npz recording; no pickle is ever loaded. Raises RecordingError on anything that is not one."""
    path = Path(path)
    arrays, meta = _read(path)
    if "time" not in arrays:
        raise RecordingError(f"{path} has no /time; it holds {', '.join(sorted(arrays)) or 'nothing'}; add the updates")

    def under(folder: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(f"{folder}/"): a for name, a in arrays.items() if name.startswith(f"{folder}/")}

    try:
        return Recording(
            arrays["time"],
            under("weights"),
            under("bias"),
            under("activity"),
            arrays.get("input"),
            arrays.get("target"),
            meta,
        )
    except RecordingError as error:
        raise RecordingError(str(error).replace("this recording", str(path), 1)) from None


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every array of an .npz file and what its meta says."""
    if path.is_dir() or not path.exists():
        said = "is a folder" if path.is_dir() else "does not exist"
        raise RecordingError(f"{path} {said}; give the .npz file of a recording")
    cure = "save it again with numpy.savez, arrays of numbers only"
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise RecordingError(f"{path} is damaged or not an .npz recording ({error}); {cure}") from error
    arrays, problems = {}, []
    with archive:
        for entry in archive.namelist():
            name = entry.removesuffix(".npy")
            try:
                arrays[name] = np.lib.format.read_array(io.BytesIO(archive.read(entry)), allow_pickle=False)
            except DAMAGED as error:
                problems.append(f"/{name} cannot be read ({error}); {cure}")
    meta: Any = {}
    try:
        meta = json.loads(str(arrays.pop("meta", "{}")))
    except ValueError as error:
        problems.append(f"/meta is not JSON ({error}); write it with json.dumps")
    if not isinstance(meta, dict):
        problems.append(f"/meta holds {type(meta).__name__}, not an object; write json.dumps of a dict")
    elif meta.get("schema", SCHEMA) != SCHEMA:
        problems.append(f"/meta: schema = {meta['schema']!r}; this version reads '{SCHEMA}'")
    if problems:
        raise RecordingError.of(str(path), problems)
    return arrays, meta


def _unusable(path: str, array: np.ndarray, rank: int) -> str | None:
    """What is wrong with one array on its own."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        given = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        return f"{path} is {given}; an array of real numbers (float or integer) is needed"
    if array.ndim != rank:
        return f"{path} has {array.ndim} axes; {rank} are needed, time first"
    if array.size == 0:
        return f"{path} has shape {array.shape}, which is empty; leave it out or record it"
    finite = np.isfinite(array.astype(np.float64))
    if not np.all(finite):
        place = [int(axis[0]) for axis in np.nonzero(~finite)]
        return f"{path}{place} = {array[tuple(place)]} is not finite ({int((~finite).sum())} in all); cut before it"
    return None


def _changes(arrays: Mapping[str, np.ndarray]) -> bool:
    return any(array.ndim > 1 and np.any(array[1:] != array[:-1]) for array in arrays.values())


def _problems_of_meta(meta: Mapping[str, Any]) -> list[str]:
    found = [
        f"/meta: {unknown(name, str(meta[name]), allowed)}"
        for name, allowed in (("nonlinearity", NONLINEARITIES), ("output", OUTPUTS))
        if name in meta and meta[name] not in list(allowed)
    ]
    beta, updates = meta.get("beta", 1.0), meta.get("updates_per_snapshot", 1)
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not (0 < beta < math.inf):
        found.append(f"/meta: beta = {beta!r} is not a positive number; give the steepness of the nonlinearity or 1")
    if isinstance(updates, bool) or not isinstance(updates, int) or updates < 1:
        found.append(f"/meta: updates_per_snapshot = {updates!r} is not a whole number from 1 on; count the updates")
    return found
