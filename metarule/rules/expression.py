"""Expression: the change is a program of operators on signals and constants, and a search may rewrite the program."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import sympy
import torch
from torch import Tensor

from metarule import programs
from metarule.collect import unknown
from metarule.params import Param, starts
from metarule.program_text import Assembled, assembled
from metarule.programs import EVENT, OPERATORS, POST, PRE
from metarule.rules.base import Rule
from metarule.signals import Change, Signals
from metarule.terms import FACTORS, TERMS, combine

AXES = {"post": EVENT | POST, "pre": EVENT | PRE, "event": EVENT, "synapse": POST | PRE}


@dataclass(frozen=True)
class Expression(Rule):
    """dW = rate <out>, a mean over events; out is a slot of a program with `nodes` nodes (Cartesian GP).

    Slots: `inputs`, memories m0.., constants c0.., node0.. . Node n applies one of `operators` to slots before it.
    Inputs are names of `terms.FACTORS`, per event, or else of `terms.TERMS`, which enter as their mean over the
    batch: "error_pre" is the minibatch gradient that optimizers work on. a / 0 is 0, sqrt takes the absolute value;
    whatever else is not finite makes the run diverge.
    `memory` adds numbers that every synapse keeps, 0 at first: m_k <- <out.m_k>, all outputs read the old ones.
    With them (or with terms, whose means are not one event's signals) there is no `equation`; `expressions` says all.
    `program` says where a search starts, in text, as `row` reads it: { m0 = "0.9 * m0 + error_pre", out = "m0" }.
    Raises ValueError on unknown names, an input twice, or a program that does not fit.
    """

    kind = "expression"
    source = "Jordan, Schmidt, Senn and Petrovici 2021; Miller and Thomson 2000"

    inputs: tuple[str, ...] = ("pre", "post", "weight")
    operators: tuple[str, ...] = ("add", "sub", "mul", "div")
    nodes: int = 12
    constants: int = 1
    memory: int = 0
    rate: float = 0.01
    program: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for owner, given, allowed in (
            ("rule.inputs", self.inputs, {**FACTORS, **TERMS}),
            ("rule.operators", self.operators, OPERATORS),
        ):
            if not given:
                raise ValueError(f"{owner} is empty; name at least one of {', '.join(allowed)}")
            for name in given:
                if name not in allowed:
                    raise ValueError(unknown(owner, name, allowed))
            if len(set(given)) < len(given):
                raise ValueError(f"{owner} = {list(given)} names one twice")
        for name, least in (("nodes", 1), ("constants", 0), ("memory", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"rule.{name} = {getattr(self, name)} must be at least {least}")
        if self.rate <= 0:
            raise ValueError(f"rule.rate = {self.rate} must be positive")
        if self.program:
            self.row(self.program)

    @functools.cached_property
    def leaves(self) -> tuple[str, ...]:
        """The slots before the nodes: inputs, memories, constants."""
        memories = tuple(f"m{k}" for k in range(self.memory))
        return (*self.inputs, *memories, *(f"c{k}" for k in range(self.constants)))

    @functools.cached_property
    def outputs(self) -> tuple[str, ...]:
        """The genes that say which slot is the change, and which the new memories."""
        return ("out", *(f"out.m{k}" for k in range(self.memory)))

    @functools.cached_property
    def _params(self) -> tuple[Param, ...]:
        slots = (*self.leaves, *(f"node{n}" for n in range(self.nodes)))
        genes = []
        for n in range(self.nodes):
            before = slots[: len(self.leaves) + n]
            genes.append(Param(f"node{n}.op", choices=self.operators))
            genes += [Param(f"node{n}.{operand}", choices=before) for operand in ("a", "b")]
        genes += [Param(name, choices=slots) for name in self.outputs]
        genes += [Param(f"c{k}", start=1.0) for k in range(self.constants)]
        return (*genes, Param("rate", start=self.rate, log=True))

    @property
    def params(self) -> tuple[Param, ...]:
        if not self.program:
            return self._params
        row = self.row(self.program).tolist()
        return tuple(
            Param(param.name, value, log=param.log, choices=param.choices)
            for param, value in zip(self._params, row, strict=True)
        )

    @property
    def reads(self):
        return frozenset().union(*((FACTORS.get(name) or TERMS[name]).reads for name in self.inputs))

    @property
    def per_synapse(self):
        return self.nodes + 2 * self.memory

    @property
    def local(self):
        return all((FACTORS.get(name) or TERMS[name]).local for name in self.inputs)

    def init(self, theta, weight):
        return {f"m{k}": torch.zeros_like(weight) for k in range(self.memory)}

    def delta(self, theta, signals, state, noise):
        genes, values = self._split(theta)
        leaves = [self._input(name, signals) for name in self.inputs]
        leaves += [state[f"m{k}"][:, None] for k in range(self.memory)]
        leaves += [values[:, k, None, None, None] for k in range(self.constants)]
        _, size_out, size_in = signals.weight.shape
        sizes = (max(leaf.shape[1] for leaf in leaves), size_out, size_in)
        columns = np.ascontiguousarray(genes)
        plan = programs.remembered(
            columns.tobytes(), len(columns), self.nodes, self._axes(sizes), self.operators, theta.device
        )
        out, *memories = (
            self._mean(parts, order, signals.weight)
            for parts, (_, order) in zip(programs.run(plan, leaves, sizes), plan.outputs, strict=True)
        )
        return Change(full=values[:, -1, None, None] * out), {f"m{k}": value for k, value in enumerate(memories)}

    def _split(self, theta: Tensor) -> tuple[np.ndarray, Tensor]:
        """The genes of the program as integers, and the columns of real numbers."""
        cut = 3 * self.nodes + len(self.outputs)
        return theta[:, :cut].detach().round().to("cpu", torch.int64).numpy(), theta[:, cut:]

    def _input(self, name: str, signals: Signals) -> Tensor:
        if name not in FACTORS:
            one = signals.weight.new_ones(len(signals.weight), 1)
            return combine((TERMS[name],), one, signals).tensor(signals.weight)[:, None]
        return programs.leaf(name, signals)

    def _axes(self, sizes: tuple[int, int, int]) -> tuple[int, ...]:
        every = EVENT | POST | PRE
        if sizes[0] * sizes[1] * sizes[2] <= programs.SMALL:
            return (every,) * len(self.leaves)
        there = sum(bit for size, bit in zip(sizes, (EVENT, POST, PRE), strict=True) if size > 1)
        known = [AXES[FACTORS[name].side] if name in FACTORS else POST | PRE for name in self.inputs]
        return tuple(axes & there for axes in (*known, *[POST | PRE] * self.memory, *[0] * self.constants))

    @staticmethod
    def _mean(parts: list[Tensor], order: Tensor, weight: Tensor) -> Tensor:
        """Means over events, (R I J), in the order of runs."""
        whole = [part.mean(1).expand(-1, *weight.shape[1:]) for part in parts]
        return whole[0] if len(whole) == 1 else torch.cat(whole)[order]

    def complexity(self, theta):
        code = programs.unpacked(self._split(theta)[0], self.nodes)
        needed = programs.active(code, len(self.leaves), self.operators)[:, len(self.leaves) :]
        return torch.as_tensor(needed.sum(1), dtype=theta.dtype, device=theta.device)

    def expressions(self, theta):
        genes, values = self._split(theta[None])
        numbers = [sympy.Float(value) for value in values[0].tolist()]
        code = programs.unpacked(genes, self.nodes)
        needed = programs.active(code, len(self.leaves), self.operators)[0].tolist()
        names = self.leaves[: len(self.leaves) - self.constants]
        slots = [*(sympy.Symbol(name) for name in names), *numbers[: self.constants]]
        for n in range(self.nodes):
            if not needed[len(self.leaves) + n]:
                slots.append(sympy.Integer(0))
                continue
            operator = OPERATORS[self.operators[code.operators[0, n]]]
            slots.append(operator.symbol(*(slots[k] for k in (code.first[0, n], code.second[0, n])[: operator.arity])))
        change, *memories = (slots[slot] for slot in code.outputs[0])
        return {"dW": numbers[-1] * change} | {f"m{k}": value for k, value in enumerate(memories)}

    def equation(self, theta, shape):
        change = self.expressions(theta)["dW"]
        named = {str(symbol) for symbol in change.free_symbols}
        return None if self.memory or not named <= FACTORS.keys() else change

    def row(self, program: Mapping[str, str], values: Mapping[str, float] | None = None, rate: float | None = None):
        """A row of theta (P) from readable text, { out = "post * (pre - post * weight)" }.

        `out` is the change, `m0`.. are the new memories (left out: kept), any other key is a name for what follows;
        `values` gives names to numbers. Equal parts are computed once. Raises ValueError where it does not fit.
        """
        made: Assembled = assembled(program, self.leaves, self.constants, self.operators, self.nodes, values or {})
        for name in program:
            if name in self.leaves and f"out.{name}" not in self.outputs:
                raise ValueError(f"program.{name} is an input or a constant; give what is computed another name")
            if name not in self.leaves and re.fullmatch(r"m\d+", name):
                raise ValueError(f"program.{name} is a memory, and rule.memory = {self.memory}; raise it")
        theta = starts(self._params)
        for n, (operator, a, b) in enumerate(made.nodes):
            theta[3 * n : 3 * n + 3] = torch.tensor([operator, a, b], dtype=theta.dtype)
        cut = 3 * self.nodes
        for k, name in enumerate(self.outputs):
            key = name.removeprefix("out.")
            theta[cut + k] = float(made.slots[key]) if key in made.slots else float(self.leaves.index(key))
        cut += len(self.outputs)
        theta[cut : cut + len(made.numbers)] = torch.tensor(made.numbers, dtype=theta.dtype)
        theta[-1] = self.rate if rate is None else rate
        return theta
