"""Mlp: a small network of the local signals, the same at every synapse, computes the change."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import check_chosen, unknown
from metarule.nonlinearities import NONLINEARITIES
from metarule.params import Param
from metarule.rng import seed_number
from metarule.rules.base import Rule
from metarule.signals import Change, Signals
from metarule.terms import FACTORS, events, glorot

LOCAL = tuple(name for name, factor in FACTORS.items() if factor.local)
"""What a rule of this family may read: all that is at hand at a synapse."""

PIECE = 1 << 16
"""Activities per run computed together: the events are cut so that no piece has more, unless one event has."""


class Layer(NamedTuple):
    """One layer of a rule's network: weights (R units inputs) and biases (R units)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Mlp(Rule):
    """dW_ij = rate s <network(signals of i, j and w_ij / s)>, the mean over events, with s = sqrt(2 / (I + J)).

    `hidden` layers of `activation`, then one linear unit; () is a linear function of the inputs, with an equation. All
    weights are theta's columns: "hidden1_3_pre" leads from the input `pre` to unit 3, "output_3" from there to the
    change, "..._bias" are biases. They start at fixed numbers, small and different, or units would never part; an
    output near 0 makes the rule at the start a weak one. `normalise = false` leaves out s.
    A pass takes R events I J units numbers, in pieces of events of at most R max(I J units, PIECE) where no gradient is
    wanted. Raises ValueError on an input that is not local, unknown, repeated or missing, and on an empty layer.
    """

    kind = "mlp"
    source = "Runarsson and Jonsson 2000; Orchard and Wang 2016"

    inputs: tuple[str, ...] = ("pre", "post", "error", "weight")
    hidden: tuple[int, ...] = (8,)
    activation: str = "tanh"
    rate: float = 0.1
    normalise: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_chosen("rule.inputs", self.inputs, LOCAL, "signal")
        if any(units < 1 for units in self.hidden):
            raise ValueError(f"rule.hidden = {list(self.hidden)}: a layer has at least one unit")
        if self.activation not in NONLINEARITIES:
            raise ValueError(unknown("rule.activation", self.activation, NONLINEARITIES))
        if self.rate <= 0:
            raise ValueError(f"rule.rate = {self.rate} must be positive")

    @functools.cached_property
    def _params(self) -> tuple[Param, ...]:
        made: list[Param] = []
        sources: tuple[str, ...] = self.inputs
        for layer, units in enumerate(self.hidden, start=1):
            reach = 1 / math.sqrt(len(sources))
            for unit in range(units):
                names = [f"hidden{layer}_{unit}_{source}" for source in (*sources, "bias")]
                made += [Param(name, reach * _spread(name), self.scale) for name in names]
            sources = tuple(str(unit) for unit in range(units))
        names = [f"output_{source}" for source in (*sources, "bias")]
        return (*made, *(Param(name, 0.1 * _spread(name), self.scale) for name in names))

    @property
    def params(self):
        return self._params

    @property
    def reads(self):
        return frozenset(signal for name in self.inputs for signal in FACTORS[name].reads)

    @property
    def per_synapse(self):
        return 2 * sum(self.hidden)  # of one event: drive and activity of every unit

    def fitted(self, given):
        heard = tuple(name for name in self.inputs if {*FACTORS[name].reads} <= given)
        if not heard:
            raise ValueError(f"rule.inputs = {list(self.inputs)} are none of the signals {', '.join(sorted(given))}")
        return replace(self, inputs=heard)

    def delta(self, theta, signals, state, noise):
        runs, size_out, size_in = signals.weight.shape
        scale = glorot(size_out, size_in) if self.normalise else 1.0
        *hidden, output = self._layers(theta)
        inputs = [_aligned(name, signals, scale) for name in self.inputs]
        count = events(signals)
        piece = max(PIECE // (size_out * size_in * max(self.hidden, default=1)), 1)
        total: Tensor | None = None
        for first in range(0, count, piece):
            part = [value if value.shape[1] == 1 else value[:, first : first + piece] for value in inputs]
            answer = self._answer(part, hidden, output)
            # inputs without events, the weight alone, give one answer for all of them
            answer = answer.sum(1) if answer.shape[1] > 1 else answer[:, 0] * (min(first + piece, count) - first)
            total = answer if total is None else total + answer
        assert total is not None
        change = (total / count + output.bias[:, :, None]) * (self.rate * scale)
        return Change(full=change.expand(runs, size_out, size_in)), state

    def equation(self, theta, shape):
        if self.hidden:
            return None
        scale = glorot(*shape) if self.normalise else 1.0
        *weights, bias = theta.tolist()
        parts = [
            weight / (scale if FACTORS[name].side == "synapse" else 1.0) * sympy.Symbol(name)
            for name, weight in zip(self.inputs, weights, strict=True)
        ]
        return sympy.Add(bias, *parts) * (self.rate * scale)

    def _layers(self, theta: Float[Tensor, "R P"]) -> list[Layer]:
        layers, first, sources = [], 0, len(self.inputs)
        for units in (*self.hidden, 1):
            last = first + units * (sources + 1)
            block = theta[:, first:last].unflatten(1, (units, sources + 1))
            layers.append(Layer(block[:, :, :-1], block[:, :, -1]))
            first, sources = last, units
        return layers

    def _answer(self, inputs: list[Tensor], hidden: list[Layer], output: Layer) -> Float[Tensor, "R B I J"]:
        """The output unit before its bias, from inputs that are broadcast against each other."""
        if not hidden:
            return _weighted(inputs, output.weight, None)[..., 0]
        first, *others = hidden
        rate = NONLINEARITIES[self.activation].rate
        units = rate(_weighted(inputs, first.weight, first.bias), 1.0)
        for layer in others:
            flat = torch.baddbmm(layer.bias[:, None], units.flatten(1, 3), layer.weight.transpose(1, 2))
            units = rate(flat.unflatten(1, units.shape[1:4]), 1.0)
        return torch.bmm(units.flatten(1, 3), output.weight.transpose(1, 2)).unflatten(1, units.shape[1:4])[..., 0]


def _weighted(inputs: list[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """sum_k weight_k input_k + bias, a last axis of units added; small sums first, the broadcast ones last."""
    total = None if bias is None else bias[:, None, None, None]
    for k, value in sorted(enumerate(inputs), key=lambda item: item[1].numel()):
        part = value[..., None] * weight[:, None, None, None, :, k]
        total = part if total is None else total + part
    assert total is not None
    return total


def _aligned(name: str, signals: Signals, scale: float) -> Float[Tensor, "R B I J"]:
    """A factor with axes of size 1 where it does not vary."""
    value, side = FACTORS[name].value(signals), FACTORS[name].side
    if side == "synapse":
        return value[:, None] / scale
    return value[:, :, None] if side == "pre" else value[..., None]


def _spread(name: str) -> float:
    """A fixed number in [-1, 1) that belongs to a name."""
    return seed_number("mlp", name) / 2**30 - 1
