"""Equations made readable: numbers rounded, what adds nothing left out, and two of them compared as rules."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy

from metarule.collect import unknown
from metarule.programs import OPERATORS
from metarule.rng import noise_for

Values = Mapping[str, Sequence[float]]
"""Signals that take few values, {"reward": (-1, 1)}; all others are standard normal."""

SAMPLES = 1000
"""Probe signals on which contributions are measured and rules compared."""

UNWIELDY = 4
"""Sums with larger integers than this come from measured numbers."""

DEGREE = 9
"""Powers from which on an expression is left as it is: multiplied out it would fill pages."""


def simplified(
    expression: sympy.Expr, values: Values | None = None, digits: int = 4, tolerance: float = 1e-6
) -> sympy.Expr:
    """The shortest form found: multiplied out, terms below `tolerance` of the change dropped, factors taken out.

    Coefficients are kept to `digits`, relative to the largest term's. `values` are what is known of signals: any
    function of a reward of -1 or 1 is a + b reward, so that E (R - 1) / R^2 is E (R - 1). A quotient by 0 is 0.
    """
    known = _real(expression)
    for name, few in (values or {}).items():
        known = _interpolated(known, sympy.Symbol(name, real=True), [_exact(value, 15) for value in few])
    terms = _terms(known)
    with np.errstate(all="ignore"):
        sizes = {rest: _size(sampled(factor * rest, values)) for rest, factor in terms.items()}
        whole = _size(sampled(sympy.Add(*(factor * rest for rest, factor in terms.items())), values))
    measured = math.isfinite(whole)  # where nothing is finite, nothing can be left out
    if not terms or (measured and whole <= 1e-12 * max(sizes.values())):
        return sympy.Integer(0)
    kept = [rest for rest in terms if not measured or sizes[rest] >= tolerance * whole]
    lead = terms[max(kept, key=sizes.__getitem__)]
    # shares of the leading term are rounded before factors are sought: 0.0333 x y - 0.0333 y^2 has one
    shares = sympy.Add(*(_exact(terms[rest] / lead, digits) * _rounded(rest, digits) for rest in kept))
    forms = [sympy.Add(*(_exact(terms[rest], digits) * _rounded(rest, digits) for rest in kept))]
    if len(kept) <= 40:
        forms += [_factored(sign * shares, sign * lead, digits) for sign in (1, -1)]
    return min((_plain(form, digits) for form in reversed(forms)), key=lambda form: (form.count_ops(), len(str(form))))


def equivalent(
    one: sympy.Expr, other: sympy.Expr, values: Values | None = None, tolerance: float = 1e-6, positive: bool = True
) -> bool:
    """True where one is the other times a factor, a positive one if `positive`, on every probe signal."""
    with np.errstate(all="ignore"):
        first, second = sampled(one, values), sampled(other, values)
    there = np.isfinite(first)
    if not np.array_equal(there, np.isfinite(second)):
        return False
    first, second = first[there], second[there]
    moved = (first != 0) & (second != 0)
    if not moved.any():
        return not first.any() and not second.any()
    factor = float(np.median(first[moved] / second[moved]))
    if positive and factor <= 0:
        return False
    floor = float(np.median(np.abs(first[moved])))
    gap = np.abs(first - factor * second)
    return bool((gap <= tolerance * (np.abs(first) + abs(factor) * np.abs(second) + floor)).all())


def sampled(expression: sympy.Expr, values: Values | None = None) -> np.ndarray:
    """The expression on `SAMPLES` probe signals, the same for a symbol of the same name."""
    noise = noise_for([("symbolic",)])
    columns = []
    symbols = sorted(expression.free_symbols, key=str)
    for symbol in symbols:
        stream, few = noise.at(str(symbol)), (values or {}).get(str(symbol))
        if few is None:
            columns.append(stream.normal(SAMPLES)[0].numpy())
        else:
            columns.append(np.asarray(few, dtype=float)[stream.integers(len(few), SAMPLES)[0].numpy()])
    found = sympy.lambdify(symbols, expression, "numpy")(*columns)
    return np.broadcast_to(np.asarray(found, dtype=float), SAMPLES)


def parsed(text: str) -> sympy.Expr:
    """An expression from text, without running it; its calls are those of `programs.OPERATORS` of one operand.

    Raises ValueError where something is not understood.
    """
    try:
        return _part(ast.parse(text.replace("^", "**"), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"'{text}' is not an expression: {error.msg}") from error


_BINARY = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: OPERATORS["div"].symbol,
    ast.Pow: lambda a, b: a**b,
}


def _part(tree: ast.expr) -> sympy.Expr:
    match tree:
        case ast.Constant(value=int() as number):
            return sympy.Integer(number)
        case ast.Constant(value=float() as number):
            return sympy.Float(number)
        case ast.Name(id=name):
            return sympy.Symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_part(inner)
        case ast.BinOp(left=left, op=symbol, right=right) if type(symbol) in _BINARY:
            return _BINARY[type(symbol)](_part(left), _part(right))
        case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]):
            single = {each for each, operator in OPERATORS.items() if operator.arity == 1}
            if name not in single:
                raise ValueError(unknown(f"a function in '{ast.unparse(tree)}'", name, single))
            return OPERATORS[name].symbol(_part(inner))
    raise ValueError(f"'{ast.unparse(tree)}' is not understood; use names, numbers, + - * / ** and functions")


def replaced(expression: Any, names: Mapping[Any, Any]) -> Any:
    """The expression with symbols or numbers exchanged; Any, as sympy's own type of it is too wide."""
    return expression.xreplace(names)


def _real(expression: sympy.Expr) -> sympy.Expr:
    return replaced(expression, {symbol: sympy.Symbol(str(symbol), real=True) for symbol in expression.free_symbols})


def _interpolated(expression: sympy.Expr, symbol: sympy.Symbol, few: list[sympy.Rational]) -> sympy.Expr:
    """The polynomial in `symbol` that is the expression on its few values (Lagrange)."""
    if symbol not in expression.free_symbols:
        return expression
    parts = []
    for value in few:
        others = [other for other in few if other != value]
        basis = math.prod(((symbol - other) / (value - other) for other in others), start=sympy.Integer(1))
        at = (term.subs(symbol, value) for term in sympy.Add.make_args(_expanded(expression)))
        parts += [basis * term for term in at if not term.has(sympy.zoo, sympy.nan, sympy.oo)]
    return sympy.Add(*parts)


def _expanded(expression: sympy.Expr) -> sympy.Expr:
    powers = [abs(power.exp) for power in expression.atoms(sympy.Pow) if power.exp.is_number]
    return expression if expression.count_ops() > 400 or max(powers, default=0) >= DEGREE else sympy.expand(expression)


def _terms(expression: sympy.Expr) -> dict[sympy.Expr, sympy.Expr]:
    """Term -> its coefficient, of the expression multiplied out."""
    found: dict[sympy.Expr, sympy.Expr] = {}
    for term in sympy.Add.make_args(_expanded(expression)):
        factor, rest = _coefficient(term)
        found[rest] = found.get(rest, sympy.Integer(0)) + factor
    return {rest: factor for rest, factor in found.items() if factor != 0}


def _size(values: np.ndarray) -> float:
    """Root mean square of what is finite; inf where nothing is."""
    finite = np.abs(values[np.isfinite(values)])
    if not len(finite):
        return math.inf
    largest = float(finite.max())  # its square may be too large a number
    return largest * float(np.sqrt(np.mean((finite / largest) ** 2))) if largest else 0.0


def _exact(number: sympy.Expr | float, digits: int) -> Any:
    return sympy.Rational(f"{float(number):.{digits - 1}e}")


def _rounded(expression: sympy.Expr, digits: int) -> sympy.Expr:
    return replaced(expression, {number: _exact(number, digits) for number in expression.atoms(sympy.Float)})


def _factored(shares: sympy.Expr, lead: sympy.Expr, digits: int) -> sympy.Expr:
    """lead times the factors of `shares`, sums with unwieldy integers measured by their largest."""
    number, rest = _coefficient(sympy.factor(shares))
    number, factors = number * lead, []
    for factor in sympy.Mul.make_args(rest):
        base, power = factor.as_base_exp()
        heads = [abs(_coefficient(term)[0]) for term in sympy.Add.make_args(base)]
        if base.is_Add and power.is_integer and max(head.p for head in heads) > UNWIELDY:
            number *= max(heads) ** power
            base = sympy.Add(*(_exact(a / max(heads), digits) * b for a, b in map(_coefficient, base.args)))
        factors.append(base**power)
    # a decimal, as sympy multiplies sums out by fractions
    number = _exact(number, digits)
    return sympy.Mul(number if number.is_Integer else sympy.Float(number, digits), *factors)


def _coefficient(term: Any) -> tuple[Any, Any]:
    return term.as_coeff_Mul()


def _plain(expression: sympy.Expr, digits: int) -> sympy.Expr:
    """In symbols without assumptions; fractions that stand for measured numbers as decimals."""
    # halves may be exponents
    decimals = {number: sympy.Float(number, digits) for number in expression.atoms(sympy.Rational) if number.q > 2}
    named = {symbol: sympy.Symbol(str(symbol)) for symbol in expression.free_symbols}
    return replaced(expression, decimals | named)
