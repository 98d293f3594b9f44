"""OverImages: what tasks over an image set share."""

from __future__ import annotations

from metarule.collect import unknown
from metarule.tasks import images as image_sets
from metarule.tasks import scores
from metarule.tasks.base import Task
from metarule.tasks.images import ImageSource


class OverImages(Task):
    """A task whose settings name an image set of `images.IMAGES`, where it lies, and the split drawn from."""

    images: str
    path: str | None
    split: str

    def check_names(self, **allowed: tuple[str, ...]) -> None:
        """Raises ValueError where a setting is not one of its names; `images` and `split` are always checked."""
        for name, names in {"images": image_sets.IMAGES, "split": scores.SPLITS, **allowed}.items():
            if getattr(self, name) not in names:
                raise ValueError(unknown(f"task.{name}", getattr(self, name), names))

    @property
    def image_source(self) -> ImageSource:
        """The image set; read once, then kept."""
        return image_sets.image_source(self.images, self.path)

    @property
    def inputs(self):
        return self.image_source.images.shape[1]
