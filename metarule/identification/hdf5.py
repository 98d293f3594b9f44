"""Recordings in HDF5: one dataset per array at its path, meta as a JSON text in the attribute `meta` of the root."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metarule.identification.npz import RATIO, parsed, written
from metarule.identification.problems import RecordingError

DAMAGED = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)
"""What h5py raises where a file is damaged."""

HEAP = b"GCOL\x01\0\0\0"
"""How a heap of texts begins, the version and three zeros included."""

CURE = "write it again with h5py, arrays of numbers only"


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write arrays at their paths, each chunk with a checksum, and meta as JSON."""
    # from HDF5 1.10 on the file's own structure has checksums too: a flipped bit is seen
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        # of fixed length: texts of any length lie in a heap that has no checksum
        file.attrs["meta"] = np.bytes_(written(meta).encode())
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", compression_opts=1, fletcher32=True)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every array of an HDF5 file by its path, and its meta; raises RecordingError where the file is damaged."""
    arrays: dict[str, np.ndarray] = {}
    problems: list[str] = []
    try:
        with opened(path) as file:
            names: list[str | bytes] = []
            # links to other files are not followed by visit
            file.visit(names.append)
            for name in names:
                if isinstance(name, str):
                    _take(file, name, arrays, problems)
                else:
                    problems.append(f"{name!r} is no text in UTF-8; name each array by its path, as in weights/a->b")
            text = file.attrs.get("meta", "{}")
            # other writers keep texts of fixed length, which h5py gives as bytes
            meta, of_meta = parsed(text.decode() if isinstance(text, bytes) else str(text))
    except DAMAGED as error:
        raise RecordingError(f"{path} is damaged or not an HDF5 recording ({error}); {CURE}") from error
    if problems or of_meta:
        raise RecordingError.of(str(path), problems + of_meta)
    return arrays, meta


def opened(path: Path) -> h5py.File:
    """A file, open for reading; raises ValueError where reading a text of it would not end."""
    if _endless(path):
        raise ValueError("its heap of texts is damaged")
    return h5py.File(path, "r")


def _endless(path: Path) -> bool:
    """Whether a heap has an entry that takes no place: HDF5 2.0 would read it for ever."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        heap = content.find(HEAP)
        while 0 <= heap <= len(content) - 16:
            (size,) = struct.unpack_from("<Q", content, heap + 8)
            end, place = min(heap + size, len(content)), heap + 16
            while place + 16 <= end:
                index, length = struct.unpack_from("<H6xQ", content, place)
                # entry 0 is the free place, its own head included
                step = length if index == 0 else 16 + (length + 7) // 8 * 8
                if step % 2**64 == 0:
                    return True
                place += step
            heap = content.find(HEAP, heap + 8)
    return False


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
