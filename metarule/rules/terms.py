"""Terms: a chosen list of the vocabulary's terms, each with its own coefficient; the family most searches use."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

from metarule.collect import check_chosen, unknown
from metarule.params import Param
from metarule.rules.linear import LinearRule
from metarule.terms import TERMS, Term

SWITCH = ("off", "on")
"""The choices of a term's switch."""


@dataclass(frozen=True)
class Terms(LinearRule):
    """dW = sum_k theta_k s_k term_k, shared by all synapses of its projections.

    s_k = 1 with `normalise = false` (published raw coefficients); else `Term.scale`, so that theta_k means the same at
    every width. `start` gives first values by name, the rest start at 0; `scale` is the unit in which searches step,
    `scale_by_term` that of some terms.
    With `switches` every term is also on or off: which terms a rule has is searched beside how strong they are.
    Raises ValueError on an unknown, repeated or missing term.
    """

    kind = "terms"
    source = "Shervani-Tabar and Rosenbaum 2023"

    terms: tuple[str, ...] = ("error_pre", "error_pre_error", "subspace_oja")
    normalise: bool = True
    start: dict[str, float] = field(default_factory=dict, hash=False)
    scale: float = 1.0
    scale_by_term: dict[str, float] = field(default_factory=dict, hash=False)
    switches: bool = False

    def __post_init__(self) -> None:
        check_chosen("rule.terms", self.terms, TERMS, "term")
        for owner, named in (("rule.start", self.start), ("rule.scale_by_term", self.scale_by_term)):
            for name in named:
                if name not in self.terms:
                    raise ValueError(unknown(owner, name, self.terms))

    @property
    def weighted(self) -> tuple[Term, ...]:
        return tuple(TERMS[name] for name in self.terms)

    @property
    def params(self) -> tuple[Param, ...]:
        return self._params

    @functools.cached_property  # an engine asks at every projection of every block
    def _params(self) -> tuple[Param, ...]:
        switches = tuple(Param(switch_of(name), start=1.0, choices=SWITCH) for name in self.terms if self.switches)
        when = {name: ((switch_of(name), SWITCH[1:]),) if self.switches else () for name in self.terms}
        numbers = [
            Param(name, self.start.get(name, 0.0), self.scale_by_term.get(name, self.scale), when=when[name])
            for name in self.terms
        ]
        return (*numbers, *switches)

    def coefficients(self, theta):
        count = len(self.terms)
        return theta[:, :count] * theta[:, count:] if self.switches else theta

    def complexity(self, theta):
        return super().complexity(self.coefficients(theta))

    def fitted(self, given):
        kept = tuple(name for name in self.terms if TERMS[name].reads <= given)
        if not kept:
            raise ValueError(f"rule.terms = {list(self.terms)} read none of the signals {', '.join(sorted(given))}")
        start, scales = (
            {name: number for name, number in named.items() if name in kept}
            for named in (self.start, self.scale_by_term)
        )
        return replace(self, terms=kept, start=start, scale_by_term=scales)


def switch_of(term: str) -> str:
    """Name of the parameter that says whether a term is on."""
    return f"use_{term}"
