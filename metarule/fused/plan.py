"""A learner spelled out for the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarule.credit.feedback import feedback_name
from metarule.fused import layout
from metarule.fused.learners import errors_read, listed, plain, rate, served
from metarule.fused.tables import Table, tabled
from metarule.learner import Columns, Learner
from metarule.network import Network, Projection
from metarule.signals import State
from metarule.terms import FACTORS, Monomial, glorot


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
        network: Network = learner.network
        self.served = served(learner)
        self.listed = {name: listed(learner, p, columns) for name, p in self.served.items()}
        self.reads = {
            name: frozenset().union(*(term.factors for term in found.terms)) for name, found in self.listed.items()
        }
        self.errors = errors_read(network, learner.credit.crossing, self.reads)
        first = next(iter(state["weights"].values()))
        self.runs, self.dtype = len(first), first.dtype
        self.projections = [self._projection(place) for place in range(len(network.projections))]
        self.layers = (layout.Projection * len(self.projections))(*self.projections)

    def plan(self, rates: list[dict[str, float]], data: Mapping[str, Any]) -> layout.Plan:
        """Some steps: the multipliers of the rates at each of them, and the fields of `layout.Plan` that are data."""
        network = self.learner.network
        for place, projection in enumerate(network.projections):
            for rule, name in (("rule", projection.name), ("feedback_rule", feedback_name(projection))):
                if name in self.served:
                    held = layout.numbers(ctypes.c_double, [each[name] for each in rates])
                    getattr(self.layers[place], rule).schedule = held
        return layout.Plan(
            layers=len(self.layers),
            projection=self.layers,
            input_activation=layout.ACTIVATIONS.index(network.populations[0].activation),
            output=layout.OUTPUTS.index(network.output),
            beta=network.beta,
            runs=self.runs,
            **data,
        )

    def _projection(self, place: int) -> layout.Projection:
        network, crossing = self.learner.network, str(self.learner.credit.crossing)
        projection, weights = network.projections[place], self.state["weights"]
        size_out, size_in = network.sizes[projection.target], network.sizes[projection.source]
        last = place == len(network.projections) - 1
        output = {"softmax": "linear"}.get(network.output, network.output)
        back = self._feedback(projection, crossing)
        return layout.Projection(
            inputs=size_in,
            outputs=size_out,
            bias=projection.bias,
            activation=layout.ACTIVATIONS.index(output if last else network.activations[projection.target]),
            crossing=layout.CROSSINGS[crossing],
            size=glorot(size_out, size_in),
            error_below=self.errors[place],
            weight=weights[projection.name].data_ptr(),
            feedback=weights[back].data_ptr() if back else None,
            weight_gradient=self._gradient("weights", projection.name),
            feedback_gradient=self._gradient("weights", back),
            rule=self._spelled(projection.name, False),
            feedback_rule=self._spelled(feedback_name(projection), True) if back else layout.Rule(),
        )

    def _feedback(self, projection: Projection, crossing: str) -> str | None:
        """The name of the feedback weights that reach a projection's source."""
        if crossing == "direct":
            return f"{self.learner.network.output_name}=>{projection.source}"
        return feedback_name(projection) if crossing in ("own", "own_taught", "signs_of_own") else None

    def _spelled(self, name: str, turned: bool) -> layout.Rule:
        if name not in self.served:
            return layout.Rule()
        learner, projection = self.learner, self.served[name]
        terms, coefficients = self.listed[name]
        model = plain(learner, projection)
        groups = [
            layout.Group(
                power=table.power,
                rows=len(table.rows),
                columns=len(table.columns),
                row=self._powers(table.rows),
                column=self._powers(table.columns),
                row_is=self._alone(table.rows),
                column_is=self._alone(table.columns),
                used=layout.numbers(ctypes.c_int8, table.used),
                coefficients=self._held(table.coefficients(coefficients)),
                coefficient_gradient=self._collected(name, table, len(table.rows) * len(table.columns)),
            )
            for table in tabled(terms, turned)
        ]
        return layout.Rule(
            plastic=True,
            groups=len(groups),
            group=(layout.Group * len(groups))(*groups),
            reads=layout.numbers(ctypes.c_int64, [factor in self.reads[name] for factor in layout.FACTORS]),
            rate=self._held(rate(learner, projection, self.columns)),
            decay=model.weight_decay,
            momentum=model.momentum or 0.0,
            nesterov=model.nesterov,
            velocity=None if model.momentum is None else self.state["synapses"][name]["velocity"].data_ptr(),
            rate_gradient=self._collected(name, None, 1),
            velocity_gradient=self._gradient("velocities", name),
            missed=self._gradient("missed", name),
        )

    def _gradient(self, of: str, name: str | None) -> int | None:
        held = None if self.gradients is None else getattr(self.gradients, of).get(name)
        return None if held is None else held.data_ptr()

    def _collected(self, name: str, table: Table | None, count: int) -> int | None:
        """Where the kernel sums the gradients in the coefficients of a table, or in a rate."""
        if self.gradients is None:
            return None
        self.found.append((name, table, torch.zeros(self.runs, count, dtype=torch.float64)))
        return self.found[-1][2].data_ptr()

    def _powers(self, monomials: tuple[Monomial, ...]) -> ctypes.Array:
        return layout.numbers(
            ctypes.c_int8, [dict(each).get(factor, 0) for each in monomials for factor in layout.FACTORS]
        )

    def _alone(self, monomials: tuple[Monomial, ...]) -> ctypes.Array:
        """The factor that each monomial is nothing more than, -1 where there is more to it or it is per event."""
        alone = [each[0][0] if len(each) == 1 and each[0][1] == 1 else "" for each in monomials]
        return layout.numbers(
            ctypes.c_int8,
            [layout.FACTORS.index(name) if name and FACTORS[name].side != "event" else -1 for name in alone],
        )

    def _held(self, values: Tensor) -> int:
        held = values.contiguous()
        self.kept.append(held)
        return held.data_ptr()
