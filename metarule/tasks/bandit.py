"""A contextual bandit: contexts come one by one, an action is paid or not, and nobody says which one was right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from jaxtyping import Float, Int
from torch import Tensor

from metarule.collect import unknown
from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task


@dataclass(frozen=True, eq=False)
class BanditEpisode(Episode):
    """One teacher per run; the right action is the one that it ranks first."""

    teacher: Float[Tensor, "R I J"]
    noise: Noise
    batch: int
    test_size: int

    def train(self, step):
        x = self._contexts(self.noise.at("x", step), self.batch)
        pays = functional.one_hot(self._right(x), self.teacher.shape[1]).to(x.dtype)
        return Batch(x, None, lambda action: (action * pays).sum(-1, keepdim=True))

    def score(self, respond, weights):
        x = self._contexts(self.noise.at("test"), self.test_size)
        return scores.classification(respond, x, self._right(x))

    def _contexts(self, noise: Noise, events: int) -> Float[Tensor, "R B J"]:
        return noise.normal(events, self.teacher.shape[2])

    def _right(self, x: Float[Tensor, "R B J"]) -> Int[Tensor, "R B"]:
        return torch.bmm(x, self.teacher.transpose(1, 2)).argmax(-1)


@dataclass(frozen=True)
class Bandit(Task):
    """Contexts are standard normal; the action that a random linear teacher ranks first is paid 1, the others 0.

    Training gives contexts and rewards, no targets. Scored on `test_size` new contexts, as a classification of them
    by their right action; held out are other teachers.
    """

    inputs: int = 4  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    outputs: int = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    test_size: int = 100
    split: str = "search"

    kind = "bandit"
    source = "Sutton and Barto 2018, section 2.9"
    metrics = scores.CLASSIFICATION
    baselines = ("reinforce", "agrel")

    def __post_init__(self) -> None:
        for name, least in (("inputs", 1), ("outputs", 2), ("test_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"task.{name} = {getattr(self, name)} must be at least {least}")
        if self.split not in scores.SPLITS:
            raise ValueError(unknown("task.split", self.split, scores.SPLITS))

    def sample(self, noise, batch):
        noise = noise.at(self.split)
        return BanditEpisode(noise.at("teacher").normal(self.outputs, self.inputs), noise, batch, self.test_size)

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        return f"fresh random teachers ({self.split} branch of the addresses)"
