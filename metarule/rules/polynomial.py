"""Polynomial: all monomials of chosen signals up to chosen degrees, the Taylor or Volterra family of rules."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field

from metarule.collect import unknown
from metarule.params import Param
from metarule.rules.linear import LinearRule
from metarule.terms import FACTORS, Term, monomial


@dataclass(frozen=True)
class Polynomial(LinearRule):
    """dW = sum_{abc...} theta_abc... s_abc... pre^a post^b weight^c ..., a <= degrees["pre"] and so on.

    `total` bounds a + b + c + ...; `constant` keeps the monomial of degree 0. A monomial is named by its factors
    in the order of `terms.FACTORS`, "post_pre", "post2_weight".
    Raises ValueError on an unknown signal or a degree below 1.
    """

    kind = "polynomial"
    source = "Bengio, Bengio and Cloutier 1991; Confavreux et al. 2020; Mehta et al. 2024"

    degrees: dict[str, int] = field(default_factory=lambda: {"pre": 1, "post": 2, "weight": 1}, hash=False)
    total: int | None = None
    constant: bool = False
    normalise: bool = True
    start: dict[str, float] = field(default_factory=dict, hash=False)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.degrees:
            raise ValueError("rule.degrees is empty; give at least one signal, as in { pre = 1, post = 2 }")
        for name, degree in self.degrees.items():
            if name not in FACTORS:
                raise ValueError(unknown("rule.degrees", name, FACTORS))
            if degree < 1:
                raise ValueError(f"rule.degrees.{name} = {degree} must be at least 1")
        names = [term.name for term in self.weighted]
        for name in self.start:
            if name not in names:
                raise ValueError(unknown("rule.start", name, names))

    @functools.cached_property
    def _weighted(self) -> tuple[Term, ...]:
        terms = []
        names = [name for name in FACTORS if name in self.degrees]  # the same order however the table was written
        for powers in itertools.product(*(range(self.degrees[name] + 1) for name in names)):
            degree = sum(powers)
            if (degree == 0 and not self.constant) or (self.total is not None and degree > self.total):
                continue
            named = {name: power for name, power in zip(names, powers, strict=True) if power}
            label = "_".join(f"{name}{power if power > 1 else ''}" for name, power in named.items()) or "constant"
            terms.append(Term(label, ((1.0, monomial(**named)),)))
        return tuple(terms)

    @property
    def weighted(self) -> tuple[Term, ...]:
        return self._weighted

    @property
    def params(self) -> tuple[Param, ...]:
        return tuple(Param(term.name, self.start.get(term.name, 0.0), self.scale) for term in self.weighted)
