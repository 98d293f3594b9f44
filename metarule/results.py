"""What a search found, as JSON values: terms with their intervals, the equation, the battery."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.findings import terms
from metarule.learner import owner_of
from metarule.params import Param
from metarule.rules.base import Shape
from metarule.spec import COMPLEXITY, Search
from metarule.terms import spelled

SWITCHED_ON = ("on",)
"""The choices of a parameter under which a coefficient counts that it switches."""


class Learning(Protocol):
    """What has a learner: a search, or what is inspected."""

    @property
    def learner(self) -> Any:
        """A Learner, or what else an engine can train."""
        ...


class Written(NamedTuple):
    """One equation of a rule in three spellings; `name` is "dW" or a memory's. sympy.sympify reads `sympy`."""

    rule: str
    name: str
    text: str
    latex: str
    sympy: str


class Coefficient(NamedTuple):
    """One number of a rule, fixed or found, at the geometric-mean shape of the projections that the rule serves.

    `value` as `param` means it, `scale` the raw coefficient per unit of it, `unit` the raw coefficient of a normalised
    1; where a switch turned it off it is not `on`. `owner` is how the parameter is called in a learner.
    """

    rule: str
    name: str
    owner: str
    param: Param
    value: float
    scale: float
    unit: float
    on: bool

    @property
    def raw(self) -> float:
        """As it stands in the equation."""
        return self.scale * self.value if self.on else 0.0

    @property
    def normalised(self) -> float:
        """In units that mean the same at every width."""
        return self.raw / self.unit


def coefficients(owner: Learning, theta: Float[Tensor, "P"]) -> list[Coefficient]:
    """All numbers of all rules of a learner, those held fixed included; what a switch turned off is 0."""
    learner = owner.learner
    columns = learner.columns(theta[None].to(torch.float64))
    found = []
    for key, rule in learner.rules.items():
        shape = mean_shape(owner, key)
        values = columns.rules[key][0].tolist()
        chosen = {
            param.name: param.choices[int(value)]
            for param, value in zip(rule.params, values, strict=True)
            if param.choices
        }
        for param, value, scale, unit in zip(rule.params, values, rule.scales(shape), rule.units(shape), strict=True):
            if param.choices:
                continue
            own = f"{owner_of('rule', key)}.{param.name}"
            name = _short(own, learner.rules)
            found.append(Coefficient(key, name, own, param, value, scale, unit, param.counts(chosen)))
    return found


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
        scales |= {
            f"{owner_of('rule', key)}.{param.name}": (raw, unit) for param, raw, unit in named if not param.choices
        }
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


def mean_shape(owner: Learning, key: str) -> Shape:
    """Geometric means (I, J) over the projections that rule `key` serves."""
    learner = owner.learner
    shapes = [learner.network.shape(p) for p in learner.plastic if learner.rule_key(p) == key]
    if not shapes:
        return (1.0, 1.0)
    size_out, size_in = (statistics.geometric_mean(sizes) for sizes in zip(*shapes, strict=True))
    return size_out, size_in


def expressions(owner: Learning, theta: Float[Tensor, "P"]) -> dict[str, dict[str, sympy.Expr]]:
    """Rule key -> "dW", and of a rule with memories those too, with raw coefficients; {} without a closed form."""
    learner = owner.learner
    if not learner.rules:  # a torch module, trained by descent
        return {}
    columns = learner.columns(theta[None].to(torch.float64))
    found: dict[str, dict[str, sympy.Expr]] = {}
    for key, rule in learner.rules.items():
        row = columns.rules[key][0]
        change = rule.equation(row, mean_shape(owner, key))
        found[key] = rule.expressions(row) if change is None else {"dW": change}
    return found


def written(owner: Learning, theta: Float[Tensor, "P"]) -> list[Written]:
    """Every equation of every rule that has one, spelled for people, for LaTeX and for sympy."""
    return [
        Written(key, name, f"{name} = {spelled(part)}", _latex(name, part), _exactly(part))
        for key, parts in expressions(owner, theta).items()
        for name, part in parts.items()
    ]


def equations(owner: Learning, theta: Float[Tensor, "P"]) -> dict[str, dict[str, str] | None]:
    """Rule key -> its equation as text and LaTeX with raw coefficients; None where it has no closed form.

    Of a rule with memories it is those too: "dW = m0; m0 = ...".
    """
    found: dict[str, dict[str, str] | None] = dict.fromkeys(owner.learner.rules)
    for key in found:
        own = [each for each in written(owner, theta) if each.rule == key]
        if own:
            latex = r", \quad ".join(each.latex for each in own)
            found[key] = {"text": "; ".join(each.text for each in own), "latex": latex}
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


def _exactly(part: sympy.Expr) -> str:
    """An expression as sympy reads it, its numbers to the last digit."""
    exact = {number: sympy.Float(repr(float(number)), 17) for number in part.atoms(sympy.Float)}
    return str(part.xreplace(exact))


def _short(param: str, rules: Any) -> str:
    """The term's own name, with the rule's key in front where there are several rules."""
    name = param.rsplit(".", 1)[1]
    return name if len(rules) == 1 else param.removeprefix("rule.")
