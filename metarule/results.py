"""What a search found, as JSON values: terms with their intervals, the equation, the battery."""

from __future__ import annotations

import statistics
from typing import Any

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.findings import terms
from metarule.learner import ANY
from metarule.rules.base import Shape
from metarule.spec import Search
from metarule.terms import spelled


def described(search: Search) -> list[dict[str, Any]]:
    """One entry per column of theta: its parameter, its short name and, for a rule's, its scales.

    `raw` is the raw coefficient per unit of theta and `unit` the raw coefficient of a normalised 1, both at the
    geometric-mean shape of the projections that the rule serves.
    """
    learner = search.learner
    entries = []
    scales: dict[str, tuple[float, float]] = {}
    for key, rule in learner.rules.items():
        shape = mean_shape(search, key)
        named = zip(rule.params, rule.scales(shape), rule.units(shape), strict=True)
        scales |= {f"{_owner(key)}.{param.name}": (raw, unit) for param, raw, unit in named}
    for param in learner.params:
        entry: dict[str, Any] = {"param": param.name, "name": param.name, "log": param.log}
        if param.name in scales:
            raw, unit = scales[param.name]
            entry |= {"name": _short(param.name, learner.rules), "raw": raw, "unit": unit}
        entries.append(entry)
    return entries


def mean_shape(search: Search, key: str) -> Shape:
    """Geometric means (I, J) over the projections that rule `key` serves."""
    learner = search.learner
    shapes = [learner.network.shape(p) for p in learner.plastic if learner.rule_key(p) == key]
    if not shapes:
        return (1.0, 1.0)
    size_out, size_in = (statistics.geometric_mean(sizes) for sizes in zip(*shapes, strict=True))
    return size_out, size_in


def equations(search: Search, theta: Float[Tensor, "P"]) -> dict[str, dict[str, str] | None]:
    """Rule key -> its equation as text and LaTeX with raw coefficients; None where it has no closed form."""
    learner = search.learner
    columns = learner.columns(theta[None].to(torch.float64))
    found: dict[str, dict[str, str] | None] = {}
    for key, rule in learner.rules.items():
        expression = rule.equation(columns.rules[key][0], mean_shape(search, key))
        if expression is None:
            found[key] = None
            continue
        rounded = expression.xreplace({number: sympy.Float(number, 3) for number in expression.atoms(sympy.Float)})
        found[key] = {"text": f"dW = {spelled(expression)}", "latex": rf"\Delta W = {sympy.latex(rounded)}"}
    return found


def result(
    search: Search, theta: Float[Tensor, "P"], log: list[dict[str, Any]], battery: dict[str, Any] | None, name: str
) -> dict[str, Any]:
    """The content of result.json: deterministic, a pure function of the search."""
    found = equations(search, theta)
    texts = [f"{key}: {part['text']}" if len(found) > 1 else part["text"] for key, part in found.items() if part]
    names = [param.name for param in search.learner.params]
    return {
        "schema": 1,
        "name": name,
        "task": search.task.kind,
        "credit": search.credit.kind,
        "outer": search.outer.kind,
        "generations": len(log),
        "equation": "\n".join(texts) if texts else None,
        "latex": [part["latex"] for part in found.values() if part],
        "terms": terms(described(search), log),
        "theta": dict(zip(names, theta.tolist(), strict=True)),
        "battery": battery["rows"] if battery else [],
        "differences": battery["differences"] if battery else [],
        "tunings": battery["tunings"] if battery else {},
        "trained_on": search.task.seen(),
        "tested_on": battery["tested_on"] if battery else None,
    }


def _owner(key: str) -> str:
    return "rule" if key == ANY else f"rule.{key}"


def _short(param: str, rules: Any) -> str:
    """The term's own name, with the rule's key in front where there are several rules."""
    name = param.rsplit(".", 1)[1]
    return name if len(rules) == 1 else param.removeprefix("rule.")
