"""A rule as a function of torch: its constants, what it reads, and the lines that compute the change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from metarule.exporting.torch_code import OpaqueError, derived, equation_code, finite, size_code, term_code
from metarule.exporting.torch_mlp import mlp_code
from metarule.rules import Rule
from metarule.terms import FACTORS

PROBED = ((3.0, 5.0), (7.0, 2.0))
"""Shapes at which an equation is asked for, to see whether it depends on them."""

ORDER = ("weight", "pre", "post", "error", "pre_error", "feedback", "gain")
"""Arguments of an exported rule, in the order in which they are passed."""


NETWORKS: dict[str, Callable[[Any, list[float]], tuple[dict[str, Any], list[str], str]]] = {"mlp": mlp_code}
"""Kind of a rule without an equation -> what says it in torch."""


class Code(NamedTuple):
    """`constants` by name, `reads` of ORDER, the `lines` that come first, and the `result` (I J)."""

    constants: dict[str, Any]
    reads: tuple[str, ...]
    lines: list[str]
    result: str


def rule_code(rule: Rule, numbers: list[float]) -> Code:
    """A rule with its numbers; raises OpaqueError where it has no equation, or one that torch has no words for."""
    theta = torch.tensor(numbers, dtype=torch.float64)
    summands = [each for each in rule.summands(theta) if each.coefficient]
    if not summands:
        network = NETWORKS.get(rule.kind)
        if network is not None and rule.equation(theta, PROBED[0]) is None:
            constants, lines, result = network(rule, numbers)
            return _code(rule.reads, result, constants, False, lines)
        return _by_equation(rule, theta)
    constants: dict[str, float] = {}
    parts: list[str] = []
    for term, coefficient, normalised in summands:
        factors = []
        if rule.params:
            constants[term.name.upper()] = finite(coefficient)
            factors.append(term.name.upper())
        size = size_code(term) if normalised else ""
        factors += [size] if size else []
        code = term_code(term)
        # a term that is a lone minus gives its sign to the sum
        negative = code.startswith("-") and len(term.parts) == 1
        code = code[1:] if negative else code
        held = f"({code})" if factors and (len(term.parts) > 1 or code.endswith(" / count")) else code
        parts.append(("-" if negative else "") + " * ".join([*factors, held]))
    result = parts[0] + "".join(f" - {part[1:]}" if part.startswith("-") else f" + {part}" for part in parts[1:])
    if not any(" @ " in part or "weight" in part.replace("len(weight)", "") for part in parts):
        result = f"({result}).expand_as(weight)"
    used = {name for each in summands for name in each.term.factors}
    sized = any("scale" in part for part in parts)
    return _code(used, result, constants, sized)


def _by_equation(rule: Rule, theta: torch.Tensor) -> Code:
    one, other = (rule.equation(theta, shape) for shape in PROBED)
    if one is None or other is None:
        raise OpaqueError(f"rule '{rule.kind}' has no equation")
    if one != other:
        raise OpaqueError(f"the equation of rule '{rule.kind}' is another one at every width")
    views, result = equation_code(one)
    if not views and " @ " not in result and "weight" not in result:
        result = f"({result}).expand_as(weight)"
    used = {str(symbol) for symbol in one.free_symbols}
    return _code(used, result, {}, False, views)


def _code(
    used: Iterable[str], result: str, constants: dict[str, Any], sized: bool, views: list[str] | None = None
) -> Code:
    made = derived(used)
    reads = {signal for name in used for signal in FACTORS[name].reads}
    if unknown := reads - {*ORDER}:
        raise OpaqueError(f"it reads {', '.join(sorted(unknown))}, which an exported file does not make")
    lines = ["scale = math.sqrt(2 / sum(weight.shape))  # of the layer's weights, whatever its width"] if sized else []
    code = [*made, *(views or []), result]
    if any("count" in line for line in code):
        lines.append(f"count = len({next(name for name in ORDER[1:] if name in reads)})")
    code = [*lines, *made, *(views or [])]
    if any("weight" in line for line in (*code, result)):
        reads |= {"weight"}
    return Code(constants, tuple(name for name in ORDER if name in reads), code, result)


def finite_rate(rate: float) -> float:
    """A step size that can be written down."""
    if not math.isfinite(rate):
        raise OpaqueError(f"its rate is {rate}")
    return rate
