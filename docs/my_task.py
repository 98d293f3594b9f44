"""A stranger's data: rows of features `x` and their classes `y` in an .npz file."""

import functools
from dataclasses import dataclass, replace

import numpy
import torch

from metarule import Episode, Task
from metarule.rng import Noise
from metarule.tasks import scores


@functools.cache
def rows(path, held):
    """60 % of the rows in a fixed random order, or the others: x (rows, features) and y (rows)."""
    with numpy.load(path) as file:
        x, y = torch.tensor(file["x"]), torch.tensor(file["y"]).long()
    order = numpy.random.default_rng(0).permutation(len(y))
    cut = int(0.6 * len(y))
    part = order[cut:] if held else order[:cut]
    return x[part], y[part]


@dataclass(frozen=True, eq=False)
class RowsEpisode(Episode):
    """Three quarters of the rows train, in random batches; the others are scored."""

    x: torch.Tensor
    y: torch.Tensor
    noise: Noise
    batch: int

    def train(self, step):
        chosen = self.noise.at("batch", step).integers(3 * len(self.y) // 4, self.batch)
        return scores.labelled(self.x[chosen], self.y[chosen], int(self.y.max()) + 1)

    def score(self, respond, weights):
        first, runs = 3 * len(self.y) // 4, self.noise.runs
        return scores.classification(respond, self.x[first:].expand(runs, -1, -1), self.y[first:].expand(runs, -1))


@dataclass(frozen=True)
class Rows(Task):
    """The rows of an .npz file, to be classified."""

    kind = "rows"
    source = "docs/my_task.py"
    metrics = scores.CLASSIFICATION

    path: str = "rows.npz"
    held: bool = False

    @property
    def inputs(self):
        return rows(self.path, self.held)[0].shape[1]

    @property
    def outputs(self):
        return int(rows(self.path, self.held)[1].max()) + 1

    def sample(self, noise, batch):
        x, y = rows(self.path, self.held)
        return RowsEpisode(x.to(noise.dtype), y, noise, batch)

    def held_out(self):
        return replace(self, held=True)

    def seen(self):
        return f"{len(rows(self.path, self.held)[1])} rows of {self.path}"
