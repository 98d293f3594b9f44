"""Classification of points of the plane: random clusters or curved boundaries, another problem in every episode."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.collect import unknown
from metarule.rng import Noise, noise_for
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task

PROBLEMS = ("clusters", "conics")

RULER = 512
"""Points by which the level sets of a conic are chosen, so that its classes are about equally frequent."""


@dataclass(frozen=True, eq=False)
class ClustersEpisode(Episode):
    """Each class a mixture of round Gaussians about its own centres."""

    centres: Float[Tensor, "R centres 2"]
    spread: float
    outputs: int
    noise: Noise
    batch: int
    test_size: int

    def train(self, step):
        return scores.labelled(*self._points(self.noise.at("train", step), self.batch), self.outputs)

    def score(self, respond, weights):
        return scores.classification(respond, *self._points(self.noise.at("test"), self.test_size))

    def _points(self, noise: Noise, count: int) -> tuple[Float[Tensor, "R B 2"], Int[Tensor, "R B"]]:
        chosen = noise.at("centre").integers(self.centres.shape[1], count)
        about = self.centres.gather(1, chosen[:, :, None].expand(-1, -1, 2))
        return about + self.spread * noise.at("x").normal(count, 2), chosen % self.outputs


@dataclass(frozen=True, eq=False)
class ConicsEpisode(Episode):
    """Standard normal points, classes cut by level sets of a polynomial of degree 2."""

    coefficients: Float[Tensor, "R 5"]
    levels: Float[Tensor, "R levels"]
    noise: Noise
    batch: int
    test_size: int

    def train(self, step):
        return scores.labelled(*self._points(self.noise.at("train", step), self.batch), self.levels.shape[1] + 1)

    def score(self, respond, weights):
        return scores.classification(respond, *self._points(self.noise.at("test"), self.test_size))

    def _points(self, noise: Noise, count: int) -> tuple[Float[Tensor, "R B 2"], Int[Tensor, "R B"]]:
        x = noise.normal(count, 2)
        return x, (_conic(self.coefficients, x)[:, :, None] > self.levels[:, None]).sum(-1)


@dataclass(frozen=True)
class Plane(Task):
    """An episode is a problem of two dimensions with `outputs` classes.

    "clusters": every class is a mixture of `centres` round Gaussians of standard deviation `spread`, their centres
    standard normal. "conics": classes are separated by random ellipses, parabolas and hyperbolas, the level sets of
    a x1 + b x2 + c x1^2 + d x1 x2 + e x2^2 with standard normal coefficients, about equally frequent. Training points
    are fresh at every step; scored on `test_size` others. `problems` bounds how many different problems a search sees;
    `shuffle` says which. Held out are fresh problems without end.
    """

    problem: str = "clusters"
    outputs: int = 2  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    centres: int = 2
    spread: float = 0.4
    test_size: int = 100
    problems: int | None = None
    shuffle: int = 0
    split: str = "search"

    kind = "plane"
    source = "Bengio, Bengio and Cloutier 1994"
    metrics = scores.CLASSIFICATION

    def __post_init__(self) -> None:
        for name, allowed in (("problem", PROBLEMS), ("split", scores.SPLITS)):
            if getattr(self, name) not in allowed:
                raise ValueError(unknown(f"task.{name}", getattr(self, name), allowed))
        for name, least in (("outputs", 2), ("centres", 1), ("test_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"task.{name} = {getattr(self, name)} must be at least {least}")
        if self.spread <= 0:
            raise ValueError(f"task.spread = {self.spread} must be positive")
        if self.problems is not None and self.problems < 1:
            raise ValueError(f"task.problems = {self.problems} must be at least 1, or left out")

    @property
    def inputs(self):
        return 2

    def sample(self, noise, batch):
        noise = noise.at(self.split)
        place = self._place(noise)
        if self.problem == "clusters":
            centres = place.at("centres").normal(self.outputs * self.centres, 2)
            return ClustersEpisode(centres, self.spread, self.outputs, noise, batch, self.test_size)
        coefficients = place.at("conic").normal(5)
        shares = torch.arange(1, self.outputs, dtype=noise.dtype, device=noise.index.device) / self.outputs
        ruler = _conic(coefficients, place.at("ruler").normal(RULER, 2))
        levels = torch.quantile(ruler, shares, dim=1).T
        return ConicsEpisode(coefficients, levels, noise, batch, self.test_size)

    def _place(self, noise: Noise) -> Noise:
        """Where the problem of every run is drawn: at its own address, or at that of one of `problems`."""
        if self.problems is None:
            return noise.at("problem")
        numbers = noise.at("problem").integers(self.problems).tolist()
        return noise_for([("plane", self.split, self.shuffle, number) for number in numbers], noise.dtype)

    def held_out(self):
        return replace(self, split="held_out", problems=None)

    def seen(self):
        count = "fresh" if self.problems is None else str(self.problems)
        return f"{count} random {self.problem} in the plane ({self.split} branch of the addresses)"


def _conic(coefficients: Float[Tensor, "R 5"], x: Float[Tensor, "R B 2"]) -> Float[Tensor, "R B"]:
    first, second = x.unbind(-1)
    monomials = torch.stack((first, second, first.square(), first * second, second.square()), dim=-1)
    return torch.bmm(monomials, coefficients[:, :, None])[..., 0]
