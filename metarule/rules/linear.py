"""LinearRule: everything that a rule which is a weighted list of terms shares."""

from __future__ import annotations

import sympy
from jaxtyping import Float
from torch import Tensor

from metarule.rng import Noise
from metarule.rules.base import Rule, Shape
from metarule.signals import Change, Signals, State
from metarule.terms import Term, combine, equation


class LinearRule(Rule):
    """dW = sum_k c_k term_k. A member says which terms; without parameters of its own every c_k is 1."""

    normalise: bool = False

    @property
    def weighted(self) -> tuple[Term, ...]:
        """The terms, one per column of theta where the rule has parameters."""
        raise NotImplementedError

    @property
    def reads(self) -> frozenset[str]:
        return frozenset().union(*(term.reads for term in self.weighted))

    @property
    def local(self) -> bool:
        return all(term.local for term in self.weighted)

    def scales(self, shape: Shape) -> tuple[float, ...]:
        return self.units(shape) if self.normalise else (1.0,) * len(self.params)

    def units(self, shape: Shape) -> tuple[float, ...]:
        return tuple(term.scale(*shape) for term in self.weighted) if self.params else ()

    def delta(self, theta: Float[Tensor, "R P"], signals: Signals, state: State, noise: Noise) -> tuple[Change, State]:
        runs, size_out, size_in = signals.weight.shape
        if not self.params:
            return combine(self.weighted, theta.new_ones(runs, len(self.weighted)), signals), state
        if self.normalise:
            theta = theta * theta.new_tensor(self.scales((size_out, size_in)))
        return combine(self.weighted, theta, signals), state

    def equation(self, theta: Float[Tensor, "P"], shape: Shape) -> sympy.Expr:
        if not self.params:
            return equation(self.weighted, [1.0] * len(self.weighted))
        scaled = [number * scale for number, scale in zip(theta.tolist(), self.scales(shape), strict=True)]
        return equation(self.weighted, scaled)
