"""A chain of layers as the adjoint sees it: what errors cross it by, what is read where, and how slopes bend."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from metarule.credit.feedback import feedback_name, without_bias
from metarule.fused.learners import errors_read
from metarule.learner import Learner
from metarule.network import Projection
from metarule.terms import Term, glorot

BENDS: dict[str, Callable[[Tensor, Tensor, float], Tensor] | None] = {
    "linear": None,
    "relu": None,
    "sigmoid": lambda seed, h, beta: seed * (1 - 2 * h) * beta,
    "softplus": lambda seed, h, beta: seed * torch.exp(-beta * h) * beta,
    "tanh": lambda seed, h, beta: seed * h * -2,
}
"""Seed times the derivative of a nonlinearity's slope in its rate h, by name; None: 0."""


class Reads(NamedTuple):
    """What the projections that are stepped read: factors by name, and at which populations that takes an error."""

    factors: dict[str, frozenset[str]]
    errors: tuple[bool, ...]


class Chain:
    """Populations are numbered from the input, 0, to `top`; projection `place` goes from `place` to `place` + 1."""

    def __init__(self, learner: Learner, served: dict[str, Projection], terms: dict[str, tuple[Term, ...]]) -> None:
        self.network, self.crossing = learner.network, learner.credit.crossing
        self.projections = self.network.projections
        self.top = len(self.projections)
        self.names = [p.name for p in self.projections]
        self.place = {name: place for place, name in enumerate(self.names)}
        self.backs = [feedback_name(p) for p in self.projections]
        self.taught = {name: place for place, name in enumerate(self.backs) if name in served}
        self.populations = [p.name for p in self.network.populations]
        self.activations = [p.activation for p in self.network.populations]
        self.terms = terms
        self._reads: dict[frozenset[str], Reads] = {}

    def reads(self, moved: frozenset[str]) -> Reads:
        """What is read where these projections are stepped."""
        if moved not in self._reads:
            factors = {
                name: frozenset().union(*(term.factors for term in terms))
                for name, terms in self.terms.items()
                if name in moved
            }
            self._reads[moved] = Reads(factors, errors_read(self.network, self.crossing, factors))
        return self._reads[moved]

    def always_on(self, place: int, values: Tensor, always: float) -> Tensor:
        """Values at the source of a projection, and that of the unit that is always on where it has a bias."""
        return functional.pad(values, (0, 1), value=always) if self.projections[place].bias else values

    def units(self, place: int, values: Tensor) -> Tensor:
        """Values at the source of a projection without the unit that is always on."""
        return values[..., :-1] if self.projections[place].bias else values

    def matrix(self, place: int, weights: dict[str, Tensor]) -> Tensor:
        """What errors cross projection `place` by, (R I J), I units of the population that sends."""
        projection = self.projections[place]
        if self.crossing == "direct":
            return weights[f"{self.network.output_name}=>{projection.source}"].transpose(1, 2)
        if self.crossing in ("own", "own_taught"):
            return weights[self.backs[place]].transpose(1, 2)
        weight = without_bias(projection, weights[projection.name])
        if self.crossing == "transposed":
            return weight
        if self.crossing == "signs":
            return torch.sign(weight) * glorot(*weight.shape[1:])
        return torch.sign(weight) * weights[self.backs[place]].transpose(1, 2).abs()

    def gain(self, place: int, rate: Tensor) -> Tensor | None:
        """The slope of a population; None where it is 1."""
        if place == self.top or self.activations[place] == "linear":
            return None
        return self.network.gain(self.populations[place], {self.populations[place]: rate})

    def bent(self, place: int, seed: Tensor, rate: Tensor) -> Tensor | None:
        """The cotangent of a population's rates from that of their slope; None where it is 0, as at given rates."""
        bend = None if place in (0, self.top) else BENDS[self.activations[place]]
        return None if bend is None else bend(seed, rate, self.network.beta)

    def output_back(self, back: Tensor, rate: Tensor) -> Tensor:
        """The cotangent of the output's drive from that of its rates."""
        if self.network.output == "softmax":
            return rate * (back - (back * rate).sum(-1, keepdim=True))
        return back * rate * (1 - rate) if self.network.output == "sigmoid" else back


def times(values: Tensor, gain: Tensor | None) -> Tensor:
    """Values times a gain that may be 1."""
    return values if gain is None else values * gain
