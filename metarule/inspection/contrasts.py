"""A rule with and without each of its terms: which subsets of terms are compared to tell what a term does."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.learner import Learner, owner_of
from metarule.rules.linear import LinearRule

LEADING = "error_pre"
"""The term that is what backprop would have learned with: others are also tried as additions to it alone."""

MOST = 10
"""Terms of a rule that are contrasted, those of the largest normalised coefficients."""


class Contrast(NamedTuple):
    """Two subsets of a rule's terms that differ in one: "knock-out" from the whole rule, "knock-in" to the leading."""

    term: str
    kind: str
    with_it: frozenset[str]
    without: frozenset[str]


def terms_of(learner: Learner, theta: Float[Tensor, "1 P"]) -> dict[str, float]:
    """Parameter -> normalised coefficient of all terms of linear rules that have coefficients, 0 left out."""
    columns = learner.columns(theta)
    found = {}
    for key, rule in learner.rules.items():
        if not isinstance(rule, LinearRule) or not rule.params:
            continue
        shapes = [learner.network.shape(p) for p in learner.plastic if learner.rule_key(p) == key]
        if not shapes:
            continue
        values = rule.coefficients(columns.rules[key])[0].tolist()
        per = zip(rule.scales(shapes[0]), rule.units(shapes[0]), strict=True)
        scale = [scale / unit for scale, unit in per]
        names = [f"{owner_of('rule', key)}.{param.name}" for param in rule.params]
        found |= {name: value * size for name, value, size in zip(names, values, scale, strict=False) if value}
    return found


def contrasts(coefficients: dict[str, float]) -> list[Contrast]:
    """The pairs of subsets to compare; [] where there are fewer than two terms to tell apart."""
    whole = frozenset(coefficients)
    largest = sorted(coefficients, key=lambda name: -abs(coefficients[name]))
    if len(largest) < 2:
        return []
    leading = [name for name in largest if name.rpartition(".")[2] == LEADING]
    base = frozenset(leading or largest[:1])
    found = []
    for name in largest[:MOST]:
        if whole - {name}:
            found.append(Contrast(name, "knock-out", whole, whole - {name}))
        if name not in base and base | {name} != whole:
            found.append(Contrast(name, "knock-in", base | {name}, base))
    return found


def reduced(
    learner: Learner, theta: Float[Tensor, "1 P"], kept: frozenset[str], whole: frozenset[str]
) -> tuple[Learner, Float[Tensor, "1 P"]]:
    """The learner with the coefficients of all terms but the `kept` ones held at 0."""
    zero = dict.fromkeys(sorted(whole - kept), 0.0)
    free = [place for place, param in enumerate(learner.params) if param.name not in zero]
    return replace(learner, fixed={**learner.fixed, **zero}), theta[:, torch.tensor(free, dtype=torch.int64)]
