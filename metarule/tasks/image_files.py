"""Where image sets lie on disk and how they are read: digits, IDX files of the MNIST family, and Omniglot's zip."""

from __future__ import annotations

import gzip
import io
import math
import os
import zipfile
import zlib
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

OMNIGLOT_FILES = ("images_background.zip", "images_background_small1.zip")
_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08  # the IDX code of the element type; the MNIST family knows no other


def data_folders(path: str | None) -> tuple[Path, ...]:
    """Where data files are looked for, in order: `path` alone where given, else METARULE_DATA and the usual places.

    The usual places are ./data, a data folder shared by checkouts that lie side by side (../shared/data), and
    ~/.cache/metarule.
    """
    if path is not None:
        return (Path(path).expanduser().resolve(),)
    named = os.environ.get("METARULE_DATA")
    usual = (Path("data"), Path("..") / "shared" / "data", Path("~") / ".cache" / "metarule")
    folders = [Path(named), *usual] if named else usual
    return tuple(dict.fromkeys(folder.expanduser().resolve() for folder in folders))


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """The pixels (images, 64) from 0 to 16 and the labels of scikit-learn's digits."""
    # its file alone: importing scikit-learn takes two seconds, of every worker too
    file = Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))
    if not file.is_file():
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        return np.asarray(pixels), np.asarray(labels)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1].astype(int)


def find_idx(folder: Path) -> tuple[tuple[Path, Path], ...]:
    """Pairs of (images, labels) in `folder`, train before t10k; raises ValueError where labels are missing."""
    found: dict[str, tuple[Path, Path]] = {}
    for images in sorted(folder.glob("*images?idx3-ubyte*"), reverse=True):
        labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
        # the same file is often there twice, packed and unpacked: either form of the labels belongs to it
        plain = labels.with_name(labels.name.removesuffix(".gz"))
        labels = next((file for file in (labels, plain, Path(f"{plain}.gz")) if file.is_file()), None)
        if labels is None:
            raise ValueError(f"{images} has no labels beside it; expected {plain.name}, with or without .gz")
        found[images.name.removesuffix(".gz")] = (images, labels)
    return tuple(found.values())


def read_idx(file: Path, axes: int) -> Int[Tensor, "..."]:
    """The uint8 array of an IDX file, gzip or not (LeCun, Cortes and Burges, 1998).

    Raises ValueError where the magic number, the number of `axes` or the length of the file is not as it should be.
    """
    content = file.read_bytes()
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{file} is a damaged gzip file ({error}); fetch it again") from error
    start = 4 + 4 * axes
    magic = bytes((0, 0, _UNSIGNED_BYTE, axes))
    if content[:4] != magic:
        raise ValueError(
            f"{file} starts with {content[:4].hex() or 'nothing'}, expected the IDX magic number {magic.hex()} "
            f"(unsigned bytes, {axes} axes)"
        )
    if len(content) < start:
        raise ValueError(f"{file} is truncated: its header has {len(content)} bytes, expected {start}")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{file} is truncated or damaged: it holds {len(content) - start} values, expected {math.prod(shape)} "
            f"for the shape {shape} in its header"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def read_idx_pairs(
    pairs: tuple[tuple[Path, Path], ...],
) -> tuple[Float[Tensor, "images J"], Int[Tensor, "images"], int]:
    """Images in [0, 1], labels and side of all `pairs` of IDX files; raises ValueError where they do not fit."""
    images, labels = [], []
    for image_file, label_file in pairs:
        images.append(read_idx(image_file, axes=3))
        labels.append(read_idx(label_file, axes=1))
        if len(images[-1]) != len(labels[-1]):
            raise ValueError(f"{image_file} has {len(images[-1])} images, {label_file} has {len(labels[-1])} labels")
        if images[-1].shape[1] != images[-1].shape[2] or images[-1].shape[1:] != images[0].shape[1:]:
            raise ValueError(f"{image_file} has images of {tuple(images[-1].shape[1:])}; expected equal squares")
    side = images[0].shape[1]
    return torch.cat(images).flatten(1).to(torch.float32) / 255, torch.cat(labels).to(torch.int64), side


def read_omniglot(file: Path, side: int) -> tuple[Float[Tensor, "images J"], Int[Tensor, "images"]]:
    """Strokes in [0, 1] at side x side and the index of the character, over sorted paths (Lake et al., 2015).

    Raises ValueError where `file` is no zip or has no PNG at alphabet/character/drawing.png.
    """
    from matplotlib.image import imread  # half a second that only drawings need

    try:
        with zipfile.ZipFile(file) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".png") and name.count("/") == 3)
            drawings = [imread(io.BytesIO(archive.read(name)), format="png") for name in names]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file} is a damaged zip file ({error}); fetch it again") from error
    if not drawings:
        raise ValueError(f"{file} has no drawings; expected images_background/<alphabet>/<character>/<drawing>.png")
    characters = {name: index for index, name in enumerate(sorted({name.rpartition("/")[0] for name in names}))}
    labels = torch.tensor([characters[name.rpartition("/")[0]] for name in names])
    strokes = 1 - torch.from_numpy(np.stack(drawings)).to(torch.float32)
    return area_average(strokes, side).flatten(1), labels


def area_average(images: Float[Tensor, "images old old"], side: int) -> Float[Tensor, "images side side"]:
    """Images at a smaller side; each new pixel is the mean over the area that it covers, fractions included."""
    old = images.shape[-1]
    width = old / side
    low = torch.arange(side, dtype=torch.float64)[:, None] * width
    pixel = torch.arange(old, dtype=torch.float64)
    covered = (torch.minimum(low + width, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0) / width
    covered = covered.to(images.dtype)
    return torch.einsum("as,bt,nst->nab", covered, covered, images).clamp(0, 1)
