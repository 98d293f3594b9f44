"""Recording: learning dynamics as they were observed, time first; the one data type of identification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from metarule.identification import files
from metarule.identification.problems import RANKS, SCHEMA, RecordingError, part_of, problems_of
from metarule.identification.structure import Structure, structure


@dataclass(frozen=True, eq=False)
class Recording:
    """Snapshots of one learning network, each taken before the update that its batch makes.

    `time` (T) counts updates: snapshots whose times differ by 1 form an exact single update W[t+1] - W[t], made by the
    batch shown at t, a mean over its samples. `weights` per edge "pre->post" (T, I, J), the weights of an always-on
    unit apart in `bias` per population (T, I); `activity` per population, `input` and `target` (T, S, units) and
    `reward` (T, S) for the S samples of a snapshot. Missing entries are NaN. `weights` may be empty where activity is
    given; meta["populations"] then names the populations in feedforward order, the input and the output included.
    `meta` says what else is known: schema, snapshot ("before", or "after": it follows the update made on its samples),
    nonlinearity, beta, output, probes, source, updates_per_snapshot, clock ("epoch": time counts epochs).
    Raises RecordingError listing every problem.
    """

    time: np.ndarray
    weights: Mapping[str, np.ndarray]
    bias: Mapping[str, np.ndarray] = field(default_factory=dict)
    activity: Mapping[str, np.ndarray] = field(default_factory=dict)
    input: np.ndarray | None = None
    target: np.ndarray | None = None
    reward: np.ndarray | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise RecordingError.of("this recording", problems)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its path in a file: "time", "weights/input->hidden1", "input"."""
        found = {"time": self.time}
        for part in ("weights", "bias", "activity"):
            found |= {f"{part}/{name}": array for name, array in getattr(self, part).items()}
        whole = {"input": self.input, "target": self.target, "reward": self.reward}
        return found | {name: array for name, array in whole.items() if array is not None}

    @property
    def structure(self) -> Structure:
        """The network that the edges describe, or the populations where only activity is known."""
        found, _ = structure(self.arrays, self.meta)
        assert found is not None
        return found

    @property
    def probes(self) -> int:
        """How many of the S samples, the first, are probes: the same at every snapshot and not trained on."""
        return self.meta.get("probes", 0)

    @property
    def gaps(self) -> np.ndarray:
        """How many updates lie between a snapshot and the next (T - 1); NaN where time counts epochs of any length."""
        unknown = np.nan if self.meta.get("clock") == "epoch" else 1
        return np.diff(self.time.astype(np.float64)) * self.meta.get("updates_per_snapshot", unknown)

    @property
    def singles(self) -> np.ndarray:
        """The snapshots t that one update alone divides from the next: W[t+1] - W[t] is exact."""
        return np.flatnonzero(self.gaps == 1)

    def at(self, places: np.ndarray) -> Recording:
        """The recording with some of its snapshots only."""
        parts = {
            part: {name: array[places] for name, array in getattr(self, part).items()}
            for part in ("weights", "bias", "activity")
        }
        whole = {name: getattr(self, name) for name in ("input", "target", "reward")}
        kept = {name: None if array is None else array[places] for name, array in whole.items()}
        return replace(self, time=self.time[places], **parts, **kept)

    def problems(self) -> list[str]:
        """Everything that is wrong, with the path, the index and the cure."""
        return problems_of(self.arrays, self.meta)

    def save(self, path: str | Path) -> Path:
        """Write the recording to a file, in the format that its suffix names."""
        path = Path(path)
        files.write(path, self.arrays, {**self.meta, "schema": SCHEMA})
        return path


def load(path: str | Path, mapping: str | Path | None = None) -> Recording:
    """Read a recording; no pickle is ever loaded. Raises RecordingError on anything that is not one."""
    path = Path(path)
    arrays, meta = files.read(path, None if mapping is None else Path(mapping))
    if "time" not in arrays:
        raise RecordingError(f"{path} has no /time; it holds {', '.join(sorted(arrays)) or 'nothing'}; add the updates")
    # other machines write the other byte order, which torch does not read
    known = {
        path: array.astype(array.dtype.newbyteorder("="), copy=False)
        for path, array in arrays.items()
        if part_of(path) in RANKS
    }

    def under(folder: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(f"{folder}/"): a for name, a in known.items() if name.startswith(f"{folder}/")}

    try:
        return Recording(
            known["time"],
            under("weights"),
            under("bias"),
            under("activity"),
            known.get("input"),
            known.get("target"),
            known.get("reward"),
            meta,
        )
    except RecordingError as error:
        raise RecordingError(str(error).replace("this recording", str(path), 1)) from None
