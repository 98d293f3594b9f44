"""Boolean functions of a few inputs, linearly separable or not: the smallest tasks that tell learning rules apart."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.collect import unknown
from metarule.rng import Noise, seed_number
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task

FUNCTIONS = ("separable", "non_separable", "all")

MOST = 4
"""Inputs at most: there are 2^2^n functions of n."""


@dataclass(frozen=True, eq=False)
class BooleanEpisode(Episode):
    """One function per run: `answers` (R patterns) of 0 and 1 to `patterns` of -1 and 1."""

    patterns: Float[Tensor, "patterns J"]
    answers: Int[Tensor, "R patterns"]
    noise: Noise
    noise_sd: float
    batch: int
    repeats: int

    def train(self, step):
        shown = self.noise.at("patterns", step).integers(len(self.patterns), self.batch)
        return scores.labelled(self._seen(shown, self.noise.at("x", step)), self.answers.gather(1, shown), 2)

    def score(self, respond, weights):
        shown = torch.arange(len(self.patterns), device=self.answers.device).repeat(self.repeats)
        x = self._seen(shown.expand(len(self.answers), -1), self.noise.at("test"))
        return scores.classification(respond, x, self.answers[:, shown])

    def _seen(self, shown: Int[Tensor, "R B"], noise: Noise) -> Float[Tensor, "R B J"]:
        x = self.patterns[shown]
        return x + self.noise_sd * noise.normal(*x.shape[1:]) if self.noise_sd else x


@dataclass(frozen=True)
class Boolean(Task):
    """An episode is a Boolean function of `inputs` inputs, true (second output) or false (first) of patterns of -1, 1.

    `functions` are those that one threshold unit with a bias can compute, the others, or all; the two constant ones are
    left out. Patterns come at random with Gaussian noise of `noise_sd`; scored `repeats` times on each. Of every class
    of functions a fixed half is held out. `problems` bounds how many different functions a search sees: the first of
    its half in an order that belongs to `shuffle`; held out are always all of the other half.
    Of 2 inputs 12 functions are separable and 2 not (XOR and its complement), of 3 inputs 102 and 152.
    """

    inputs: int = 2  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    functions: str = "separable"
    noise_sd: float = 0.1
    repeats: int = 8
    problems: int | None = None
    shuffle: int = 0
    split: str = "search"

    kind = "boolean"
    source = "Bengio, Bengio, Cloutier and Gecsei 1992; Bengio, Bengio and Cloutier 1995"
    metrics = scores.CLASSIFICATION

    def __post_init__(self) -> None:
        for name, allowed in (("functions", FUNCTIONS), ("split", scores.SPLITS)):
            if getattr(self, name) not in allowed:
                raise ValueError(unknown(f"task.{name}", getattr(self, name), allowed))
        if not 2 <= self.inputs <= MOST:
            raise ValueError(f"task.inputs = {self.inputs} must lie between 2 and {MOST}: there are 2^2^n functions")
        if self.noise_sd < 0:
            raise ValueError(f"task.noise_sd = {self.noise_sd} must not be negative")
        if self.repeats < 1:
            raise ValueError(f"task.repeats = {self.repeats} must be at least 1")
        there = len(_half(self.inputs, self.functions, self.split, self.shuffle))
        if self.problems is not None and not 1 <= self.problems <= there:
            raise ValueError(
                f"task.problems = {self.problems}: the {self.split} split has 1 to {there} {self.functions} functions "
                f"of {self.inputs} inputs"
            )

    @property
    def outputs(self):
        return 2

    @property
    def codes(self) -> tuple[int, ...]:
        """The functions that episodes draw from, as their truth tables: bit p is the answer to pattern p."""
        return _half(self.inputs, self.functions, self.split, self.shuffle)[: self.problems]

    def sample(self, noise, batch):
        noise = noise.at(self.split)
        device = noise.index.device
        codes = torch.tensor(self.codes, device=device)[noise.at("function").integers(len(self.codes))]
        answers = (codes[:, None] >> torch.arange(2**self.inputs, device=device)) & 1
        patterns = _patterns(self.inputs).to(device, noise.dtype)
        return BooleanEpisode(patterns, answers, noise, self.noise_sd, batch, self.repeats)

    def held_out(self):
        return replace(self, split="held_out", problems=None)

    def seen(self):
        both = sum(len(_half(self.inputs, self.functions, split, 0)) for split in scores.SPLITS)
        which = {"separable": "separable ", "non_separable": "non-separable ", "all": ""}[self.functions]
        return (
            f"{len(self.codes)} of the {both} {which}Boolean functions of {self.inputs} inputs that are not constant "
            f"({self.split} split by functions)"
        )


def separable(inputs: int) -> frozenset[int]:
    """The truth tables that one threshold unit can compute, constants included: 14, 104, 1882 of 2, 3, 4 inputs.

    Integer weights up to inputs - 1 and thresholds between their sums are enough for up to 4 inputs.
    """
    reach = inputs - 1
    weights = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=inputs)), dtype=torch.float64)
    drives = weights @ _patterns(inputs).T
    thresholds = torch.arange(-reach * inputs - 1, reach * inputs + 1) + 0.5
    answers = drives[:, None] > thresholds[None, :, None]
    codes = (answers * 2 ** torch.arange(2**inputs)).sum(-1)
    return frozenset(codes.unique().tolist())


@functools.lru_cache(maxsize=256)
def _half(inputs: int, functions: str, split: str, shuffle: int) -> tuple[int, ...]:
    """The functions of a split in the order of `shuffle`; a function is on the same side whatever is asked for."""
    simple, chosen = _separable(inputs), []
    for name in FUNCTIONS[:2]:
        members = [code for code in range(1, 2**2**inputs - 1) if (code in simple) == (name == "separable")]
        members.sort(key=lambda code: seed_number("boolean", inputs, code))
        middle = (len(members) + 1) // 2
        if functions in (name, "all"):
            chosen += members[:middle] if split == "search" else members[middle:]
    return tuple(sorted(chosen, key=lambda code: seed_number("boolean", "shuffle", shuffle, inputs, code)))


@functools.lru_cache(maxsize=MOST)
def _separable(inputs: int) -> frozenset[int]:
    return separable(inputs)


@functools.lru_cache(maxsize=MOST)
def _patterns(inputs: int) -> Float[Tensor, "patterns J"]:
    """All patterns of -1 and 1, pattern p with the bits of p, the lowest first."""
    bits = (torch.arange(2**inputs)[:, None] >> torch.arange(inputs)) & 1
    return bits.to(torch.float64) * 2 - 1
