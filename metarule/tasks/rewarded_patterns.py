"""Patterns to fire at, or not: every one comes back, an act is paid 1 or -1, and nobody says which one was right."""

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
from metarule.tasks.poisson import counts


@dataclass(frozen=True, eq=False)
class RewardedPatternsEpisode(Episode):
    """One set of patterns per run; `sides` is 1 where to fire is right, else -1."""

    patterns: Float[Tensor, "R S J"]
    sides: Float[Tensor, "R S 1"]
    noise: Noise
    noise_sd: float
    spread: float
    batch: int

    def train(self, step):
        shown = self.noise.at("order", step).integers(self.patterns.shape[1], self.batch)
        runs = torch.arange(len(shown), device=shown.device)[:, None]
        x, sides = self.patterns[runs, shown], self.sides[runs, shown]
        if self.noise_sd:
            x = x + self.noise_sd * self.noise.at("x", step).normal(*x.shape[1:])
        return Batch(x, None, lambda action: action.sign() * sides)

    def score(self, respond, weights):
        right = torch.special.ndtr(scores.output_drive(respond, self.patterns) * self.sides / self.spread)
        chance = right.mean(dim=(1, 2))
        return {"held_out_loss": 1 - chance, "reward": 2 * chance - 1}


@dataclass(frozen=True)
class RewardedPatterns(Task):
    """`patterns` spike patterns of `inputs` trains at `rate` Hz for `duration` s; half of them, at random, ask to fire.

    A trial shows one of them, with Gaussian noise of `noise_sd`; the one linear output is a potential that fires where
    its noise carries it above 0, and is paid 1 where that was right, -1 else. An input is the spike count of a train,
    less its mean, in standard deviations times the root of `inputs`: patterns are nearly orthogonal, of length 1. The
    loss is the chance of a wrong act on the patterns, the potential's noise being `spread`, and "reward" the mean
    reward, both exact. Held out are other patterns. Of the published simulation this keeps patterns, rates, act, reward
    and, with credit `characteristic_eligibility`, exploration that does not cease where acts are right; it leaves out
    when spikes arrive, and the reset: a trial is one draw, and the eligibility at its end is that of the draw.
    """

    inputs: int = 50  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    patterns: int = 30
    rate: float = 6.0
    duration: float = 0.5
    noise_sd: float = 0.01
    spread: float = 0.05
    split: str = "search"

    kind = "rewarded_patterns"
    source = "Urbanczik and Senn 2009; Jordan, Schmidt, Senn and Petrovici 2021"
    metrics = {"held_out_loss": "min", "reward": "max"}  # noqa: RUF012
    baselines = ("reinforce",)

    def __post_init__(self) -> None:
        for name in ("inputs", "patterns"):
            if getattr(self, name) < 1:
                raise ValueError(f"task.{name} = {getattr(self, name)} must be at least 1")
        for name in ("rate", "duration", "spread"):
            if getattr(self, name) <= 0:
                raise ValueError(f"task.{name} = {getattr(self, name)} must be positive")
        if self.noise_sd < 0:
            raise ValueError(f"task.noise_sd = {self.noise_sd} must not be negative")
        if self.split not in scores.SPLITS:
            raise ValueError(unknown("task.split", self.split, scores.SPLITS))

    @property
    def outputs(self):
        return 1

    @property
    def output(self):
        return "linear"

    def sample(self, noise, batch):
        noise = noise.at(self.split)
        mean = self.rate * self.duration
        means = torch.full((noise.runs, self.patterns, self.inputs), mean, dtype=noise.dtype, device=noise.index.device)
        patterns = (counts(noise.at("spikes"), means, mean) - mean) / (mean * self.inputs) ** 0.5
        sides = 2 * noise.at("sides").integers(2, self.patterns, 1).to(patterns.dtype) - 1
        return RewardedPatternsEpisode(patterns, sides, noise, self.noise_sd, self.spread, batch)

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        return f"fresh random patterns ({self.split} branch of the addresses)"
