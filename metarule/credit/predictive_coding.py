"""Predictive coding: values settle between what is predicted from below and what prediction errors above ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarule.collect import unknown
from metarule.credit.base import CreditAssignment, Weights
from metarule.credit.feedback import EXPLICIT, Errors, forward_signals, output_error, target_of
from metarule.credit.settling import Circuit
from metarule.network import Activity
from metarule.params import Param
from metarule.signals import Signals

INFERRED = EXPLICIT - {"gain"}
"""The signals at values that inference has moved: their gain belongs to predictions, and is in the error already."""

PARAMS = (Param("inference_rate", start=0.1, log=True), Param("precision", start=1.0, log=True))
"""Step size of the values, and the weight pi of the output's loss in the energy."""

PREDICTIONS = ("fixed", "strict")


@dataclass(frozen=True)
class PredictiveCoding(CreditAssignment):
    """Values v_l descend the energy F = pi loss + sum_l |eps_l|^2 / 2, eps_l = v_l - f(W_l v_{l-1}), before W does.

    v_l += rate (-eps_l + W_{l+1}^T error_{l+1}), error_l = f' eps_l, at the output pi (target - output), `steps` times;
    pre = v_{l-1}. "strict" predictions follow the values; "fixed" ones, their f' and pre stay those of the feedforward
    pass: with top-down steps at rate 1 that is backprop. Skips and branches sum.
    Raises ValueError on unknown predictions or fewer than one step.
    """

    kind = "predictive_coding"
    source = "Whittington and Bogacz 2017; Millidge et al. 2020 (fixed prediction)"
    not_local = "Errors come through the transposed forward weights: weight transport."
    gives = INFERRED

    predictions: str = "fixed"
    steps: int = 20

    def __post_init__(self) -> None:
        if self.predictions not in PREDICTIONS:
            raise ValueError(unknown("credit.predictions", self.predictions, PREDICTIONS))
        if self.steps < 1:
            raise ValueError(f"credit.steps = {self.steps} must be at least 1")

    @property
    def params(self):
        return PARAMS

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        rate, precision = theta[:, :1, None], theta[:, 1:2, None]
        activity = network.forward(weights, batch.x)
        top = output_error(network, activity, batch)
        circuit = Circuit.around(network, weights, batch.x)
        if self.predictions == "fixed":
            values, errors = activity.rates, self._fixed(circuit, activity.rates, precision * top, rate)
        else:
            values = activity.rates | {network.output_name: target_of(batch)}
            for _ in range(self.steps):
                values = moved(circuit, values, mismatch(circuit, values, precision), rate)
            errors = mismatch(circuit, values, precision).errors
        return inferred_signals(circuit, weights, values, errors, wanted), state

    def _fixed(self, circuit: Circuit, rates: dict[str, Tensor], top: Tensor, rate: Tensor) -> Errors:
        network = circuit.network
        hidden = [population.name for population in reversed(network.populations[1:-1])]
        gains = {name: network.gain(name, rates) for name in hidden}
        surprises = {name: torch.zeros_like(rates[name]) for name in hidden}
        errors = {network.output_name: top}
        for _ in range(self.steps):
            for name in hidden:
                surprises[name] = torch.lerp(surprises[name], circuit.feedback(name, errors), rate)
                errors[name] = gains[name] * surprises[name]
        return errors


class Mismatch(NamedTuple):
    """Where values differ from predictions: surprise = value - prediction, error = f' surprise, (R B I) each."""

    surprises: dict[str, Tensor]
    errors: Errors


def mismatch(circuit: Circuit, values: Mapping[str, Tensor], precision: Tensor) -> Mismatch:
    """What every population's value and its prediction from the values below disagree about."""
    network = circuit.network
    surprises: dict[str, Tensor] = {}
    errors: Errors = {}
    for population in network.populations[1:]:
        name = population.name
        predicted = network.rate(name, circuit.drive(name, values))
        surprises[name] = values[name] - predicted
        weighting = precision if name == network.output_name else network.gain(name, {name: predicted})
        errors[name] = weighting * surprises[name]
    return Mismatch(surprises, errors)


def moved(circuit: Circuit, values: dict[str, Tensor], found: Mismatch, rate: Tensor) -> dict[str, Tensor]:
    """Values after one step down the energy; input and output stay clamped."""
    hidden = [population.name for population in circuit.network.populations[1:-1]]
    forces = {name: circuit.feedback(name, found.errors) - found.surprises[name] for name in hidden}
    return values | {name: torch.addcmul(values[name], rate, forces[name]) for name in hidden}


def inferred_signals(
    circuit: Circuit,
    weights: Weights,
    values: dict[str, Tensor],
    errors: Errors,
    wanted: Mapping[str, frozenset[str]],
) -> dict[str, Signals]:
    """Signals at every plastic forward projection, from values and errors that inference has left."""
    network = circuit.network
    asked = frozenset().union(*wanted.values())
    feedback = {network.output_name: errors[network.output_name]}
    if "feedback" in asked:
        feedback |= {
            population.name: circuit.feedback(population.name, errors) for population in network.populations[1:-1]
        }
    if "pre_error" in asked:
        below = network.input_name
        errors = errors | {below: circuit.feedback(below, errors) * network.gain(below, values)}
    return forward_signals(network, weights, Activity({}, values), feedback, errors, wanted)
