"""Equations as MathML, printed from their text by our own grammar: nothing in the text is ever run."""

from __future__ import annotations

import ast
import re

from metarule.inspection.markup import Html, joined, tag

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_GREEK = {"sigma": "σ", "alpha": "α", "beta": "β", "theta": "θ", "eta": "η", "tau": "τ"}
_SUM, _PRODUCT, _POWER, _ATOM = range(4)

Printed = tuple[Html, int]
"""MathML and how tightly it binds: what binds less is put into parentheses."""


def formula(name: str, text: str) -> Html | None:
    """`name` = `text` as MathML, one element per term so that long sums wrap; None where it is not understood."""
    try:
        tree = ast.parse(_python(text), mode="eval").body
        parts = [tag("math", _name(name), _operator("="))]
        for place, (sign, term) in enumerate(_summands(tree)):
            shown = [_operator(sign)] if place or sign == "−" else []
            parts.append(tag("math", *shown, _within(_printed(term), _PRODUCT)))
    except (SyntaxError, ValueError, RecursionError):
        return None
    return tag("span", *joined(" ", parts), class_="formula", role="math", aria_label=f"{name} = {text}")


def sides(equation: str) -> list[tuple[str, str, str]]:
    """(rule, name, right-hand side) of every equation in a printed one: "forward: dW = error·pre; m0 = post"."""
    found = []
    for line in equation.splitlines():
        key, _, rest = line.rpartition(": ")
        for part in rest.split("; "):
            name, equals, right = part.partition(" = ")
            if equals:
                found.append((key, name.strip(), right))
    return found


def _python(text: str) -> str:
    powers = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda power: "**" + power[0].translate(_SUPERSCRIPT), text)
    return powers.replace("·", "*").replace("^", "**").replace("−", "-").strip()


def _summands(tree: ast.expr) -> list[tuple[str, ast.expr]]:
    """The sum as (sign, term) pairs, from left to right."""
    match tree:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _summands(left) + _summands(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return [*_summands(left), *((_turned(sign), term) for sign, term in _summands(right))]
        case ast.UnaryOp(op=ast.USub(), operand=inner) if not _is_sum(inner):
            return [("−", inner)]
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
            (sign, first), *more = _summands(left)
            if sign == "−" and not more:  # -a b is -(a b)
                return [("−", ast.BinOp(first, op, right))]
    return [("+", tree)]


def _is_sum(tree: ast.expr) -> bool:
    return isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Add, ast.Sub))


def _turned(sign: str) -> str:
    return "+" if sign == "−" else "−"


def _printed(tree: ast.expr) -> Printed:
    match tree:
        case ast.Constant(value=int() | float() as number):
            return _number(number), _ATOM
        case ast.Name(id=name):
            return _name(name), _ATOM
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return tag("mrow", _operator("−"), _within(_printed(inner), _PRODUCT)), _SUM
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            row: list[Html] = []
            for place, (sign, term) in enumerate(_summands(tree)):
                row += [_operator(sign)] if place or sign == "−" else []
                row.append(_within(_printed(term), _PRODUCT))
            return tag("mrow", *row), _SUM
        case ast.BinOp(left=ast.Constant(value=1), op=ast.Mult(), right=right):  # 1.0 too: they are equal
            return _printed(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            factors = _within(_printed(left), _PRODUCT), _within(_printed(right), _PRODUCT)
            return tag("mrow", factors[0], tag("mspace", width="0.2em"), factors[1]), _PRODUCT
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return tag("mfrac", _row(left), _row(right)), _POWER
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return tag("msup", _within(_printed(left), _ATOM), _row(right)), _POWER
        case ast.Call(func=ast.Name(id="sqrt"), args=[inner], keywords=[]):
            return tag("msqrt", _row(inner)), _ATOM
        case ast.Call(func=ast.Name(id="Abs" | "abs"), args=[inner], keywords=[]):
            return tag("mrow", _operator("|"), _row(inner), _operator("|")), _ATOM
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            inside: list[Html] = []
            for place, argument in enumerate(arguments):
                inside += [_operator(",")] if place else []
                inside.append(_row(argument))
            return tag("mrow", tag("mi", name), _operator("("), *inside, _operator(")")), _ATOM
    raise ValueError(f"'{ast.unparse(tree)}' is not understood")


def _row(tree: ast.expr) -> Html:
    return tag("mrow", _printed(tree)[0])


def _within(printed: Printed, binding: int) -> Html:
    shown, own = printed
    return shown if own >= binding else tag("mrow", _operator("("), shown, _operator(")"))


def _operator(sign: str) -> Html:
    return tag("mo", sign, form="infix" if sign in "+−=" else None)


def _number(value: float) -> Html:
    """Three digits, powers of ten spelled out."""
    digits, _, power = f"{value:.3g}".partition("e")
    if not power:
        return tag("mn", digits)
    return tag("mrow", tag("mn", digits), _operator("×"), tag("msup", tag("mn", "10"), tag("mn", str(int(power)))))


def _name(name: str) -> Html:
    """A signal's name upright, what follows its underscore below the line; dW is the change of W."""
    if name == "dW":
        return tag("mrow", tag("mi", "Δ", mathvariant="normal"), tag("mi", "W"))
    first, _, below = name.partition("_")
    base = tag("mi", _GREEK.get(first, first), mathvariant="normal")
    return tag("msub", base, tag("mtext", below.replace("_", " "))) if below else base
