"""Recordings in NumPy's archives: one member per array, meta as a JSON text; nothing in a file is ever unpickled."""

from __future__ import annotations

import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarule.identification.problems import RecordingError

DAMAGED = (
    *(OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error),
    *(SyntaxError, tokenize.TokenError, OverflowError, MemoryError),
)
"""What zipfile (first line) and numpy's headers (second) raise: a flipped bit may ask for any size."""

RATIO = 1100
"""How many times its stored size an array may have: deflate reaches 1032."""


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write arrays by their paths, and meta as JSON."""
    members = {"meta": np.array(written(meta)), **arrays}
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
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            try:
                arrays[name] = member(archive, entry)
            except DAMAGED as error:
                problems.append(f"/{name} cannot be read ({error}); {cure}")
    meta, of_meta = parsed(str(arrays.pop("meta", "{}")))
    if problems or of_meta:
        raise RecordingError.of(str(path), problems + of_meta)
    return arrays, meta


def member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array of an archive; raises one of DAMAGED where it is none, or promises more than it can hold."""
    # bzip2 and lzma, which numpy never writes, blow a few bytes up to anything
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"it is compressed by method {entry.compress_type}, numpy writes 0 or 8")
    if entry.file_size > RATIO * entry.compress_size:
        raise ValueError(f"it promises {entry.file_size} bytes and stores {entry.compress_size}")
    return np.lib.format.read_array(io.BytesIO(archive.read(entry)), allow_pickle=False)


def written(meta: Mapping[str, Any]) -> str:
    """Meta as a JSON text; raises RecordingError where it holds what JSON has no word for."""
    try:
        return json.dumps(dict(meta))
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordingError(
            f"/meta cannot be written ({error}); keep numbers, texts, lists and dicts of them"
        ) from error


def parsed(text: str) -> tuple[dict[str, Any], list[str]]:
    """The meta that a JSON text holds, and what is wrong with it."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, [f"/meta is not JSON ({error}); write it with json.dumps"]
    if not isinstance(meta, dict):
        return {}, [f"/meta holds {type(meta).__name__}, not an object; write json.dumps of a dict"]
    return meta, []
