"""Learning a whole image set over epochs of minibatches: its classes, with or without hidden learning, or itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, eye

from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import images as image_sets
from metarule.tasks import scores
from metarule.tasks.base import Asked, Episode, Rows
from metarule.tasks.over_images import OverImages

PROBLEMS = ("classification", "frozen", "autoencoder", "bandit")
_TRAINED = {"search": 0.75, "held_out": 0.8}  # fraction of the images of a split that is trained on, the rest scored


@dataclass(eq=False)
class DigitsEpisode(Episode):
    """Epochs over `train_rows`, indices into the image set; every epoch has its own order, its remainder dropped."""

    images: Float[Tensor, "images J"]
    labels: Int[Tensor, "images"]
    one_hot: Float[Tensor, "I I"]
    train_rows: Int[Tensor, "train"]
    score_rows: Int[Tensor, "scored"]
    noise: Noise
    batch: int
    problem: str
    _order: tuple[int, Tensor | None] = field(default=(-1, None), init=False)  # of the latest epoch: it is costly

    def train(self, step):
        rows = self._shown(step)
        x = self.images[rows]
        if self.problem == "autoencoder":
            return Batch(x, x, lambda action: -0.5 * (action - x).square().sum(-1, keepdim=True))
        y = self.one_hot[self.labels[rows]]
        return Batch(x, None if self.problem == "bandit" else y, lambda action: (action * y).sum(-1, keepdim=True))

    def rows(self, steps):
        shown = torch.stack([self._shown(step) for step in steps], dim=1)
        if self.problem == "autoencoder":
            return Rows(self.images, shown, self.images, shown)
        if self.problem == "bandit":
            return Rows(self.images, shown, None, None)
        return Rows(self.images, shown, self.one_hot, self.labels[shown])

    def _shown(self, step: int) -> Int[Tensor, "R B"]:
        epoch, place = divmod(step, len(self.train_rows) // self.batch)
        return self._epoch(epoch)[:, place * self.batch : (place + 1) * self.batch]

    def asked(self):
        if self.problem == "autoencoder":
            return None
        rows = self.score_rows.expand(self.noise.runs, -1)
        return Asked(self.images, rows, self.labels[rows])

    def score(self, respond, weights):
        rows = self.score_rows.expand(self.noise.runs, -1)
        x = self.images[self.score_rows].expand(self.noise.runs, -1, -1)
        if self.problem == "autoencoder":
            return scores.regression(respond, x, x, centre=self.images[self.train_rows].mean(dim=0))
        return scores.classification(respond, x, self.labels[rows])

    def _epoch(self, epoch: int) -> Int[Tensor, "R train"]:
        known, order = self._order
        if order is None or known != epoch:
            size = len(self.train_rows)
            order = self.train_rows[self.noise.at("epoch", epoch).rows(size, size)]
            self._order = (epoch, order)
        return order


@dataclass(frozen=True)
class Digits(OverImages):
    """An image set in fixed parts: a search trains on 45 %, scored on 15 %; held out, 80 % train and 20 % are scored.

    What is scored held out is never seen by a search, over this task or over few-shot episodes of the same set, and a
    search over this task sees nothing that those hold out. Where the set has at least 50 classes, a search draws from
    60 % of the classes (three quarters of their images train), and held out are the others (80 % train).
    `problem` is "classification", "frozen" (the same, but only projections that leave the input may learn), "bandit"
    (an answer is paid 1 where it is right, and no target is shown) or "autoencoder" (linear output, loss NMSE =
    mean |output - x|^2 / mean |x - mean of training images|^2). All of them pay: a right answer 1, an output o
    -|o - x|^2 / 2.
    `test_size` scores that many images at most.
    """

    problem: str = "classification"
    images: str = "digits"
    path: str | None = None
    test_size: int | None = None
    split: str = "search"

    kind = "digits"
    source = "Alpaydin and Kaynak, 1998 (optical recognition of handwritten digits)"
    metrics = scores.CLASSIFICATION

    def __post_init__(self) -> None:
        self.check_names(problem=PROBLEMS)
        if self.test_size is not None and self.test_size < 1:
            raise ValueError(f"task.test_size = {self.test_size} must be at least 1")
        if self.problem == "autoencoder":
            object.__setattr__(self, "metrics", scores.REGRESSION)

    @property
    def outputs(self):
        return self.inputs if self.problem == "autoencoder" else self.image_source.classes

    @property
    def output(self):
        return "linear" if self.problem == "autoencoder" else "softmax"

    def sample(self, noise, batch):
        train_rows, score_rows = self._parts()
        if not 1 <= batch <= len(train_rows):
            raise ValueError(f"inner.batch = {batch} must lie between 1 and the {len(train_rows)} training images")
        device = noise.index.device
        return DigitsEpisode(
            images=image_sets.images_as(self.image_source, noise.dtype, device),
            labels=self.image_source.labels.to(device),
            one_hot=eye(self.image_source.classes, dtype=noise.dtype, device=device),
            train_rows=train_rows.to(device),
            score_rows=score_rows.to(device),
            noise=noise,
            batch=batch,
            problem=self.problem,
        )

    def steps_per_epoch(self, batch: int) -> int:
        """Whole batches in one pass over the training images."""
        return len(self._parts()[0]) // batch

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        train_rows, score_rows = self._parts()
        part = "test" if self.split == "held_out" else "validation"
        return (
            f"{len(train_rows)} training and {len(score_rows)} {part} images of the "
            f"{len(self.image_source.labels)} of {self.images} ({self.split} split)"
        )

    def frozen(self, network):
        if self.problem != "frozen":
            return frozenset()
        return frozenset(p.name for p in network.projections if p.source != network.input_name)

    def _parts(self) -> tuple[Int[Tensor, "train"], Int[Tensor, "scored"]]:
        source, held_out = self.image_source, self.split == "held_out"
        if held_out and not image_sets.by_classes(source):
            rows = image_sets.fixed_order(source)
        else:
            rows = image_sets.part(source, held_out)
        cut = int(_TRAINED[self.split] * len(rows))
        return rows[:cut], rows[cut:][: self.test_size]
