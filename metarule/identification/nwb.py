"""Recordings in NWB files, which have no type for weights: a small TOML file says which array is which.

    time = { path = "/processing/learning/weights", per_update = 0.5 }   # seconds; leave per_update out for updates
    "weights/input->hidden1" = { path = "/processing/learning/weights", shape = [10, 20] }
    "activity/hidden1" = { path = "/acquisition/hidden1", shape = [8, 10] }

    [meta]
    nonlinearity = "relu"

A path leads to a dataset or to a TimeSeries, of which `data` (or, for time, `timestamps` or `starting_time`) is read;
`shape` is what each snapshot is unfolded to: (post, pre) of weights, (samples, units) of activities.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metarule.collect import unknown
from metarule.identification.hdf5 import DAMAGED, opened, values
from metarule.identification.problems import RANKS, RecordingError, part_of

SETTINGS = {"time": ("path", "per_update")}
"""What may be said of a path; of all but time its path and the shape of a snapshot."""


def read(path: Path, mapping: Path | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays that a mapping names, from an NWB or any HDF5 file, and the meta that it gives.

    Raises RecordingError listing everything in the mapping or in the file that cannot be read.
    """
    if mapping is None:
        raise RecordingError(
            f"{path} is an NWB file, which does not say what a weight is; give a mapping, a TOML file with lines such "
            f'as "weights/input->hidden1" = "/processing/learning/weights"; it holds {_listed(path)}'
        )
    wanted = _mapping(mapping)
    meta = wanted.pop("meta", {})
    arrays, problems = {}, []
    try:
        with opened(path) as file:
            for name, said in wanted.items():
                try:
                    arrays[name] = _array(file, name, said)
                except (*DAMAGED, IndexError) as error:
                    reason = error.args[0] if error.args else error
                    problems.append(f"/{name} cannot be read from {said['path']} ({reason}); correct {mapping}")
    except DAMAGED as error:
        raise RecordingError(f"{path} is damaged or not an NWB file ({error}); export it again") from error
    if problems:
        raise RecordingError.of(str(path), problems)
    return arrays, meta


def _mapping(path: Path) -> dict[str, Any]:
    """A mapping file as a table: path in the recording -> {path = path in the file, ...}."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path} is no mapping ({error}); write lines such as time = '/path/in/file'") from error
    problems = []
    for name, said in table.items():
        if name == "meta":
            continue
        allowed = SETTINGS.get(name, ("path", "shape"))
        table[name] = said = {"path": said} if isinstance(said, str) else said
        if part_of(name) not in RANKS:
            problems.append(f"{unknown('a path', name, RANKS)}, as in weights/input->hidden1")
        elif not isinstance(said, dict) or not isinstance(said.get("path"), str) or {*said} - {*allowed}:
            problems.append(f"{name} = {said!r} is not a path in the file nor a table of {', '.join(allowed)}")
        elif not _positive(said.get("per_update", 1.0)):
            problems.append(
                f"{name}.per_update = {said['per_update']!r} is not a positive number; give the seconds of one update"
            )
    if not isinstance(table.get("meta", {}), dict):
        problems.append("meta is no table; write [meta] and below it what is known")
    if problems:
        raise RecordingError.of(str(path), problems)
    return table


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _array(file: h5py.File, name: str, said: dict[str, Any]) -> np.ndarray:
    node = file[said["path"]]
    if name == "time":
        times = (_times(file, node) if isinstance(node, h5py.Group) else _held(file, node)).astype(np.float64)
        # clocks count in binary fractions: 0.3 / 0.1 is three updates
        return np.round((times - times[0]) / said["per_update"], 6) if "per_update" in said else times
    data = node["data"] if isinstance(node, h5py.Group) else node
    found = _held(file, data)
    if "conversion" in data.attrs:
        found = found * _number(data, "conversion") + (_number(data, "offset") if "offset" in data.attrs else 0.0)
    return found.reshape(len(found), *said["shape"]) if "shape" in said else found


def _held(file: h5py.File, node: object) -> np.ndarray:
    """The numbers of a dataset of this file."""
    if not isinstance(node, h5py.Dataset):
        raise ValueError("it is no dataset")
    # a link on the way, soft or not, may have led anywhere
    if node.file.filename != file.filename:
        raise ValueError("it leads to another file, which is not read")
    return values(node)


def _number(node: h5py.HLObject, name: str) -> float:
    """An attribute that is one number."""
    return np.asarray(node.attrs[name]).astype(np.float64).item()


def _times(file: h5py.File, series: h5py.Group) -> np.ndarray:
    """The times of a TimeSeries: its timestamps, or its start and rate."""
    if "timestamps" in series:
        return _held(file, series["timestamps"])
    start, rate = series["starting_time"], _number(series["starting_time"], "rate")
    if not _positive(rate):
        raise ValueError(f"its rate is {rate}, not a positive number")
    return _held(file, start).item() + np.arange(len(_held(file, series["data"]))) / rate


def _listed(path: Path) -> str:
    found: list[str] = []
    try:
        with opened(path) as file:
            file.visititems(lambda name, node: found.append(f"/{name}") if isinstance(node, h5py.Dataset) else None)
    except DAMAGED as error:
        return f"nothing that can be read ({error})"
    return ", ".join(found[:12]) + (", ..." if len(found) > 12 else "") or "nothing"
