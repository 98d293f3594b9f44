"""Imitating a random teacher network: unlimited data, nothing to memorise, every episode another function."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, eye

from metarule.collect import unknown
from metarule.network import Network
from metarule.nonlinearities import NONLINEARITIES
from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task

PROBLEMS = ("regression", "classification")


@dataclass(frozen=True, eq=False)
class TeacherEpisode(Episode):
    """One teacher per run: `weights` of `network`, both of them the teacher's."""

    network: Network
    weights: dict[str, Float[Tensor, "R I J"]]
    noise: Noise
    noise_sd: float
    batch: int
    test_size: int

    def train(self, step):
        x = self.noise.at("x", step).normal(self.batch, self._size(0))
        target = self._teach(x)
        if self.noise_sd > 0:
            target = target + self.noise_sd * self.noise.at("target noise", step).normal(self.batch, self._size(-1))
        if self.network.output == "softmax":
            target = eye(self._size(-1), dtype=x.dtype, device=x.device)[target.argmax(dim=-1)]
            return Batch(x, target, lambda action: (action * target).sum(-1, keepdim=True))
        return Batch(x, target)

    def score(self, respond, weights):
        x = self.noise.at("test").normal(self.test_size, self._size(0))
        target = self._teach(x)
        if self.network.output == "softmax":
            return scores.classification(respond, x, target.argmax(dim=-1))
        return scores.regression(respond, x, target, centre=target.mean(dim=1, keepdim=True))

    def _size(self, layer: int) -> int:
        return self.network.populations[layer].size

    def _teach(self, x: Float[Tensor, "R B J"]) -> Float[Tensor, "R B I"]:
        return self.network.forward(self.weights, x).drives[self.network.output_name]


@dataclass(frozen=True)
class Teacher(Task):
    """y = teacher(x) + noise_sd * normal, x standard normal; the teacher is a chain with Glorot weights.

    "regression" asks for y (loss NMSE = mean |output - y|^2 / variance of y), "classification" for its largest
    element, and pays 1 for a right answer. Scored on `test_size` new inputs without noise; held out are other teachers.
    """

    inputs: int = 20  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    hidden: tuple[int, ...] = (30,)
    outputs: int = 5  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    activation: str = "tanh"
    noise_sd: float = 0.0
    problem: str = "regression"
    test_size: int = 100
    split: str = "search"

    kind = "teacher"
    source = "Saad and Solla, 1995"
    metrics = scores.REGRESSION

    def __post_init__(self) -> None:
        for name, allowed in (("problem", PROBLEMS), ("activation", NONLINEARITIES), ("split", scores.SPLITS)):
            if getattr(self, name) not in allowed:
                raise ValueError(unknown(f"task.{name}", getattr(self, name), allowed))
        if self.noise_sd < 0:
            raise ValueError(f"task.noise_sd = {self.noise_sd} must not be negative")
        if self.test_size < 2:
            raise ValueError(f"task.test_size = {self.test_size} must be at least 2")
        if self.problem == "classification" and self.outputs < 2:
            raise ValueError(f"task.outputs = {self.outputs} must be at least 2 to classify")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if self.problem == "classification":
            object.__setattr__(self, "metrics", scores.CLASSIFICATION)

    @property
    def output(self):
        return "softmax" if self.problem == "classification" else "linear"

    def sample(self, noise, batch):
        network = Network.chain((self.inputs, *self.hidden, self.outputs), self.activation, self.output)
        noise = noise.at(self.split)
        weights = {p.name: network.draw(p, noise.at("teacher")) for p in network.projections}
        return TeacherEpisode(network, weights, noise, self.noise_sd, batch, self.test_size)

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        return f"fresh random teachers ({self.split} branch of the addresses)"
