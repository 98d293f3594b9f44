"""Properties of items: a fixed linear map with known modes, the case whose learning curve is known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task

PROBLEMS = ("tree", "modes")


@dataclass(frozen=True, eq=False)
class LinearMapEpisode(Episode):
    """One code per run: item j is the pattern `code[:, :, j]`, its properties are `table[:, :, j]`."""

    code: Float[Tensor, "R J J"]
    table: Float[Tensor, "R I J"]
    noise: Noise
    batch: int

    @property
    def map(self) -> Float[Tensor, "R I J"]:
        """The map from pattern to properties, which a linear network is to become."""
        return torch.bmm(self.table, self.code.transpose(1, 2))

    def train(self, step):
        items = torch.arange(step * self.batch, (step + 1) * self.batch, device=self.code.device) % self.code.shape[2]
        x = math.sqrt(self.code.shape[2]) * self.code[:, :, items].transpose(1, 2)
        return Batch(x, self._properties(x))

    def score(self, respond, weights):
        size = self.code.shape[2]
        x = math.sqrt(size) * self.noise.at("test").orthonormal(size, size)
        y = self._properties(x)
        return scores.regression(respond, x, y, centre=torch.zeros_like(y))

    def _properties(self, x: Float[Tensor, "R B J"]) -> Float[Tensor, "R B I"]:
        return torch.bmm(x, self.map.transpose(1, 2))


@dataclass(frozen=True)
class LinearMap(Task):
    """y = M x for `items` x, orthogonal and white: <x x^T> = 1 over all of them, and the loss of W is |M - W|^2 / 2.

    "tree": M says which of 2 items - 1 properties an item has, one for each branch of a binary tree that leads to it;
    4 items give singular values 2.65, 1.73, 1, 1: what all share, the two halves, the two pairs. "modes": M has
    `singular_values`, all others 0, and random singular vectors. Every step shows the next `batch` items, all of them
    where batch = items. NMSE = |M - W|^2 / |M|^2 on patterns of another orthogonal set; held out are other patterns.
    """

    items: int = 4
    properties: int = 7
    problem: str = "tree"
    singular_values: tuple[float, ...] = (3.0, 1.0)
    split: str = "search"

    kind = "linear_map"
    source = "Saxe, McClelland and Ganguli, 2014 and 2019"
    metrics = scores.REGRESSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "singular_values", tuple(self.singular_values))
        for name, allowed in (("problem", PROBLEMS), ("split", scores.SPLITS)):
            if getattr(self, name) not in allowed:
                raise ValueError(unknown(f"task.{name}", getattr(self, name), allowed))
        if self.items < 2:
            raise ValueError(f"task.items = {self.items} must be at least 2")
        if self.problem == "tree" and (self.items & (self.items - 1) or self.properties != 2 * self.items - 1):
            raise ValueError(
                f"task.items = {self.items} and task.properties = {self.properties} are no binary tree; it has 2, 4, "
                "8, ... items and 2 items - 1 properties"
            )
        most = min(self.items, self.properties)
        if self.problem == "modes" and not 1 <= len(self.singular_values) <= most:
            raise ValueError(f"task.singular_values are {len(self.singular_values)}; this map has 1 to {most}")
        if self.problem == "modes" and min(self.singular_values) <= 0:
            raise ValueError(f"task.singular_values = {self.singular_values} must be positive")

    @property
    def inputs(self):
        return self.items

    @property
    def outputs(self):
        return self.properties

    @property
    def output(self):
        return "linear"

    def sample(self, noise, batch):
        noise = noise.at(self.split)
        code = noise.at("code").orthonormal(self.items, self.items)
        if self.problem == "tree":
            table = torch.tensor(_tree(self.items), dtype=code.dtype, device=code.device).expand(len(code), -1, -1)
        else:
            strengths = torch.tensor(self.singular_values, dtype=code.dtype, device=code.device)
            table = torch.zeros(len(code), self.properties, self.items, dtype=code.dtype, device=code.device)
            modes = noise.at("modes").orthonormal(self.properties, len(strengths))
            table[:, :, : len(strengths)] = modes * strengths
        return LinearMapEpisode(code, table, noise, batch)

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        return f"fresh random patterns ({self.split} branch of the addresses)"


def _tree(items: int) -> list[list[float]]:
    """Rows are properties, broad ones first; columns are the leaves of a binary tree."""
    widths = [items >> level for level in range(items.bit_length())]
    return [
        [float(start <= item < start + width) for item in range(items)]
        for width in widths
        for start in range(0, items, width)
    ]
