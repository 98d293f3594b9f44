"""Recording: learning dynamics as they were observed, time first; the one data type of identification."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "metarule/1"


class RecordingError(ValueError):
    """A recording that cannot be used: every problem with its path in the file and the cure."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Snapshots of one learning network, each taken before its update.

    `time` (T) counts updates; `weights` per edge "pre->post" (T, I, J), the weights of an always-on unit apart in
    `bias` per population (T, I); `activity` per population, `input` and `target` (T, S, units) for the S samples of
    the batch. `meta` says what else is known: schema, nonlinearity, output.
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
            raise RecordingError("this recording cannot be used:\n  " + "\n  ".join(problems))

    def problems(self) -> list[str]:
        """Everything that is wrong, with the path and the cure."""
        found = []
        if self.time.ndim != 1 or len(self.time) < 2:
            found.append(f"/time has shape {self.time.shape}; at least two snapshots along one axis are needed")
        elif not np.all(np.diff(self.time) > 0):
            place = int(np.argmin(np.diff(self.time))) + 1
            found.append(f"/time[{place}] = {self.time[place]} does not come after its predecessor; sort the snapshots")
        if not self.weights:
            found.append("/weights is empty; name each edge 'pre->post', as in weights/input->hidden1")
        for path, array, rank in self._arrays():
            if array.ndim != rank:
                found.append(f"{path} has {array.ndim} axes; {rank} are needed, time first")
            elif len(array) != len(self.time):
                found.append(f"{path} has {len(array)} entries in time, /time has {len(self.time)}; time is axis 0")
            elif not np.all(np.isfinite(array)):
                place = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(array)))
                found.append(f"{path}{list(place)} is not finite; cut the recording before it")
        for edge in self.weights:
            if "->" not in edge:
                found.append(f"/weights/{edge} does not say which way it runs; name it 'pre->post'")
        if self.weights and not any(np.any(np.diff(array, axis=0)) for array in self.weights.values()):
            found.append("/weights: nothing ever changes: there is no learning to identify")
        return found

    def _arrays(self) -> list[tuple[str, np.ndarray, int]]:
        found = [(f"/weights/{edge}", array, 3) for edge, array in self.weights.items()]
        found += [(f"/bias/{name}", array, 2) for name, array in self.bias.items()]
        found += [(f"/activity/{name}", array, 3) for name, array in self.activity.items()]
        return found + [
            (f"/{name}", array, 3)
            for name, array in (("input", self.input), ("target", self.target))
            if array is not None
        ]

    def save(self, path: str | Path) -> Path:
        """Write the recording to an .npz file."""
        arrays = {"time": self.time, "meta": np.array(json.dumps({**self.meta, "schema": SCHEMA}))}
        arrays |= {path.removeprefix("/"): array for path, array, _ in self._arrays()}
        path = Path(path)
        with path.open("wb") as handle:
            np.savez_compressed(handle, allow_pickle=False, **arrays)
        return path


def load(path: str | Path) -> Recording:
    """Read an .npz recording; no pickle is ever loaded. Raises RecordingError on anything that is not one."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise RecordingError(f"{path} is not a readable .npz recording without pickled objects: {error}") from error
    meta = json.loads(str(arrays.pop("meta", "{}")))
    if meta.get("schema", SCHEMA) != SCHEMA:
        raise RecordingError(f"{path} has schema {meta['schema']}; this version reads {SCHEMA}")
    if "time" not in arrays:
        raise RecordingError(f"{path} has no /time; it holds {', '.join(sorted(arrays)) or 'nothing'}")

    def under(folder: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(f"{folder}/"): a for name, a in arrays.items() if name.startswith(f"{folder}/")}

    return Recording(
        arrays["time"],
        under("weights"),
        under("bias"),
        under("activity"),
        arrays.get("input"),
        arrays.get("target"),
        meta,
    )
