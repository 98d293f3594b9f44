"""Probes of alignment: the angle of a rule's updates, and of the errors it hears, to those of backprop."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.alignment import angle
from metarule.credit import CreditAssignment
from metarule.credit.backprop import Backprop
from metarule.inspection.seen import ByLayer, Seen
from metarule.learner import Learner
from metarule.network import Projection
from metarule.rng import noise_for
from metarule.signals import Batch, State


def update_angle(seen: Seen) -> ByLayer:
    """Degrees between the induced change and gradient descent's, by projection; {} where there are no targets."""
    if not seen.taught:
        return {}
    own, other = seen.updates
    return {p.name: angle(own[p.name].flatten(1), other[p.name].flatten(1)) for p in seen.layers}


def error_angle(seen: Seen) -> ByLayer:
    """Degrees between the error that a hidden unit's rule hears and backprop's, mean over events, by population.

    The published angle alpha of feedback alignment; {} where units hear no error, or hear it in several stages.
    """
    hidden = hidden_projections(seen.learner)
    credit, network = seen.learner.credit, seen.learner.network
    first = seen.batches[0]
    given = all("error" in credit.gives_at(network, p) for p in hidden)
    if not (seen.taught and hidden and given and credit.stages(network, first) == 1):
        return {}
    totals = [first.x.new_zeros(len(first.x), dtype=torch.float64) for _ in hidden]
    counts = [torch.zeros_like(total) for total in totals]
    for batch in seen.batches:
        own = heard(seen.learner, credit, seen.state, batch, seen.columns.credit)
        other = heard(seen.learner, Backprop(), seen.state, batch)
        for place, pair in enumerate(zip(own, other, strict=True)):
            between = angle(*pair)  # R B; an event without an error has no direction
            totals[place] = totals[place] + between.nansum(1)
            counts[place] = counts[place] + between.isfinite().sum(1)
    return {p.target: total / count for p, total, count in zip(hidden, totals, counts, strict=True)}


def hidden_projections(learner: Learner) -> tuple[Projection, ...]:
    """The forward projections that end at a hidden population."""
    network = learner.network
    return tuple(p for p in network.projections if p.target != network.output_name)


def heard(
    learner: Learner, credit: CreditAssignment, state: State, batch: Batch, theta: Float[Tensor, "R p"] | None = None
) -> list[Float[Tensor, "R B I"]]:
    """The errors of a kind of credit at the hidden layers, from one state of the weights; `theta` are its numbers."""
    hidden = hidden_projections(learner)
    runs = len(batch.x)
    own = state["credit"] if credit is learner.credit else {}
    signals, _ = credit.stage(
        0, batch.x.new_zeros(runs, 0) if theta is None else theta, learner.network, state["weights"], own, batch, 0,
        noise_for([("alignment",)] * runs, batch.x.dtype), {p.name: frozenset({"error"}) for p in hidden},
    )  # fmt: skip
    return [signals[p.name].read("error") for p in hidden]
