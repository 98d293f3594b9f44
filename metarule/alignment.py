"""Where a learner's updates point: their angle to those of gradient descent, from the same weights and data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.credit.backprop import Backprop
from metarule.learner import ANY, Columns, Learner
from metarule.network import Network
from metarule.rng import Noise
from metarule.rules.textbook import Delta
from metarule.signals import Batch, State
from metarule.synapses.constraints import RATE
from metarule.synapses.sgd import Sgd

Updates = dict[str, Float[Tensor, "R I J"]]
"""Projection -> a change of its weights."""


def gradient_descent(network: Network) -> Learner:
    """Backprop of all forward projections of a network, the direction that others are compared with."""
    return Learner(network, Backprop(), {"forward": Delta()}, {ANY: Sgd()}, fixed={"synapse.rate": RATE.start})


def updates(
    learner: Learner, columns: Columns, state: State, batches: Iterable[tuple[int, Batch]], noise: Noise
) -> tuple[Updates, Updates]:
    """What a learner and gradient descent would change in one state, summed over (step, batch); nothing is applied."""
    gradient = gradient_descent(learner.network)
    none = state["weights"][gradient.plastic[0].name].new_zeros(noise.runs, 0)
    reference = gradient.columns(none)
    plain = {"weights": state["weights"], "credit": {}, "rules": {p.name: {} for p in gradient.plastic}}
    own: Updates = {}
    other: Updates = {}
    for step, shown in batches:
        here = noise.at(step)
        own = _added(own, learner.induced(columns, state, shown, step, here))
        other = _added(other, gradient.induced(reference, plain, shown, step, here))
    return own, other


def angle(one: Float[Tensor, "R N"], other: Float[Tensor, "R N"]) -> Float[Tensor, "R"]:
    """Degrees between two directions, in float64; nan where one of them is none."""
    one, other = one.to(torch.float64), other.to(torch.float64)
    sizes = one.norm(dim=-1) * other.norm(dim=-1)
    cosine = ((one * other).sum(-1) / sizes).clamp(-1, 1)
    return torch.rad2deg(torch.acos(cosine))


def _added(total: Updates, changes: Updates) -> Updates:
    return {name: total[name] + change if name in total else change for name, change in changes.items()}
