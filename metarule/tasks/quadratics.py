"""Quadratics: a unit's weights are the point that descends a random quadratic; optimizers are learned on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task

DISTRIBUTIONS = ("uniform", "normal")


@dataclass(frozen=True, eq=False)
class QuadraticEpisode(Episode):
    """One problem per run: `matrix` holds the inputs of all events, `aim` what the unit is to answer.

    The loss does not change when both are rotated along the events: `turned` are the events that it is scored on.
    """

    matrix: Float[Tensor, "R B J"]
    aim: Float[Tensor, "R B 1"]
    turned: tuple[Float[Tensor, "R B J"], Float[Tensor, "R B 1"]]
    batch: int

    def train(self, step):
        size = self.matrix.shape[1]
        rows = torch.arange(step * self.batch, (step + 1) * self.batch, device=self.matrix.device) % size
        return Batch(self.matrix[:, rows], self.aim[:, rows])

    def score(self, respond, weights):
        matrix, aim = self.turned
        rates = respond(matrix).rates
        return {"held_out_loss": (rates[next(reversed(rates))] - aim).square().sum(dim=(1, 2))}


@dataclass(frozen=True)
class Quadratics(Task):
    """f(x) = |A x - y|^2 in `size` dimensions, A and y uniform in [0, 1] or standard normal, new ones every episode.

    The point x is the weight vector of a single linear unit and the rows of A are its inputs: with `hidden = []` and
    batch = size, error_pre is -grad f / (2 size) exactly, and a rule with its synapse model is an optimizer of x. A
    smaller batch shows the next rows, as stochastic gradients do. The loss is f itself, where x stands; the published
    start N(0, 0.01^2) is `init = "gaussian"` with `init_scale` 0.01 sqrt(size). Held out are other problems.
    """

    size: int = 10
    distribution: str = "uniform"
    split: str = "search"

    kind = "quadratics"
    source = "Andrychowicz et al. 2016"
    metrics = scores.REGRESSION
    baselines = ("backprop", "momentum", "adam")

    def __post_init__(self) -> None:
        for name, allowed in (("distribution", DISTRIBUTIONS), ("split", scores.SPLITS)):
            if getattr(self, name) not in allowed:
                raise ValueError(unknown(f"task.{name}", getattr(self, name), allowed))
        if self.size < 1:
            raise ValueError(f"task.size = {self.size} must be at least 1")

    @property
    def inputs(self):
        return self.size

    @property
    def outputs(self):
        return 1

    @property
    def output(self):
        return "linear"

    def sample(self, noise, batch):
        noise = noise.at(self.split)
        matrix, aim = self._drawn(noise.at("matrix"), self.size), self._drawn(noise.at("aim"), 1)
        turn = noise.at("turn").orthonormal(self.size, self.size)
        return QuadraticEpisode(matrix, aim, (torch.bmm(turn, matrix), torch.bmm(turn, aim)), batch)

    def _drawn(self, noise: Noise, columns: int) -> Float[Tensor, "R B J"]:
        return noise.normal(self.size, columns) if self.distribution == "normal" else noise.uniform(self.size, columns)

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        return f"fresh random problems ({self.split} branch of the addresses)"
