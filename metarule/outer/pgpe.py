"""PGPE: the likelihood gradient of a distribution over rules, from mirrored samples, for centre and deviations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.collect import unknown
from metarule.outer.descent import Descent
from metarule.outer.gaussian import GaussianSearch, halves
from metarule.outer.shaping import SHAPINGS

MOST = 0.2
"""The largest relative change of a deviation in one generation."""


@dataclass
class Pgpe(GaussianSearch):
    """m <- m - rate sigma <(u+ - u-) s / 2> and sigma <- sigma (1 - sigma_rate <((u+ + u-) / 2 - b) (s^2 - 1)>).

    Means over pairs m +- sigma s; the baseline b is the mean of all u. `shaping` u: "ranks" (a failure ranks last), or
    "losses" as published (a pair with a failure is left out; the rates then carry the losses' units). A deviation
    changes by a fifth at most. Raises ValueError for an odd number of candidates.
    """

    kind = "pgpe"
    source = "Sehnke et al. 2010"
    mirrored = True

    rate: float = 2.0
    sigma_rate: float = 0.5
    shaping: str = "ranks"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shaping not in SHAPINGS:
            raise ValueError(unknown("outer.shaping", self.shaping, SHAPINGS))
        if self.sigma_rate < 0:
            raise ValueError(f"outer.sigma_rate = {self.sigma_rate} must not be negative; 0 keeps the deviations")

    def descent(self, params):
        return Descent(params, "SGD", self.rate)

    def learn(self, samples, loss):
        plus, minus = halves(SHAPINGS[self.shaping](loss))
        kept = (plus - minus).isfinite()
        if not kept.any():
            return
        plus, minus, drawn = plus[kept], minus[kept], halves(samples)[0][kept]
        level = (plus + minus) / 2
        self.centre.step(self.deviation * ((plus - minus) / 2 @ drawn) / len(drawn))
        growth = -self.sigma_rate * ((level - level.mean()) @ (drawn.square() - 1)) / len(drawn)
        self.deviation = self.widened(1 + torch.clamp(growth, -MOST, MOST))
