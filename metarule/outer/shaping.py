"""Shaping: losses become numbers that an update can bear, whatever the losses are measured in."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Shaping = Callable[[Float[Tensor, "C"]], Float[Tensor, "C"]]
"""Losses -> numbers that are the larger, the worse a candidate is; nan for one that is to have no say."""


def ranks(loss: Float[Tensor, "C"]) -> Float[Tensor, "C"]:
    """0 for the best candidate to C - 1 for the worst; equals share the mean of theirs, failures the last ones."""
    loss = torch.where(loss.isfinite(), loss, math.inf)
    ordered = loss.sort().values
    below = torch.searchsorted(ordered, loss, right=False)
    upto = torch.searchsorted(ordered, loss, right=True)
    return (below + upto - 1).to(torch.float64) / 2


def centred_ranks(loss: Float[Tensor, "C"]) -> Float[Tensor, "C"]:
    """Ranks between -1/2 and 1/2, sum 0 (Salimans et al. 2017): only the order of the losses counts."""
    return ranks(loss) / max(len(loss) - 1, 1) - 0.5


def losses(loss: Float[Tensor, "C"]) -> Float[Tensor, "C"]:
    """The losses themselves; a failure is nan."""
    return torch.where(loss.isfinite(), loss, math.nan)


def utilities(loss: Float[Tensor, "C"]) -> Float[Tensor, "C"]:
    """max(0, ln(C/2 + 1) - ln(rank + 1)), divided by its sum, less 1/C: the better half has a say, sum 0.

    Candidates that are equally good share their utilities (Wierstra et al. 2014).
    """
    count = len(loss)
    by_rank = (math.log(count / 2 + 1) - torch.arange(1, count + 1, dtype=torch.float64).log()).clamp(min=0)
    by_rank = by_rank / by_rank.sum() - 1 / count
    own = ranks(loss)
    level = (own[:, None] == own).to(torch.float64)
    # the utilities of the places that equals occupy, shared among them
    places = torch.argsort(own, stable=True)
    return level @ torch.empty_like(by_rank).scatter_(0, places, by_rank) / level.sum(1)


SHAPINGS: dict[str, Shaping] = {"ranks": centred_ranks, "losses": losses}
"""What a search file may ask for."""
