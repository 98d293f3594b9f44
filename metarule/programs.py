"""Straight-line programs, one per run: which slots feed which operators, and all of them evaluated at once.

A program has L leaves and N nodes; node n applies one operator to one or two slots before it. Runs with different
programs are evaluated together: what is active in any run is sorted by depth, operator and shape, and each group
takes one call of torch. No loop over runs, nothing computed that no output needs.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import sympy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.signals import Signals
from metarule.terms import FACTORS


class Operator(NamedTuple):
    """An operator on tensors and on expressions; `arity` operands."""

    arity: int
    value: Callable[..., Tensor]
    symbol: Callable[..., sympy.Expr]


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    none = b == 0  # nan is not 0: a diverged run must not look calm
    return torch.where(none, torch.zeros_like(b), a / torch.where(none, torch.ones_like(b), b))


def _root(a: Tensor) -> Tensor:
    none = a == 0  # the slope there is infinite, and infinite times 0 would be no gradient at all
    return torch.where(none, torch.zeros_like(a), torch.where(none, torch.ones_like(a), a.abs()).sqrt())


OPERATORS: dict[str, Operator] = {
    "add": Operator(2, torch.add, operator.add),
    "sub": Operator(2, torch.sub, operator.sub),
    "mul": Operator(2, torch.mul, operator.mul),
    # a / 0 = 0: what is always blank says nothing
    "div": Operator(2, _quotient, lambda a, b: sympy.Integer(0) if b == 0 else a / b),
    "max": Operator(2, torch.maximum, lambda a, b: (a + b + sympy.Abs(a - b)) / 2),
    "min": Operator(2, torch.minimum, lambda a, b: (a + b - sympy.Abs(a - b)) / 2),
    "neg": Operator(1, torch.neg, lambda a: -a),
    "square": Operator(1, torch.square, lambda a: a**2),
    "sqrt": Operator(1, _root, lambda a: sympy.sqrt(sympy.Abs(a))),
    "abs": Operator(1, torch.abs, sympy.Abs),
    "sign": Operator(1, torch.sign, sympy.sign),
    "tanh": Operator(1, torch.tanh, sympy.tanh),
    "exp": Operator(1, torch.exp, sympy.exp),
}

EVENT, POST, PRE = 1, 2, 4
"""The axes that a value has, as bits: of events, of post units, of pre units."""

SMALL = 256
"""Values of at most this many numbers per run are all kept whole: calls cost more than numbers there."""


def leaf(name: str, signals: Signals) -> Float[Tensor, "R B I J"]:
    """A factor of the vocabulary with all axes, (R B|1 I|1 J|1)."""
    value, side = FACTORS[name].value(signals), FACTORS[name].side
    return value[:, None] if side == "synapse" else value[:, :, None] if side == "pre" else value[..., None]


class Code(NamedTuple):
    """Programs as integers: operator, first and second slot of every node (R N), and the slots of the outputs (R K)."""

    operators: Int[np.ndarray, "R N"]
    first: Int[np.ndarray, "R N"]
    second: Int[np.ndarray, "R N"]
    outputs: Int[np.ndarray, "R K"]


def active(code: Code, leaves: int, names: Sequence[str]) -> np.ndarray:
    """Which slots each run's outputs need, (R L+N); `names` are the operators that the code counts."""
    runs, nodes = code.operators.shape
    binary = np.array([OPERATORS[name].arity == 2 for name in names])[code.operators]
    needed = np.zeros((runs, leaves + nodes), dtype=bool)
    every = np.arange(runs)
    needed[every[:, None], code.outputs] = True
    for node in reversed(range(nodes)):
        used = every[needed[:, leaves + node]]
        needed[used, code.first[used, node]] = True
        used = used[binary[used, node]]
        needed[used, code.second[used, node]] = True
    return needed


class _Rows(NamedTuple):
    """Where operands lie: rows of the pool of values with these axes; a slice where they follow one another."""

    axes: int
    rows: Tensor | slice


class _Group(NamedTuple):
    name: str
    operands: tuple[_Rows, ...]
    axes: int


class Plan(NamedTuple):
    """What to compute: leaves by their axes, groups of equal work level by level, and where each output's runs lie."""

    leaves: tuple[tuple[int, tuple[int, ...]], ...]
    levels: tuple[tuple[_Group, ...], ...]
    outputs: tuple[tuple[tuple[_Rows, ...], Tensor], ...]


def planned(code: Code, leaf_axes: Sequence[int], names: Sequence[str], device: torch.device) -> Plan:
    """The plan for programs whose leaves have these axes."""
    leaves, (runs, nodes) = len(leaf_axes), code.operators.shape
    needed = active(code, leaves, names)
    every = np.arange(runs)
    binary = np.array([OPERATORS[name].arity == 2 for name in names])[code.operators]
    second = np.where(binary, code.second, code.first)
    axes, depth = (np.zeros((runs, leaves + nodes), dtype=np.int64) for _ in range(2))
    axes[:, :leaves] = np.asarray(leaf_axes)
    for node in range(nodes):
        a, b = code.first[:, node], second[:, node]
        axes[:, leaves + node] = axes[every, a] | axes[every, b]
        depth[:, leaves + node] = 1 + np.maximum(depth[every, a], depth[every, b])
    place = np.zeros((runs, leaves + nodes), dtype=np.int64)
    filled: dict[int, int] = {}

    def put(kind: int, run: np.ndarray, slot: np.ndarray | int) -> None:
        place[run, slot] = filled.get(kind, 0) + np.arange(len(run))
        filled[kind] = filled.get(kind, 0) + len(run)

    pooled: dict[int, list[int]] = {}
    for slot in np.flatnonzero(needed[:, :leaves].any(0)).tolist():
        pooled.setdefault(leaf_axes[slot], []).append(slot)
        put(leaf_axes[slot], every, slot)

    run, node = np.nonzero(needed[:, leaves:])
    keys = np.stack(
        [
            depth[run, leaves + node],
            code.operators[run, node],
            axes[run, code.first[run, node]],
            axes[run, second[run, node]],
        ]
    )
    levels: dict[int, list[_Group]] = {}
    for key in np.unique(keys, axis=1).T.tolist():
        level, code_of, axes_a, axes_b = key
        chosen = (keys == np.array(key)[:, None]).all(0)
        r, n, name = run[chosen], node[chosen], names[int(code_of)]
        operands = [_rows(axes_a, place[r, code.first[r, n]], device)]
        if OPERATORS[name].arity == 2:
            operands.append(_rows(axes_b, place[r, second[r, n]], device))
        put(axes_a | axes_b, r, leaves + n)
        levels.setdefault(level, []).append(_Group(name, tuple(operands), axes_a | axes_b))

    outputs = []
    for slots in code.outputs.T:
        kinds = axes[every, slots]
        parts = [every[kinds == kind] for kind in np.unique(kinds)]
        rows = tuple(_rows(int(kinds[part[0]]), place[part, slots[part]], device) for part in parts)
        outputs.append((rows, torch.as_tensor(np.argsort(np.concatenate(parts)), device=device)))
    return Plan(
        tuple((kind, tuple(slots)) for kind, slots in pooled.items()),
        tuple(tuple(levels[level]) for level in sorted(levels)),
        tuple(outputs),
    )


def _rows(axes: int, rows: np.ndarray, device: torch.device) -> _Rows:
    start = int(rows[0])
    if np.array_equal(rows, np.arange(start, start + len(rows))):
        return _Rows(axes, slice(start, start + len(rows)))
    return _Rows(axes, torch.as_tensor(rows, device=device))


@functools.lru_cache(maxsize=64)
def remembered(
    code: bytes, runs: int, nodes: int, leaf_axes: tuple[int, ...], names: tuple[str, ...], device: torch.device
) -> Plan:
    """`planned` of programs that stay the same from step to step: the code as bytes, so that it is found again."""
    return planned(unpacked(np.frombuffer(code, dtype=np.int64).reshape(runs, -1), nodes), leaf_axes, names, device)


def unpacked(columns: Int[np.ndarray, "R 3N+K"], nodes: int) -> Code:
    """Code from columns operator, first, second of node 0, of node 1, ..., and then the outputs."""
    body = columns[:, : 3 * nodes].reshape(len(columns), nodes, 3)
    return Code(body[:, :, 0], body[:, :, 1], body[:, :, 2], columns[:, 3 * nodes :])


def run(plan: Plan, leaves: Sequence[Tensor], sizes: tuple[int, int, int]) -> list[list[Tensor]]:
    """Every output's parts, (n B|1 I|1 J|1) each, n runs; `joined` puts them in the order of runs.

    Leaves are (R B|1 I|1 J|1). Memory: the active nodes of all runs, each as large as the axes that it has.
    """
    pools = {axes: _cat([_spread(leaves[slot], axes, sizes) for slot in slots]) for axes, slots in plan.leaves}
    for level in plan.levels:
        made: dict[int, list[Tensor]] = {}
        for group in level:
            operands = [pools[part.axes][part.rows] for part in group.operands]
            made.setdefault(group.axes, []).append(OPERATORS[group.name].value(*operands))
        for axes, values in made.items():
            pools[axes] = _cat([pools[axes], *values] if axes in pools else values)
    return [[pools[part.axes][part.rows] for part in parts] for parts, _ in plan.outputs]


def _spread(leaf: Tensor, axes: int, sizes: tuple[int, int, int]) -> Tensor:
    shape = [size if axes & bit else 1 for size, bit in zip(sizes, (EVENT, POST, PRE), strict=True)]
    return leaf.expand(len(leaf), *shape)


def _cat(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.cat(values)
