"""Few-shot classification in one online pass: a few classes, a few images of each, every image shown once."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import images as image_sets
from metarule.tasks import scores
from metarule.tasks.base import Asked, Episode, Rows
from metarule.tasks.images import ImageSource
from metarule.tasks.over_images import OverImages

LABELS = ("class", "way")


class Pool(NamedTuple):
    """The images a split draws from: per class its row of indices into the source, the first `counts` of it valid."""

    classes: Int[Tensor, "classes"]
    rows: Int[Tensor, "classes size"]
    counts: Int[Tensor, "classes"]


@dataclass(frozen=True, eq=False)
class FewShotEpisode(Episode):
    """One pass; the rows are indices into the image set, in the order of training."""

    images: Float[Tensor, "images J"]
    train_rows: Int[Tensor, "R train"]
    train_labels: Int[Tensor, "R train"]
    score_rows: Int[Tensor, "R queries"]
    score_labels: Int[Tensor, "R queries"]
    one_hot: Float[Tensor, "I I"]
    batch: int

    def train(self, step):
        shown = self._shown(range(step, step + 1))
        return Batch(self.images[self.train_rows[:, shown]], self.one_hot[self.train_labels[:, shown]])

    def rows(self, steps):
        shown = self._shown(steps)
        shape = (len(self.train_rows), len(steps), self.batch)
        return Rows(
            self.images,
            self.train_rows[:, shown].reshape(shape),
            self.one_hot,
            self.train_labels[:, shown].reshape(shape),
        )

    def _shown(self, steps: range) -> slice:
        size = self.train_rows.shape[1]
        for step in (steps.start, steps.stop - 1):
            if not 0 <= step * self.batch < size:
                raise ValueError(
                    f"step {step} lies outside the one pass of {size // self.batch} steps; "
                    "lower inner.steps or raise task.shots"
                )
        return slice(steps.start * self.batch, steps.stop * self.batch)

    def asked(self):
        return Asked(self.images, self.score_rows, self.score_labels)

    def score(self, respond, weights):
        return scores.answered(respond, self.asked())


@dataclass(frozen=True)
class FewShot(OverImages):
    """`ways` classes, `shots` training and `queries` scored images of each, drawn afresh for every episode.

    `labels` = "class" gives every class of the image set its own output unit, "way" relabels the drawn classes
    0..ways-1 in random order. `units` is the number of output units where it is more than that. Held out are other
    images; where the set has at least 50 classes, other classes with all their images: the same for all ways and
    shots. Raises ValueError where a class has fewer images than shots + queries, or a split fewer classes than ways.
    """

    images: str = "digits"
    ways: int = 5
    shots: int = 50
    queries: int = 10
    labels: str = "class"
    units: int | None = None
    path: str | None = None
    split: str = "search"

    kind = "few_shot"
    source = "Shervani-Tabar and Rosenbaum, 2023"
    metrics = scores.CLASSIFICATION

    def __post_init__(self) -> None:
        self.check_names(labels=LABELS)
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"task.{name} = {getattr(self, name)} must be at least {least}")

    @property
    def outputs(self):
        needed = self.ways if self.labels == "way" else self.image_source.classes
        if self.units is not None and self.units < needed:
            raise ValueError(f"task.units = {self.units} is fewer than the {needed} labels; raise it or leave it out")
        return self.units or needed

    def steps(self, batch):
        shown = self.ways * self.shots
        if batch < 1 or shown % batch:
            raise ValueError(
                f"inner.batch = {batch} does not divide the {shown} training images (ways * shots) of an episode"
            )
        return shown // batch

    def sample(self, noise, batch):
        self.steps(batch)
        pool = self._checked_pool()
        device = noise.index.device
        # everything random is drawn once per distinct address, and spread over the runs that share it at the end
        drawn = replace(noise, index=torch.arange(len(noise.keys), device=device))
        ways = drawn.at("classes").rows(self.ways, len(pool.classes))  # indices into the pool
        rows = self._draw_images(drawn.at("images"), pool, ways)
        if self.labels == "way":
            names = torch.arange(self.ways, device=device).expand_as(ways)
        else:
            names = pool.classes.to(device)[ways]
        order = drawn.at("order").rows(self.ways * self.shots, self.ways * self.shots)
        labels = names[:, :, None].expand_as(rows)
        return FewShotEpisode(
            images=image_sets.images_as(self.image_source, noise.dtype, device),
            train_rows=rows[:, :, : self.shots].flatten(1).gather(1, order)[noise.index],
            train_labels=labels[:, :, : self.shots].flatten(1).gather(1, order)[noise.index],
            score_rows=rows[:, :, self.shots :].flatten(1)[noise.index],
            score_labels=labels[:, :, self.shots :].flatten(1)[noise.index],
            one_hot=torch.eye(self.outputs, dtype=noise.dtype, device=device),
            batch=batch,
        )

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        pool = _pool(self.image_source, self.split == "held_out")
        others = "classes" if image_sets.by_classes(self.image_source) else "images"
        return (
            f"{int(pool.counts.sum())} of the {len(self.image_source.labels)} images of {self.images}, of "
            f"{len(pool.classes)} of its {self.image_source.classes} classes ({self.split} split by {others})"
        )

    def _checked_pool(self) -> Pool:
        source = self.image_source
        pool = _pool(source, self.split == "held_out")
        if self.ways > len(pool.classes):
            raise ValueError(
                f"task.ways = {self.ways}, but {self.images} has {len(pool.classes)} classes in the {self.split} "
                "split; lower it"
            )
        fewest = int(pool.counts.min())
        if fewest < self.shots + self.queries:
            raise ValueError(
                f"task.shots + task.queries = {self.shots + self.queries}, but a class of {self.images} has {fewest} "
                f"images in the {self.split} split; lower task.shots or task.queries to {fewest} in sum"
            )
        return pool

    def _draw_images(self, noise: Noise, pool: Pool, ways: Tensor) -> Int[Tensor, "R ways drawn"]:
        size = pool.rows.shape[1]
        absent = torch.arange(size, device=ways.device) >= pool.counts.to(ways.device)[ways][:, :, None]
        lots = noise.integers(1 << 52, self.ways, size).masked_fill(absent, -1)
        chosen = lots.topk(self.shots + self.queries, dim=2).indices
        return pool.rows.to(ways.device)[ways[:, :, None], chosen]


@functools.lru_cache(maxsize=16)
def _pool(source: ImageSource, held_out: bool) -> Pool:
    rows = image_sets.part(source, held_out)
    classes = source.labels[rows].unique()
    members = [rows[source.labels[rows] == label] for label in classes]
    counts = torch.tensor([len(member) for member in members])
    return Pool(classes, torch.nn.utils.rnn.pad_sequence(members, batch_first=True), counts)
