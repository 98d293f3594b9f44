"""Which file holds a recording how: the suffix says it, and a folder is one of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarule.collect import unknown
from metarule.identification import checkpoints, hdf5, npz, nwb
from metarule.identification.problems import RecordingError

Contents = tuple[dict[str, np.ndarray], dict[str, Any]]
"""Arrays by their paths ("weights/input->hidden1"), and meta."""

READERS: dict[str, Callable[[Path], Contents]] = {".npz": npz.read, ".h5": hdf5.read, ".hdf5": hdf5.read}

WRITERS: dict[str, Callable[[Path, Mapping[str, np.ndarray], Mapping[str, Any]], None]] = {
    ".npz": npz.write,
    ".h5": hdf5.write,
    ".hdf5": hdf5.write,
}

KINDS = (*READERS, ".nwb")


def read(path: Path, mapping: Path | None = None) -> Contents:
    """What a recording's file holds, or a folder of checkpoints; raises RecordingError where that cannot be read.

    `mapping`, a TOML file, says which array is which in an .nwb or any other HDF5 file.
    """
    if not path.exists():
        raise RecordingError(
            f"{path} does not exist; give the file of a recording ({', '.join(KINDS)}) or a folder of checkpoints"
        )
    if path.is_dir():
        return checkpoints.read(path)
    if path.suffix == ".nwb" or mapping is not None:
        return nwb.read(path, mapping)
    if path.suffix not in READERS:
        cure = "; one checkpoint shows no change: give the folder" if path.suffix in checkpoints.SUFFIXES else ""
        raise RecordingError(f"{path}: {unknown('the suffix', path.suffix, KINDS)}{cure}")
    return READERS[path.suffix](path)


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write a recording in the format that the suffix names: whole or not at all."""
    if path.suffix not in WRITERS:
        raise RecordingError(f"{path}: {unknown('the suffix', path.suffix, WRITERS)}")
    # what took hours to record is not lost for want of a folder
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        WRITERS[path.suffix](part, arrays, meta)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
