"""Options that plain synapse models offer: weight decay on the way in, soft bounds and Dale's law on the way out."""

from __future__ import annotations

import torch
from torch import Tensor

from metarule.params import Param
from metarule.signals import Change

RATE = Param("rate", start=0.05, scale=1.0, low=1e-7, high=1e3, log=True)
"""The step size of a synapse model."""


def checked(owner: str, weight_decay: float, bound: float | None) -> None:
    """Raises ValueError where an option makes no sense."""
    if weight_decay < 0:
        raise ValueError(f"{owner}.weight_decay = {weight_decay} must not be negative")
    if bound is not None and bound <= 0:
        raise ValueError(f"{owner}.bound = {bound} must be positive; leave it out for unbounded weights")


def decayed(change: Change, weight: Tensor, weight_decay: float) -> Change:
    """change - weight_decay W, as torch.optim adds it to the gradient."""
    if not weight_decay:
        return change
    return change + Change(shrink=weight.new_full((weight.shape[0], 1, 1), weight_decay))


def bounded(change: Change, weight: Tensor, bound: float | None) -> Change:
    """Soft bounds: potentiation shrinks as (1 - w/bound), depression as (1 + w/bound) (van Rossum et al., 2000)."""
    if bound is None:
        return change
    step = change.tensor(weight)
    room = 1 - torch.sign(step) * weight / bound
    # a step larger than the room would leap over the bound
    target = (weight + step * room.clamp(min=0)).clamp(-bound, bound)
    return Change(full=target - weight)


def one_sided(change: Change, weight: Tensor, dale: bool) -> Change:
    """Dale's law: a step that would carry w over 0 ends there, and a weight at 0 stays (Amit, Wong and Campbell, 1989).

    So does a bias that starts at 0.
    """
    if not dale:
        return change
    step = change.tensor(weight)
    # <= and not >: what is no number stays none, and is noticed
    crosses = torch.sign(weight) * (weight + step) <= 0
    return Change(full=torch.where(crosses, -weight, step))
