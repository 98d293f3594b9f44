"""Breeding: rows of theta drawn at random, and rows that differ from a parent by a few genes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarule.params import Param
from metarule.rng import Noise


class Genes(NamedTuple):
    """The columns of theta: how many choices each has (0: a real number), and the internal coordinate of a real one."""

    choices: Int[Tensor, "P"]
    start: Float[Tensor, "P"]
    scale: Float[Tensor, "P"]
    low: Float[Tensor, "P"]
    high: Float[Tensor, "P"]
    log: Bool[Tensor, "P"]
    reach: tuple[Float[Tensor, "P"], Float[Tensor, "P"]]

    def random(self, count: int, noise: Noise) -> Float[Tensor, "N P"]:
        """Choices uniform, real numbers normal about their start, one unit of scale wide."""
        size = len(self.choices)
        chosen = (noise.at("choices").uniform(count, size)[0] * self.choices).floor()
        return torch.where(self.choices > 0, chosen, self.decoded(noise.at("numbers").normal(count, size)[0]))

    def mutated(self, rows: Float[Tensor, "N P"], chance: float, sigma: float, noise: Noise) -> Float[Tensor, "N P"]:
        """Every gene changes with `chance`, and one at least: to another choice, or by N(0, sigma^2) in its scale."""
        shape = rows.shape
        movable = (self.choices != 1).nonzero()[:, 0]
        if not len(movable):
            return rows
        struck = noise.at("struck").uniform(*shape)[0] < chance
        struck[:, self.choices == 1] = False
        spared = (~struck.any(1)).nonzero()[:, 0]
        struck[spared, movable[noise.at("one").integers(len(movable), shape[0])[0][spared]]] = True
        others = (self.choices - 1).clamp(min=1)
        step = 1 + (noise.at("choices").uniform(*shape)[0] * others).floor()
        chosen = (rows + step) % self.choices.clamp(min=1)
        moved = self.decoded(self.encoded(rows) + sigma * noise.at("numbers").normal(*shape)[0])
        return torch.where(struck, torch.where(self.choices > 0, chosen, moved), rows)

    def encoded(self, rows: Float[Tensor, "N P"]) -> Float[Tensor, "N P"]:
        """Internal coordinates of real numbers; of choices, numbers without a meaning."""
        ratio = torch.where(self.log, rows / torch.where(self.log, self.start, 1.0), 1.0)
        return torch.where(self.log, ratio.clamp(min=0.0).log(), rows - self.start) / self.scale

    def decoded(self, z: Float[Tensor, "N P"]) -> Float[Tensor, "N P"]:
        """Values of internal coordinates, held inside the bounds."""
        z = torch.clamp(z, *self.reach)
        grown = self.start * torch.where(self.log, self.scale * z, 0.0).exp()
        return torch.clamp(torch.where(self.log, grown, self.start + self.scale * z), self.low, self.high)


def genes(params: tuple[Param, ...]) -> Genes:
    """The genes of a search."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    low, high = zip(*((0.0, 0.0) if param.choices else param.reach for param in params), strict=True)
    return Genes(
        torch.tensor([len(param.choices) for param in params]),
        column([param.start for param in params]),
        column([param.scale for param in params]),
        column([param.low for param in params]),
        column([param.high for param in params]),
        torch.tensor([param.log for param in params]),
        (column(list(low)), column(list(high))),
    )


class Flock(NamedTuple):
    """The living: their rows, their losses, and what they had lost at every hurdle."""

    rows: Float[Tensor, "N P"]
    loss: Float[Tensor, "N"]
    short: Float[Tensor, "N K"]

    def joined(self, other: Flock) -> Flock:
        """These first, then the others."""
        return Flock(*(torch.cat(pair) for pair in zip(self, other, strict=True)))

    def taken(self, places: Tensor | slice) -> Flock:
        """Those at `places`."""
        return Flock(*(part[places] for part in self))

    def fittest(self, count: int) -> Flock:
        """The `count` with the smallest losses; where losses are equal, those that stand first."""
        return self.taken(self.loss.argsort(stable=True)[:count])


def nobody(params: int, hurdles: int) -> Flock:
    """A flock without members."""
    return Flock(*(torch.zeros(size, dtype=torch.float64) for size in ((0, params), (0,), (0, hurdles))))


def unbeaten(losses: Float[Tensor, "N"], quantile: float) -> float:
    """The loss that the best fraction `quantile` does not exceed; inf where there is nobody."""
    if not len(losses):
        return math.inf
    return float(losses.sort().values[max(math.ceil(quantile * len(losses)), 1) - 1])
