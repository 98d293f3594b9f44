"""Recordings in HDF5: one dataset per array at its path, meta as a JSON text in the attribute `meta` of the root."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metarule.identification.npz import parsed
from metarule.identification.problems import RecordingError

DAMAGED = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)
"""What h5py raises where a file is damaged."""

CURE = "write it again with h5py, arrays of numbers only"

RATIO = 1100
"""How many times its stored size an array may have: deflate reaches 1032."""


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write arrays at their paths, each chunk with a checksum, and meta as JSON."""
    # from HDF5 1.10 on the file's own structure has checksums too: a flipped bit is seen
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["meta"] = json.dumps(dict(meta))
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", compression_opts=1, fletcher32=True)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every array of an HDF5 file by its path, and its meta; raises RecordingError where the file is damaged."""
    arrays: dict[str, np.ndarray] = {}
    problems: list[str] = []
    try:
        with h5py.File(path, "r") as file:
            names: list[str] = []
            # links to other files are not followed by visit
            file.visit(names.append)
            for name in names:
                _take(file, name, arrays, problems)
            text = file.attrs.get("meta", "{}")
            meta, of_meta = parsed(text if isinstance(text, str) else bytes(np.asarray(text)).decode())
    except DAMAGED as error:
        raise RecordingError(f"{path} is damaged or not an HDF5 recording ({error}); {CURE}") from error
    if problems or of_meta:
        raise RecordingError.of(str(path), problems + of_meta)
    return arrays, meta


def _take(file: h5py.File, name: str, arrays: dict[str, np.ndarray], problems: list[str]) -> None:
    node = file[name]
    if not isinstance(node, h5py.Dataset):
        return
    try:
        arrays[name] = values(node)
    except DAMAGED as error:
        problems.append(f"/{name} cannot be read ({error}); {CURE}")


def values(dataset: h5py.Dataset) -> np.ndarray:
    """The numbers of a dataset; raises ValueError where they lie in other files or the file does not hold them."""
    if dataset.external or dataset.is_virtual:
        raise ValueError("its values lie in another file, which is not opened")
    if dataset.dtype.kind not in "iufb":
        raise ValueError(f"it holds {dataset.dtype}, not numbers")
    if dataset.nbytes > RATIO * dataset.id.get_storage_size():
        raise ValueError(f"it promises {dataset.nbytes} bytes and stores {dataset.id.get_storage_size()}")
    return np.asarray(dataset[()])
