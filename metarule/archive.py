"""Plain data with tensors in it as one file: checksummed, written in one step, refused where it is damaged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

DAMAGED = (OSError, ValueError, KeyError, SafetensorError)
"""What reading a damaged file may raise."""


def packed(document: dict[str, Any]) -> bytes:
    """A document of dicts, lists, tensors and what JSON knows as the content of a safetensors file."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_without(document, tensors))
    return save(tensors or {"empty": torch.zeros(1)}, {"document": text, "sha256": _digest(text, tensors)})


def unpacked(path: Path) -> dict[str, Any]:
    """The document of a file, tuples become lists; raises one of DAMAGED where a bit of it is not as it was."""
    with safe_open(path, framework="pt") as archive:
        metadata = archive.metadata() or {}
        tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not a dict
    text = metadata["document"]
    kept = {name: tensor for name, tensor in tensors.items() if name != "empty"}
    if _digest(text, kept) != metadata["sha256"]:
        raise ValueError("its checksum does not match")
    return _with(json.loads(text), tensors)


def fingerprint(document: dict[str, Any], spelled: Callable[[Any], Any]) -> str:
    """SHA-256 of a document; `spelled` turns what JSON does not know into what it knows."""
    tensors: dict[str, Tensor] = {}
    return _digest(json.dumps(_without(document, tensors), sort_keys=True, default=spelled), tensors)


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step: whoever reads it sees the old or the new, never a part."""
    write_aside(path, content).replace(path)
    sync_folder(path.parent)


def write_aside(path: Path, content: bytes, sync: bool = True) -> Path:
    """Write content to a temporary neighbour of `path` and, with `sync`, wait until it is on disk."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        if sync:
            os.fsync(handle.fileno())
    return temporary


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _without(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """JSON with every tensor replaced by its name in `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous().clone()
        return {"__tensor__": name}
    if isinstance(value, dict):
        return {key: _without(part, tensors, f"{name}.{key}" if name else key) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without(part, tensors, f"{name}.{place}") for place, part in enumerate(value)]
    return value


def _with(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"__tensor__"}:
            return tensors[value["__tensor__"]]
        return {key: _with(part, tensors) for key, part in value.items()}
    return [_with(part, tensors) for part in value] if isinstance(value, list) else value
