"""Programs written as text, read without running it: "post * (pre - post * weight)" becomes nodes of a program."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from metarule.collect import unknown
from metarule.programs import OPERATORS

BINARY: dict[type[ast.operator], str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}


class Assembled(NamedTuple):
    """Nodes (operator, first, second slot), the slot of every output, and the constants in use."""

    nodes: list[tuple[int, int, int]]
    slots: dict[str, int]
    numbers: list[float]


def assembled(
    program: Mapping[str, str],
    leaves: Sequence[str],
    constants: int,
    operators: Sequence[str],
    nodes: int,
    values: Mapping[str, float],
) -> Assembled:
    """Read a program: an expression per name, "out" among them, later ones may use earlier names.

    The last `constants` of `leaves` hold its numbers. Raises ValueError where something is not understood or does not
    fit.
    """
    if "out" not in program:
        raise ValueError(f"program = {dict(program)} has no 'out'; it is the change")
    reader = _Reader(leaves, constants, operators, values)
    for name, text in program.items():
        try:
            tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"program.{name} = '{text}' is not an expression: {error.msg}") from error
        try:
            reader.names[name] = reader.part(tree, name)
        except OverflowError as error:
            raise ValueError(f"program.{name} = '{text}' has a number that is too large") from error
    outputs = [name for name in program if name == "out" or name in leaves]
    slots = {name: reader.slot(reader.names[name]) for name in outputs}
    if len(reader.nodes) > nodes:
        raise ValueError(f"the program needs {len(reader.nodes)} nodes; rule.nodes = {nodes}, raise it")
    if not all(map(math.isfinite, reader.numbers)):
        raise ValueError(f"program = {dict(program)} has a number that is too large")
    if len(reader.numbers) > constants:
        raise ValueError(f"the program needs {len(reader.numbers)} numbers; rule.constants = {constants}, raise it")
    return Assembled(reader.nodes, slots, reader.numbers)


class _Reader:
    """Turns trees into slots, equal parts into one; a part that is still a number has no slot yet."""

    def __init__(
        self, leaves: Sequence[str], constants: int, operators: Sequence[str], values: Mapping[str, float]
    ) -> None:
        self.leaves, self.operators, self.values = list(leaves), list(operators), values
        self.first_number = len(leaves) - constants
        self.names: dict[str, int | float] = {}
        self.nodes: list[tuple[int, int, int]] = []
        self.numbers: list[float] = []

    def part(self, tree: ast.expr, owner: str) -> int | float:
        """The slot (int) or the number (float) of an expression."""
        match tree:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return float(number)
            case ast.Name(id=name):
                return self._named(name, owner)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                operand = self.part(inner, owner)
                return -operand if isinstance(operand, float) else self._node("neg", [operand], owner)
            case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int() as power)) if power > 0:
                return self._power(self.part(base, owner), power, owner)
            case ast.BinOp(left=left, op=symbol, right=right) if type(symbol) in BINARY:
                return self._applied(BINARY[type(symbol)], [self.part(left, owner), self.part(right, owner)], owner)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                if name not in OPERATORS or OPERATORS[name].arity != len(arguments):
                    allowed = [f"{name}({', '.join('ab'[: op.arity])})" for name, op in OPERATORS.items()]
                    raise ValueError(unknown(f"program.{owner}: a call", ast.unparse(tree), allowed))
                return self._applied(name, [self.part(argument, owner) for argument in arguments], owner)
        raise ValueError(
            f"program.{owner}: '{ast.unparse(tree)}' is not understood; use names, numbers, + - * / **, "
            f"and {', '.join(name for name in OPERATORS)}"
        )

    def slot(self, part: int | float) -> int:
        """The slot of a part; a number takes the next constant."""
        if isinstance(part, int):
            return part
        if part not in self.numbers:
            self.numbers.append(part)
        return self.first_number + self.numbers.index(part)

    def _named(self, name: str, owner: str) -> int | float:
        readable = self.leaves[: self.first_number]
        if name in readable:  # m0 is the memory as it was, also after its new value was written down
            return readable.index(name)
        if name in self.values:
            return float(self.values[name])
        if name in self.names:
            return self.names[name]
        raise ValueError(unknown(f"program.{owner}: a name", name, {*readable, *self.values, *self.names}))

    def _power(self, base: int | float, power: int, owner: str) -> int | float:
        if isinstance(base, float):
            return base**power
        if power == 1:
            return base
        if power % 2 == 0:
            half = self._power(base, power // 2, owner)
            assert isinstance(half, int)
            if "square" in self.operators:
                return self._node("square", [half], owner)
            return self._node("mul", [half, half], owner)
        rest = self._power(base, power - 1, owner)
        assert isinstance(rest, int)
        return self._node("mul", [rest, base], owner)

    def _applied(self, name: str, parts: list[int | float], owner: str) -> int | float:
        match name, parts:
            case "add", [float(a), float(b)]:
                return a + b
            case "sub", [float(a), float(b)]:
                return a - b
            case "mul", [float(a), float(b)]:
                return a * b
            case "div", [float(a), float(b)] if b != 0:
                return a / b
        return self._node(name, [self.slot(part) for part in parts], owner)

    def _node(self, name: str, operands: list[int], owner: str) -> int:
        if name not in self.operators:
            raise ValueError(unknown(f"program.{owner}: an operator", name, self.operators))
        node = (self.operators.index(name), operands[0], operands[-1])
        if node not in self.nodes:
            self.nodes.append(node)
        return len(self.leaves) + self.nodes.index(node)
