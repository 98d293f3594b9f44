"""Which learners engines compute by themselves, in words where they cannot, and what such a learner comes to."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.credit.feedback import feedback_name
from metarule.fused import layout
from metarule.learner import ANY, Columns, Learner
from metarule.network import Network, Projection
from metarule.rules.base import Listed
from metarule.synapses.base import Plain

_ANSWERS: weakref.WeakKeyDictionary[Learner, str | None] = weakref.WeakKeyDictionary()


def refused(learner: Learner) -> str | None:
    """Why a learner is none of them, a sentence; None where it is.

    They are lists of terms on explicit errors and plain synapse models, on chains of layers.
    """
    if learner not in _ANSWERS:  # asked at every call, and nothing about a learner changes
        _ANSWERS[learner] = _objection(learner)
    return _ANSWERS[learner]


def _objection(learner: Learner) -> str | None:
    network, credit = learner.network, learner.credit
    ends = [(p.source, p.target) for p in network.projections]
    names = list(network.sizes)
    if ends != list(itertools.pairwise(names)):
        return "the network is not a chain of layers"
    if credit.crossing is None or not stands(credit, "crossing", "stage", "stages", "sender", "broadcast", "respond",
                                             "init", "projections", "teach_feedback"):  # fmt: skip
        return f"credit.kind = '{credit.kind}' sends its errors in a way of its own"
    for projection in served(learner).values():
        rule = learner.rules[learner.rule_key(projection) or ANY]
        synapse = learner.synapses[learner.synapse_key(projection) or ANY]
        listed = rule.listed(torch.zeros(1, len(rule.params)), network.shape(projection))
        if listed is None or not stands(rule, "listed", "delta", "init"):
            return f"rule.kind = '{rule.kind}' is no list of terms"
        for name in sorted({name for term in listed.terms for name in term.factors} - _known(projection)):
            return f"'{name}' is not among what it computes at '{projection.name}'"
        if synapse.plain is None or not stands(synapse, "plain", "step", "init"):
            return f"synapse.kind = '{synapse.kind}' with these settings is more than momentum"
    return None


def stands(part: Any, claim: str, *acts: str) -> bool:
    """Whether no class below the one that makes a claim has changed what it speaks of."""
    lineage = type(part).__mro__
    made = next(place for place, each in enumerate(lineage) if claim in vars(each))
    return not any(act in vars(each) for each in lineage[:made] for act in acts)


def _known(projection: Projection) -> set[str]:
    if projection.role == "forward":
        return {*layout.FACTORS, "weight"}
    return {"pre", "post", "error", "total_post", "weight"}


def served(learner: Learner) -> dict[str, Projection]:
    """The projections that learn, by name: a rule may be there for feedback weights that nobody teaches."""
    taught = learner.credit.crossing == "own_taught"
    return {p.name: p for p in learner.plastic if p.role == "forward" or taught}


def listed(learner: Learner, projection: Projection, columns: Columns) -> Listed:
    """The terms of the rule that serves a projection and their coefficients."""
    key = learner.rule_key(projection) or ANY
    found = learner.rules[key].listed(columns.rules[key], learner.network.shape(projection))
    assert found is not None
    return found


def rate(learner: Learner, projection: Projection, columns: Columns) -> Float[Tensor, "R"]:
    """The rate of the synapse model that serves a projection, before any schedule."""
    return columns.synapses[learner.synapse_key(projection) or ANY][:, 0]


def plain(learner: Learner, projection: Projection) -> Plain:
    """What the synapse model that serves a projection comes to."""
    found = learner.synapses[learner.synapse_key(projection) or ANY].plain
    assert found is not None
    return found


def errors_read(network: Network, crossing: str | None, factors: Mapping[str, frozenset[str]]) -> tuple[bool, ...]:
    """At which populations of a chain anybody reads an error, or one that is made of it further down.

    `factors` are those that rules read, by the projections that learn.
    """
    nothing: frozenset[str] = frozenset()
    found: list[bool] = []
    for above, below in zip((*network.projections, None), (None, *network.projections), strict=True):
        read = above is not None and bool(factors.get(above.name, nothing) & {"pre_error", "agreement"})
        if below is not None:
            read = read or bool(factors.get(below.name, nothing) & {"error", "feedback", "match"})
            read = read or feedback_name(below) in factors or (crossing != "direct" and found[-1])
        found.append(crossing != "nothing" and read)
    return tuple(found)
