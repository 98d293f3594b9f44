"""Signals, terms and equations as lines of torch: one weight (I J), events (B I) and (B J), means over events."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import sympy

from metarule.terms import FACTORS, Monomial, Term

DERIVED: dict[str, str] = {
    "post_change": "post - post_ref",
    "reconstruction": "post @ weight  # what the layer would reconstruct of its input",
    "total_post": "post.sum(1, keepdim=True)",
    "agreement": "(post * (pre_error @ weight.T)).sum(1, keepdim=True)",
    "match": "(error * (pre @ weight.T)).sum(1, keepdim=True)",
}
"""Factors that are made of signals, and how."""

FUNCTIONS = ("tanh", "exp", "log", "sqrt", "sign", "sin", "cos", "Abs")
"""Functions of sympy that torch has under the same name in small letters."""


class OpaqueError(ValueError):
    """An equation that no line of torch says."""


def derived(factors: Iterable[str]) -> list[str]:
    """Lines that make the derived ones of some factors."""
    return [f"{name} = {DERIVED[name]}" for name in DERIVED if name in set(factors)]


def term_code(term: Term) -> str:
    """A term as the mean over events, (I J) or what broadcasts to it."""
    parts = [_monomial(sign, part) for sign, part in term.parts]
    return _sum(parts)


def size_code(term: Term) -> str:
    """What a normalised coefficient of a term is multiplied with, "" for 1: see `Term.scale`."""
    powers = dict(term.parts[0][1])
    weights = sum(power for name, power in powers.items() if FACTORS[name].side == "synapse")
    sums = sum(power for name, power in powers.items() if FACTORS[name].summed)
    scale = {1: "scale", 0: "", -1: "1 / scale"}.get(1 - weights, f"scale**{1 - weights}")
    widths = {0: "", 1: "len(weight)"}.get(sums, f"len(weight)**{sums}")
    return f"{scale or 1} / {widths}" if widths else scale


def _monomial(sign: float, part: Monomial) -> str:
    sides: dict[str, list[str]] = {"post": [], "pre": [], "synapse": []}
    for name, power in part:
        side = FACTORS[name].side
        sides["post" if side == "event" else side].append(name if power == 1 else f"{name}**{power}")
    mean = _mean(" * ".join(sides["post"]), " * ".join(sides["pre"]))
    synapse = " * ".join(sides["synapse"])
    code = f"{synapse} * {_held(mean)}" if synapse and mean else synapse or mean or "torch.ones_like(weight)"
    return code if sign == 1 else f"-{code}" if sign == -1 else f"{sign!r} * {code}"


def _mean(left: str, right: str) -> str:
    """The mean over events of left right^T; of one side alone where the other is empty."""
    if left and right:
        return f"{_whole(left)}.T @ {_whole(right)} / count"
    return f"{_whole(left)}.mean(0)[:, None]" if left else f"{_whole(right)}.mean(0)" if right else ""


def equation_code(expression: sympy.Expr) -> tuple[list[str], str]:
    """Lines that come first, and the mean over events of an equation in the symbols of `terms.FACTORS`.

    Products of a post and a pre side become matrix products; anything else is computed at every event and synapse.
    Raises OpaqueError on what torch has no word for.
    """
    for form in (expression, sympy.expand(expression)):
        parts = [_separated(part) for part in sympy.Add.make_args(form)]
        if all(part is not None for part in parts):
            return [], _sum([part for part in parts if part is not None])
    names = {str(symbol) for symbol in expression.free_symbols}
    views = [
        f"{name} = {name}{VIEWS[FACTORS[name].side]}"
        for name in FACTORS
        if name in names and FACTORS[name].side in VIEWS
    ]
    return views, f"{_whole(_code(expression))}.mean(0)"


VIEWS = {"post": "[:, :, None]", "event": "[:, :, None]", "pre": "[:, None, :]"}
"""How a factor is laid out where every synapse is computed by itself (B I J)."""


def _separated(part: sympy.Expr) -> str | None:
    """A summand as number x synapse x <post side x pre side>; None where it is no such product."""
    sides: dict[str, list[sympy.Expr]] = {"number": [], "synapse": [], "post": [], "pre": []}
    for factor in sympy.Mul.make_args(part):
        reached = {_side(symbol) for symbol in factor.free_symbols}
        place = next(
            (side for side in ("post", "pre") if reached and reached <= {side, "event"}),
            "number" if not reached else "synapse" if reached == {"synapse"} else None,
        )
        if place is None:
            return None
        sides[place].append(factor)
    left, right, synapse = (
        _code(sympy.Mul(*sides[side])) if sides[side] else "" for side in ("post", "pre", "synapse")
    )
    number = float(sympy.Mul(*sides["number"]))
    mean = _mean(left, right)
    factors = [] if abs(number) == 1 else [repr(abs(number))]
    factors += [_held(part) for part in (synapse, mean) if part] if synapse or abs(number) != 1 else [mean]
    code = " * ".join(factors) if left or right or synapse else f"torch.full_like(weight, {abs(number)!r})"
    return f"-{code}" if number < 0 else code


def _side(symbol: sympy.Basic) -> str:
    if str(symbol) not in FACTORS:
        raise OpaqueError(f"'{symbol}' is no signal")
    return FACTORS[str(symbol)].side


def _code(expression: Any) -> str:
    """An expression as a formatter would leave it."""
    if isinstance(expression, sympy.Symbol):
        return str(expression)
    if isinstance(expression, sympy.Number):
        return repr(int(expression)) if expression.is_Integer else repr(float(expression))
    if isinstance(expression, sympy.Add):
        return _sum([_code(part) for part in expression.as_ordered_terms()])
    if isinstance(expression, sympy.Mul):
        number, rest = expression.as_coeff_Mul()
        if number.is_negative:
            return f"-{_held(_code(rest)) if number == -1 else _code(-expression)}"
        return " * ".join(_held(_code(part)) for part in expression.as_ordered_factors())
    if isinstance(expression, sympy.Pow):
        base, power = expression.args
        if not (power.is_number and float(power) > 0):
            raise OpaqueError(f"{expression} divides by what may be 0")
        if power == sympy.Rational(1, 2):
            return f"torch.sqrt({_code(base)})"
        bare = isinstance(base, sympy.Symbol)
        return f"{base}**{_code(power)}" if bare else f"({_code(base)}) ** {_code(power)}"
    name = type(expression).__name__
    if name not in FUNCTIONS or len(expression.args) != 1:
        raise OpaqueError(f"{name} has no word in torch here")
    return f"torch.{name.lower()}({_code(expression.args[0])})"


def _sum(parts: list[str]) -> str:
    """Parts added up, a minus in front of one that begins with it."""
    first, *others = parts
    return first + "".join(f" - {part[1:]}" if part.startswith("-") else f" + {part}" for part in others)


def _held(code: str) -> str:
    """Code that may be a factor: in brackets where it is a sum or a quotient."""
    return f"({code})" if _loose(code, (" + ", " - ", " / ", " @ ")) or code.startswith("-") else code


def _whole(code: str) -> str:
    """Code that may be followed by a dot: in brackets where it is more than a name or a call."""
    return f"({code})" if _loose(code, (" + ", " - ", " * ", " / ", " @ ", "**")) or code.startswith("-") else code


def _loose(code: str, signs: tuple[str, ...]) -> bool:
    """Whether one of some signs stands outside of all brackets."""
    depth = 0
    for place, letter in enumerate(code):
        depth += (letter in "([") - (letter in ")]")
        if depth == 0 and code.startswith(signs, place):
            return True
    return False


def finite(number: float) -> float:
    """A number that can be written down; raises OpaqueError where it diverged."""
    if not math.isfinite(number):
        raise OpaqueError(f"a coefficient is {number}")
    return number
