"""Which file holds a recording how: the suffix says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarule.identification import npz
from metarule.identification.problems import RecordingError

Contents = tuple[dict[str, np.ndarray], dict[str, Any]]
"""Arrays by their paths ("weights/input->hidden1"), and meta."""

READERS: dict[str, Callable[[Path], Contents]] = {".npz": npz.read}

WRITERS: dict[str, Callable[[Path, Mapping[str, np.ndarray], Mapping[str, Any]], None]] = {".npz": npz.write}


def read(path: Path, mapping: Path | None = None) -> Contents:
    """What a recording's file holds, whatever its kind; raises RecordingError where that cannot be read."""
    if path.is_dir() or not path.exists():
        said = "is a folder" if path.is_dir() else "does not exist"
        raise RecordingError(f"{path} {said}; give the .npz file of a recording")
    return READERS.get(path.suffix, npz.read)(path)


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write a recording in the format that the suffix names."""
    WRITERS.get(path.suffix, npz.write)(path, arrays, meta)
