"""What a search found, as JSON values: terms with their intervals, the equation, the battery."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.findings import terms
from metarule.learner import ANY
from metarule.rules.base import Shape
from metarule.spec import COMPLEXITY, Search
from metarule.terms import spelled

SWITCHED_ON = ("on",)
"""The choices of a parameter under which a coefficient counts that it switches."""


def described(search: Search) -> list[dict[str, Any]]:
    """One entry per column of theta: its parameter, its short name and, for a rule's, its scales.

    `raw` is the raw coefficient per unit of theta and `unit` the raw coefficient of a normalised 1, both at the
    geometric-mean shape of the projections that the rule serves; `switch` the parameter that turns it on and off.
    Columns of several structures have a name only.
    """
    if search.choices:
        return [{"param": param.name, "name": param.name, "log": param.log} for param in search.family.params]
    learner = search.learner
    entries = []
    scales: dict[str, tuple[float, float]] = {}
    for key, rule in learner.rules.items():
        shape = mean_shape(search, key)
        named = zip(rule.params, rule.scales(shape), rule.units(shape), strict=True)
        scales |= {f"{_owner(key)}.{param.name}": (raw, unit) for param, raw, unit in named if not param.choices}
    for param in learner.params:
        entry: dict[str, Any] = {"param": param.name, "name": param.name, "log": param.log}
        if param.name in scales:
            raw, unit = scales[param.name]
            entry |= {"name": _short(param.name, learner.rules), "raw": raw, "unit": unit}
        for name, choices in param.when:
            if choices == SWITCHED_ON:
                entry["switch"] = name
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
    """Rule key -> its equation as text and LaTeX with raw coefficients; None where it has no closed form.

    Of a rule with memories it is those too: "dW = m0; m0 = ...".
    """
    learner = search.learner
    if not learner.rules:  # a torch module, trained by descent
        return {}
    columns = learner.columns(theta[None].to(torch.float64))
    found: dict[str, dict[str, str] | None] = {}
    for key, rule in learner.rules.items():
        row = columns.rules[key][0]
        change = rule.equation(row, mean_shape(search, key))
        parts = rule.expressions(row) if change is None else {"dW": change}
        texts = [f"{name} = {spelled(part)}" for name, part in parts.items()]
        latex = [_latex(name, part) for name, part in parts.items()]
        found[key] = {"text": "; ".join(texts), "latex": r", \quad ".join(latex)} if parts else None
    return found


def result(
    search: Search,
    theta: Float[Tensor, "P"],
    log: list[dict[str, Any]],
    battery: dict[str, Any] | None,
    name: str,
    front: Sequence[tuple[Float[Tensor, "P"], Sequence[float]]] = (),
) -> dict[str, Any]:
    """The content of result.json: deterministic, a pure function of the search.

    `front` are rows that no other beats, with their losses; they are written where there are several objectives.
    """
    plain, row = search.found(theta)
    found = equations(plain, row)
    several = len(search.objectives) > 1
    return {
        "schema": 1,
        "name": name,
        "task": search.task.kind,
        "credit": plain.credit.kind,
        "model": None if plain.model is None else plain.model.kind,
        "structure": structure(search, theta),
        "outer": search.outer.kind,
        "generations": len(log),
        "equation": text(found),
        "latex": [part["latex"] for part in found.values() if part],
        "terms": terms(described(plain), list(_of_structure(search, theta, log))),
        "theta": search.family.named(theta),
        "front": [entry(search, each, losses) for each, losses in front] if several else [],
        "battery": battery["rows"] if battery else [],
        "differences": battery["differences"] if battery else [],
        "tunings": battery["tunings"] if battery else {},
        "trained_on": search.task.seen(),
        "tested_on": battery["tested_on"] if battery else None,
    }


def text(found: dict[str, dict[str, str] | None]) -> str | None:
    """Equations as one text, each named where there are several; None where there is none."""
    texts = [f"{key}: {part['text']}" if len(found) > 1 else part["text"] for key, part in found.items() if part]
    return "\n".join(texts) if texts else None


def structure(search: Search, theta: Float[Tensor, "P"]) -> dict[str, str]:
    """Key of [structure] -> the choice that a rule has made; {} where nothing varies."""
    names = (param.name for param in search.choices)
    return dict(zip(names, search.family.structure(theta), strict=True))


def entry(search: Search, theta: Float[Tensor, "P"], losses: Sequence[float]) -> dict[str, Any]:
    """One rule of the front: what it is, what it lost, how complex it is."""
    plain, row = search.found(theta)
    return {
        "structure": structure(search, theta),
        "theta": search.family.named(theta),
        "losses": dict(zip(search.objectives, losses, strict=True)),
        COMPLEXITY: float(search.family.complexity(theta[None])[0]),
        "equation": text(equations(plain, row)),
    }


def _of_structure(search: Search, theta: Float[Tensor, "P"], log: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The generations whose best rule had the structure of this one, by the names of its own learner's parameters."""
    if not search.choices:
        yield from log
        return
    family = search.family
    names = [param.name for param in search.found(theta)[0].learner.params]
    for line in log:
        row = torch.tensor([line["theta"][param.name] for param in family.params], dtype=torch.float64)
        if family.structure(row) == family.structure(theta):
            yield {**line, "theta": dict(zip(names, family.learner(row)[1].tolist(), strict=True))}


def _latex(name: str, part: sympy.Expr) -> str:
    rounded = part.xreplace({number: sympy.Float(number, 3) for number in part.atoms(sympy.Float)})
    symbol = r"\Delta W" if name == "dW" else sympy.latex(sympy.Symbol(name))
    return f"{symbol} = {sympy.latex(rounded)}"


def _owner(key: str) -> str:
    return "rule" if key == ANY else f"rule.{key}"


def _short(param: str, rules: Any) -> str:
    """The term's own name, with the rule's key in front where there are several rules."""
    name = param.rsplit(".", 1)[1]
    return name if len(rules) == 1 else param.removeprefix("rule.")
