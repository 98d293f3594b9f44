"""Rule: how a synapse changes, a function of the signals at its projection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import sympy
from jaxtyping import Float
from torch import Tensor

from metarule.params import Param
from metarule.rng import Noise
from metarule.signals import Change, Signals, State
from metarule.terms import Term

Shape = tuple[float, float]
"""(I, J) of a projection, or their means over several."""


class Summand(NamedTuple):
    """A term with its coefficient, which stands for `Term.scale` times as much where it is `normalised`."""

    term: Term
    coefficient: float
    normalised: bool


class Listed(NamedTuple):
    """What a rule comes to as a weighted list of terms: raw coefficients, one row per run."""

    terms: tuple[Term, ...]
    coefficients: Float[Tensor, "R K"]


class Rule(ABC):
    """Settings are the fields of a frozen dataclass; all numbers that a search may move are `params`."""

    kind: ClassVar[str]
    source: ClassVar[str]

    @property
    def params(self) -> tuple[Param, ...]:
        """The numbers of the rule, in the order of theta's columns; () where it has none."""
        return ()

    @property
    @abstractmethod
    def reads(self) -> frozenset[str]:
        """Names of the signals that `delta` reads."""

    @property
    def per_synapse(self) -> int:
        """Numbers per synapse that a step takes and a meta-gradient keeps, the weight apart; 0 where they are few."""
        return 0

    @property
    def local(self) -> bool:
        """True where dW_ij depends on units i and j, on w_ij and on broadcast scalars only."""
        return True

    def init(self, theta: Float[Tensor, "R P"], weight: Float[Tensor, "R I J"]) -> State:
        """The rule's own state at the start of a run, every tensor with R first; {} where it has none."""
        return {}

    @abstractmethod
    def delta(self, theta: Float[Tensor, "R P"], signals: Signals, state: State, noise: Noise) -> tuple[Change, State]:
        """The change that one stage induces (the direction that is added; a mean over events) and the new state.

        Row r of theta moves run r only. No autograd inside; differentiable in theta and signals.
        """

    def listed(self, theta: Float[Tensor, "R P"], shape: Shape) -> Listed | None:
        """The terms and coefficients that `delta` sums at an I x J projection; None where it is no such sum.

        For engines that compute this themselves. A class that changes `delta` states it anew.
        """
        return None

    def complexity(self, theta: Float[Tensor, "R P"]) -> Float[Tensor, "R"]:
        """How many parts the rule has in use: its coefficients that are not 0, unless a family counts otherwise."""
        return (theta != 0).sum(1).to(theta.dtype)

    def fitted(self, given: frozenset[str]) -> Rule:
        """The rule without the parts that read more than the `given` signals, where a family can do without them."""
        return self

    def scales(self, shape: Shape) -> tuple[float, ...]:
        """Raw coefficient per unit of theta at an I x J projection, per parameter; 1 unless the rule normalises."""
        return (1.0,) * len(self.params)

    def units(self, shape: Shape) -> tuple[float, ...]:
        """Raw coefficient that a normalised coefficient of 1 stands for, whether or not this rule normalises."""
        return self.scales(shape)

    def equation(self, theta: Float[Tensor, "P"], shape: Shape) -> sympy.Expr | None:
        """The change of one synapse of an I x J projection in the symbols of `terms.FACTORS`; None: no closed form."""
        return None

    def summands(self, theta: Float[Tensor, "P"]) -> tuple[Summand, ...]:
        """The rule as a weighted list of terms; () where it is none."""
        return ()

    def expressions(self, theta: Float[Tensor, "P"]) -> dict[str, sympy.Expr]:
        """What a rule computes whose change alone is no equation: "dW" and its memories by name; {}: no closed form."""
        return {}
