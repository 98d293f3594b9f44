"""A learner spelled out for the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarule.fused import layout
from metarule.fused.blank import Blank, BlankRule, Taught, blank
from metarule.fused.learners import listed, plain, rate, served
from metarule.fused.tables import Table
from metarule.learner import Columns, Learner
from metarule.signals import State


class Gradients(NamedTuple):
    """Gradients in what changes, by projection, (R I J) each, contiguous: the kernel goes back with them in place.

    `missed` (R 2), in doubles: how far a round trip ends from where it began, see kernels/plan.h.
    """

    weights: dict[str, Tensor]
    velocities: dict[str, Tensor]
    missed: Mapping[str, Tensor] = {}


class Spelled:
    """A learner's runs as the kernel's structures; keeps alive what they point to.

    `state` is trained in place: its weights and velocities are contiguous and nobody else's.
    """

    def __init__(self, learner: Learner, columns: Columns, state: State, gradients: Gradients | None = None) -> None:
        self.learner, self.columns, self.state, self.gradients = learner, columns, state, gradients
        self.kept: list[Any] = []
        self.found: list[tuple[str, Table | None, Tensor]] = []
        self.served = served(learner)
        rules = {name: listed(learner, projection, columns) for name, projection in self.served.items()}
        self.blank: Blank = blank(
            learner.network,
            str(learner.credit.crossing),
            tuple(Taught(name, rules[name].terms, plain(learner, each)) for name, each in self.served.items()),
        )
        first = next(iter(state["weights"].values()))
        self.runs, self.dtype = first.shape[0], first.dtype
        self.layers = layout.copied(self.blank.layers)
        for layer, projection, back in zip(self.layers, learner.network.projections, self.blank.feedback, strict=True):
            self._point_to_weights(layer, projection.name, back)
        for rule in self.blank.rules:
            self._point_to_numbers(rule, rules[rule.taught.name].coefficients)

    def plan(self, schedules: Mapping[str, ctypes.Array], data: Mapping[str, Any]) -> layout.Plan:
        """Some steps: the multipliers of each rate, one per step, and the fields of `layout.Plan` that are data."""
        network = self.learner.network
        for rule in self.blank.rules:
            self._rule(rule).schedule = schedules[rule.taught.name]
        return layout.Plan(
            layers=len(self.layers),
            projection=self.layers,
            input_activation=layout.ACTIVATIONS.index(network.populations[0].activation),
            output=layout.OUTPUTS.index(network.output),
            beta=network.beta,
            runs=self.runs,
            **data,
        )

    def _point_to_weights(self, layer: layout.Projection, name: str, back: str | None) -> None:
        weights = self.state["weights"]
        layer.weight = weights[name].data_ptr()
        layer.weight_gradient = self._gradient("weights", name)
        if back is not None:
            layer.feedback = weights[back].data_ptr()
            layer.feedback_gradient = self._gradient("weights", back)

    def _point_to_numbers(self, of: BlankRule, coefficients: Tensor) -> None:
        name, groups = of.taught.name, layout.copied(of.groups)
        for group, table in zip(groups, of.tables, strict=True):
            group.coefficients = self._held(table.coefficients(coefficients))
            group.coefficient_gradient = self._collected(name, table, len(table.rows) * len(table.columns))
        rule = self._rule(of)
        rule.group = groups
        rule.rate = self._held(rate(self.learner, self.served[name], self.columns))
        rule.rate_gradient = self._collected(name, None, 1)
        if of.taught.model.momentum is not None:
            rule.velocity = self.state["synapses"][name]["velocity"].data_ptr()
            rule.velocity_gradient = self._gradient("velocities", name)
        rule.missed = self._gradient("missed", name)

    def _rule(self, of: BlankRule) -> layout.Rule:
        return getattr(self.layers[of.place], of.field)

    def _gradient(self, of: str, name: str) -> int | None:
        held = None if self.gradients is None else getattr(self.gradients, of).get(name)
        return None if held is None else held.data_ptr()

    def _collected(self, name: str, table: Table | None, count: int) -> int | None:
        """Where the kernel sums the gradients in the coefficients of a table, or in a rate."""
        if self.gradients is None:
            return None
        self.found.append((name, table, torch.zeros(self.runs, count, dtype=torch.float64)))
        return self.found[-1][2].data_ptr()

    def _held(self, values: Tensor) -> int:
        held = values.contiguous()
        self.kept.append(held)
        return held.data_ptr()
