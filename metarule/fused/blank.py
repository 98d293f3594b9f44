"""A learner as the kernel's structures, with everything that differs from call to call left blank."""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

from metarule.credit.feedback import feedback_name
from metarule.fused import layout
from metarule.fused.learners import errors_read
from metarule.fused.tables import Table, tabled
from metarule.network import Network, Projection
from metarule.synapses.base import Plain
from metarule.terms import FACTORS, Monomial, Term, glorot


class Taught(NamedTuple):
    """How the weights of a projection, by its name, learn, whatever the numbers are."""

    name: str
    terms: tuple[Term, ...]
    model: Plain


class BlankRule(NamedTuple):
    """How a projection learns, where this stands, `layers[place].rule` or `.feedback_rule`, and a group per table."""

    taught: Taught
    place: int
    field: str
    tables: tuple[Table, ...]
    groups: ctypes.Array


class Blank(NamedTuple):
    """Structures without pointers to numbers. They are shared by all that are alike: copied, and never filled in.

    `feedback` names the weights, if any, by which errors reach the source of each projection.
    """

    layers: ctypes.Array
    rules: tuple[BlankRule, ...]
    feedback: tuple[str | None, ...]


@functools.lru_cache(maxsize=256)
def blank(network: Network, crossing: str, taught: tuple[Taught, ...]) -> Blank:
    """What all learners have in common of this network and crossing whose projections learn in this way."""
    learning = {each.name: each for each in taught}
    reads = {name: _read(each.terms) for name, each in learning.items()}
    errors = errors_read(network, crossing, reads)
    layers, rules, feedback = [], [], []
    for place, projection in enumerate(network.projections):
        feedback.append(_feedback(network, projection, crossing))
        layer = _layer(network, place, crossing, errors[place])
        for field, name in (("rule", projection.name), ("feedback_rule", feedback_name(projection))):
            if name in learning and (field == "rule" or feedback[-1]):
                tables = tabled(learning[name].terms, field == "feedback_rule")
                setattr(layer, field, _rule(learning[name].model, reads[name], len(tables)))
                rules.append(BlankRule(learning[name], place, field, tables, _groups(tables)))
        layers.append(layer)
    return Blank((layout.Projection * len(layers))(*layers), tuple(rules), tuple(feedback))


def _read(terms: tuple[Term, ...]) -> frozenset[str]:
    return frozenset().union(*(term.factors for term in terms))


def _feedback(network: Network, projection: Projection, crossing: str) -> str | None:
    if crossing == "direct":
        return f"{network.output_name}=>{projection.source}"
    return feedback_name(projection) if crossing in ("own", "own_taught", "signs_of_own") else None


def _layer(network: Network, place: int, crossing: str, error_below: bool) -> layout.Projection:
    projection = network.projections[place]
    size_out, size_in = network.sizes[projection.target], network.sizes[projection.source]
    last = place == len(network.projections) - 1
    output = {"softmax": "linear"}.get(network.output, network.output)
    return layout.Projection(
        inputs=size_in,
        outputs=size_out,
        bias=projection.bias,
        activation=layout.ACTIVATIONS.index(output if last else network.activations[projection.target]),
        crossing=layout.CROSSINGS[crossing],
        size=glorot(size_out, size_in),
        error_below=error_below,
    )


def _rule(model: Plain, reads: frozenset[str], groups: int) -> layout.Rule:
    return layout.Rule(
        plastic=True,
        groups=groups,
        reads=layout.numbers(ctypes.c_int64, [factor in reads for factor in layout.FACTORS]),
        decay=model.weight_decay,
        momentum=model.momentum or 0.0,
        nesterov=model.nesterov,
    )


def _groups(tables: tuple[Table, ...]) -> ctypes.Array:
    groups = [
        layout.Group(
            power=table.power,
            rows=len(table.rows),
            columns=len(table.columns),
            row=_powers(table.rows),
            column=_powers(table.columns),
            row_is=_alone(table.rows),
            column_is=_alone(table.columns),
            used=layout.numbers(ctypes.c_int8, table.used),
        )
        for table in tables
    ]
    return (layout.Group * len(groups))(*groups)


def _powers(monomials: tuple[Monomial, ...]) -> ctypes.Array:
    return layout.numbers(ctypes.c_int8, [dict(each).get(factor, 0) for each in monomials for factor in layout.FACTORS])


def _alone(monomials: tuple[Monomial, ...]) -> ctypes.Array:
    """The factor that each monomial is nothing more than, -1 where there is more to it or it is per event."""
    alone = [each[0][0] if len(each) == 1 and each[0][1] == 1 else "" for each in monomials]
    return layout.numbers(
        ctypes.c_int8,
        [layout.FACTORS.index(name) if name and FACTORS[name].side != "event" else -1 for name in alone],
    )
