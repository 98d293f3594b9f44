"""Curl: is a learner's update a gradient at all? What descends a loss has a symmetric Jacobian."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from metarule import tree
from metarule.learner import Learner
from metarule.rng import Noise
from metarule.signals import Batch, State

STEP = 1e-5
"""A weight's displacement in units of its size or of 1, whichever is larger: errors of about 1e-10 in float64."""


@torch.no_grad()
def asymmetry(
    learner: Learner, theta: Float[Tensor, "R P"], state: State, batch: Batch, noise: Noise
) -> Float[Tensor, "R"]:
    """|J - J^T| / |J + J^T| in Frobenius norms, J the Jacobian of the update of all plastic weights in these weights.

    0 where the update is the gradient of anything, whatever the loss, as long as all weights share one rate; above 1
    where it turns weights about one another more than it moves them down. By central differences, all displaced copies
    of all runs side by side, in the dtype of theta. The synapse model and the schedule have no say; nan where the
    update does not depend on the weights.
    """
    weights = torch.cat([state["weights"][p.name].flatten(1) for p in learner.plastic], dim=1)
    size = weights.shape[1]
    steps = STEP * weights.abs().clamp(min=1)
    displaced = weights[:, None] + torch.cat((torch.diag_embed(steps), -torch.diag_embed(steps)), dim=1)  # R 2N N
    changed = _updates(learner, theta, state, batch, noise, displaced).unflatten(1, (2, size))
    jacobian = ((changed[:, 0] - changed[:, 1]) / (2 * steps[:, :, None])).transpose(1, 2)  # d update_i / d weight_j
    mirrored = jacobian.transpose(1, 2)
    return (jacobian - mirrored).flatten(1).norm(dim=1) / (jacobian + mirrored).flatten(1).norm(dim=1)


def _updates(
    learner: Learner, theta: Tensor, state: State, batch: Batch, noise: Noise, weights: Float[Tensor, "R n N"]
) -> Float[Tensor, "R n N"]:
    """The induced changes of n copies of every run, each with its own plastic weights."""
    runs, copies, _ = weights.shape

    def copied(value: Tensor) -> Tensor:
        return value.repeat_interleave(copies, dim=0)

    many = tree.mapped(state, copied)
    parts = weights.flatten(0, 1).split([state["weights"][p.name][0].numel() for p in learner.plastic], dim=1)
    own = {p.name: part.reshape_as(many["weights"][p.name]) for p, part in zip(learner.plastic, parts, strict=True)}
    many = {**many, "weights": {**many["weights"], **own}}
    shown = Batch(copied(batch.x), None if batch.y is None else copied(batch.y))
    shared = replace(noise, index=copied(noise.index))
    changes = learner.induced(learner.columns(copied(theta)), many, shown, 0, shared)
    return torch.cat([changes[p.name].flatten(1) for p in learner.plastic], dim=1).unflatten(0, (runs, copies))
