"""LinearRule: everything that a rule which is a weighted list of terms shares."""

from __future__ import annotations

import functools

import sympy
from jaxtyping import Float
from torch import Tensor

from metarule.rng import Noise
from metarule.rules.base import Listed, Rule, Shape, Summand
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
        return self.units(shape) if self.normalise else super().scales(shape)

    def units(self, shape: Shape) -> tuple[float, ...]:
        rest = len(self.params) - len(self.weighted)
        return (*self.term_units(shape), *(1.0,) * rest) if self.params else ()

    def term_units(self, shape: Shape) -> tuple[float, ...]:
        """Raw coefficient that a normalised 1 stands for, per term."""
        return _units(self.weighted, shape)

    def coefficients(self, theta: Float[Tensor, "R P"]) -> Float[Tensor, "R K"]:
        """The coefficient of every term, in units of theta."""
        return theta

    def complexity(self, theta):
        if not self.params:  # its terms have no coefficients, and are there all the same
            return theta.new_full((len(theta),), len(self.weighted))
        return super().complexity(theta)

    def delta(self, theta: Float[Tensor, "R P"], signals: Signals, state: State, noise: Noise) -> tuple[Change, State]:
        _, size_out, size_in = signals.weight.shape
        return combine(*self.listed(theta, (size_out, size_in)), signals), state

    def listed(self, theta: Float[Tensor, "R P"], shape: Shape) -> Listed:
        if not self.params:
            return Listed(self.weighted, theta.new_ones(len(theta), len(self.weighted)))
        coefficients = self.coefficients(theta)
        if self.normalise:
            coefficients = coefficients * theta.new_tensor(self.term_units(shape))
        return Listed(self.weighted, coefficients)

    def summands(self, theta: Float[Tensor, "P"]) -> tuple[Summand, ...]:
        numbers = self.coefficients(theta[None])[0].tolist() if self.params else [1.0] * len(self.weighted)
        return tuple(Summand(term, number, self.normalise) for term, number in zip(self.weighted, numbers, strict=True))

    def equation(self, theta: Float[Tensor, "P"], shape: Shape) -> sympy.Expr:
        terms, coefficients = self.listed(theta[None], shape)
        return equation(terms, coefficients[0].tolist())


@functools.lru_cache(maxsize=1024)
def _units(terms: tuple[Term, ...], shape: Shape) -> tuple[float, ...]:
    return tuple(term.scale(*shape) for term in terms)
