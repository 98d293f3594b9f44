"""Recordings in NumPy's archives: one member per array, meta as a JSON text; nothing in a file is ever unpickled."""

from __future__ import annotations

import io
import json
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarule.identification.problems import RecordingError

DAMAGED = (
    *(OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(SyntaxError, tokenize.TokenError, OverflowError, MemoryError),
)
"""What zipfile (first line) and numpy's headers (second) raise: a flipped bit may ask for any compression or size."""


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write arrays by their paths, and meta as JSON."""
    members = {"meta": np.array(json.dumps(dict(meta))), **arrays}
    with path.open("wb") as handle:
        np.savez_compressed(handle, **members)  # pyright: ignore[reportArgumentType] - names are no options here


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every array of an .npz file by its path, and its meta; raises RecordingError where the file is damaged."""
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
    meta, of_meta = parsed(str(arrays.pop("meta", "{}")))
    if problems or of_meta:
        raise RecordingError.of(str(path), problems + of_meta)
    return arrays, meta


def parsed(text: str) -> tuple[dict[str, Any], list[str]]:
    """The meta that a JSON text holds, and what is wrong with it."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, [f"/meta is not JSON ({error}); write it with json.dumps"]
    if not isinstance(meta, dict):
        return {}, [f"/meta holds {type(meta).__name__}, not an object; write json.dumps of a dict"]
    return meta, []
