"""Image sets by name, and the one fixed partition that says which of their images a search may see."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.collect import unknown
from metarule.rng import noise_for
from metarule.tasks import image_files

SEARCH = 0.6
"""Fraction of an image set (or, where classes are many, of its classes) that searches draw from."""

CLASS_RICH = 50
"""Classes from which on searches are kept from classes, not from images of the same classes."""


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A labelled image set: `images` (images J) in [0, 1], J = side * side, and `labels` (images) in [0, classes)."""

    name: str
    images: Float[Tensor, "images J"]
    labels: Int[Tensor, "images"]
    classes: int
    side: int


def image_source(name: str, path: str | None = None) -> ImageSource:
    """The image set called `name`; raises ValueError for an unknown name or where its files are not to be had."""
    if name not in IMAGES:
        raise ValueError(unknown("task.images", name, IMAGES))
    return IMAGES[name](path)


@functools.lru_cache(maxsize=8)
def images_as(source: ImageSource, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "images J"]:
    """The images of `source` in the dtype and on the device of an episode; converted once."""
    return source.images.to(device, dtype)


def by_classes(source: ImageSource) -> bool:
    """Whether searches see some classes with all their images, or some images of every class."""
    return source.classes >= CLASS_RICH


@functools.lru_cache(maxsize=16)
def part(source: ImageSource, held_out: bool) -> Int[Tensor, "images"]:
    """The images that searches may see, or all others, in the fixed order.

    It depends on the image set alone, so whatever the task and its settings, what one search saw another's held-out
    data never show.
    """
    order = fixed_order(source)
    if by_classes(source):
        return order[torch.isin(source.labels[order], class_part(source.classes, held_out))]
    cut = int(SEARCH * len(order))
    return order[cut:] if held_out else order[:cut]


@functools.lru_cache(maxsize=8)
def fixed_order(source: ImageSource) -> Int[Tensor, "images"]:
    """All images in a fixed random order that is stratified: any range of it has each class in proportion."""
    quantile = torch.empty(len(source.labels), dtype=torch.float64)
    for label in range(source.classes):
        members = (source.labels == label).nonzero()[:, 0]
        order = noise_for([("partition of images", label)]).rows(len(members), len(members))[0]
        quantile[members[order]] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return quantile.argsort(stable=True)


def class_part(classes: int, held_out: bool) -> Int[Tensor, "classes"]:
    """The classes that searches see, or the others, from a fixed random order of them."""
    order = noise_for([("partition of classes", classes)]).rows(classes, classes)[0]
    cut = int(SEARCH * classes)
    return order[cut:] if held_out else order[:cut]


def _digits(path: str | None) -> ImageSource:
    if path is not None:
        raise ValueError(f"task.path = '{path}' was given, but images = 'digits' come with scikit-learn; leave it out")
    return _bundled_digits()


@functools.lru_cache(maxsize=1)
def _bundled_digits() -> ImageSource:
    pixels, labels = image_files.read_digits()
    return ImageSource("digits", torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels), 10, 8)


def _mnist_family(name: str, openml: str, path: str | None) -> ImageSource:
    folders = _mnist_folders(name, path)
    for folder in folders:
        pairs = image_files.find_idx(folder)
        if pairs:
            return _from_idx(name, pairs)
    return _from_openml(name, openml, folders)


def _mnist_folders(name: str, path: str | None) -> tuple[Path, ...]:
    places = image_files.data_folders(path)
    # a folder that was named may hold the files itself; the usual ones may not: three sets share their file names
    return (*(place / name for place in places), *(places if path is not None else ()))


def _idx(path: str | None) -> ImageSource:
    if path is None:
        raise ValueError("images = 'idx' needs task.path, the folder of the IDX files")
    (folder,) = image_files.data_folders(path)
    pairs = image_files.find_idx(folder)
    if not pairs:
        raise ValueError(f"no IDX files in {folder}; expected *-images-idx3-ubyte and *-labels-idx1-ubyte, maybe .gz")
    return _from_idx("idx", pairs)


@functools.lru_cache(maxsize=8)
def _from_idx(name: str, pairs: tuple[tuple[Path, Path], ...]) -> ImageSource:
    images, labels, side = image_files.read_idx_pairs(pairs)
    return ImageSource(name, images, labels, int(labels.max()) + 1, side)


@functools.lru_cache(maxsize=4)
def _from_openml(name: str, openml: str, folders: tuple[Path, ...]) -> ImageSource:
    from sklearn.datasets import fetch_openml

    try:
        pixels, labels = fetch_openml(
            openml, version=1, return_X_y=True, as_frame=False, n_retries=1, parser="liac-arff"
        )  # the default parser needs pandas
    except (OSError, ImportError) as error:
        raise ValueError(
            f"images = '{name}' are in none of {', '.join(map(str, folders))} and could not be fetched ({error}); put "
            "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz (or t10k-...) into one of these folders, set "
            "METARULE_DATA to the folder above it, or choose images = 'digits'"
        ) from error
    images = torch.tensor(pixels, dtype=torch.float32) / 255
    return ImageSource(name, images, torch.tensor([int(label) for label in labels]), 10, 28)


def _omniglot(path: str | None) -> ImageSource:
    folders = [where for folder in image_files.data_folders(path) for where in (folder, folder / "omniglot")]
    files = [folder / name for folder in folders for name in image_files.OMNIGLOT_FILES]
    for file in files:
        if file.is_file():
            return _from_omniglot(file)
    raise ValueError(
        f"images = 'omniglot': none of {', '.join(image_files.OMNIGLOT_FILES)} in {', '.join(map(str, folders))}; "
        "fetch one from github.com/brendenlake/omniglot, or set METARULE_DATA to its folder"
    )


@functools.lru_cache(maxsize=2)
def _from_omniglot(file: Path) -> ImageSource:
    images, labels = image_files.read_omniglot(file, 28)
    return ImageSource("omniglot", images, labels, int(labels.max()) + 1, 28)


OPENML = {"mnist": "mnist_784", "fashion_mnist": "Fashion-MNIST", "kmnist": "Kuzushiji-MNIST"}
"""Sets that are fetched where no folder has them, and what they are called where they are fetched from."""

IMAGES: dict[str, Callable[[str | None], ImageSource]] = {
    "digits": _digits,
    **{name: functools.partial(_mnist_family, name, openml) for name, openml in OPENML.items()},
    "idx": _idx,
    "omniglot": _omniglot,
}
"""Image set by name: data directory or None -> the set."""


def to_be_fetched(name: str) -> bool:
    """Whether the set called `name` lies in no usual folder, but a network would have it."""
    return name in OPENML and not any(map(image_files.find_idx, _mnist_folders(name, None)))
