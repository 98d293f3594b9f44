"""Where a rule comes to rest: the drift that is left of its weights, and the norm at which they would stay."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.alignment import Updates
from metarule.inspection.seen import ByLayer, Seen
from metarule.inspection.weight_norms import weight_norm
from metarule.network import Projection
from metarule.signals import Batch, State

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Factors by which the weights of a layer are tried."""

REFINED = 4
"""Further factors, between the two where growth turns into shrinking."""


class Rest(NamedTuple):
    """Of one layer, a number per run: the |w| of its units, and that at which it would rest, nan where there is none.

    `grows` says whether its weights grow at the largest factor tried, and at the smallest one.
    """

    norm: Float[Tensor, "R"]
    point: Float[Tensor, "R"]
    grows_when_large: Float[Tensor, "R"]
    grows_when_small: Float[Tensor, "R"]


def drift(seen: Seen) -> ByLayer:
    """|<W_t+1 - W_t>| / |W_t|, the mean change of a step over the training data; what is noise from batch to batch is
    not counted.

    The squared length is the product of the means over two halves of the data, 0 where that is negative.
    """
    one, other = (_mean_move(seen, seen.batches[half::2], seen.state) for half in (0, 1))
    found = {}
    for p in seen.layers:
        weight = seen.state["weights"][p.name].flatten(1)
        product = (one[p.name] * (other or one)[p.name]).flatten(1).sum(1)
        found[p.name] = product.clamp(min=0).sqrt() / weight.norm(dim=1)
    return found


def rest(seen: Seen) -> dict[str, Rest]:
    """Layer -> the norm at which its mean change neither lengthens nor shortens its weights, all others as they are.

    Its weights are scaled by `SCALES`; a rest is stable: they grow below it and shrink above it. The one nearest to
    where they are counts.
    """
    norms = weight_norm(seen)
    return {p.name: _rest(seen, p, norms[p.name]) for p in seen.layers}


def _rest(seen: Seen, projection: Projection, norm: Float[Tensor, "R"]) -> Rest:
    growth = torch.stack([_growth(seen, projection, torch.full_like(norm, scale)) for scale in SCALES], dim=1)
    brackets = [_nearest(row) for row in growth.tolist()]
    rows = torch.arange(len(norm))
    below = torch.tensor([0 if place is None else place for place in brackets])
    logs = torch.tensor(SCALES, dtype=norm.dtype).log()
    low, high = logs[below], logs[below + 1]
    at_low, at_high = growth[rows, below], growth[rows, below + 1]
    for _ in range(REFINED):  # the Illinois variant of false position: the end that stays counts half
        between = (low * at_high - high * at_low) / (at_high - at_low)
        found = _growth(seen, projection, between.exp())
        grows = found > 0
        low, high = torch.where(grows, between, low), torch.where(grows, high, between)
        at_low, at_high = torch.where(grows, found, at_low / 2), torch.where(grows, at_high / 2, found)
    factor = ((low * at_high - high * at_low) / (at_high - at_low)).exp()
    nowhere = torch.tensor([place is None for place in brackets])
    point = (norm * factor).masked_fill(nowhere, math.nan)
    return Rest(norm, point, (growth[:, -1] > 0).to(norm.dtype), (growth[:, 0] > 0).to(norm.dtype))


def _growth(seen: Seen, projection: Projection, scale: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
    """The mean change along the weights, relative to them, when they are `scale` times what they are."""
    weight = seen.state["weights"][projection.name] * scale[:, None, None]
    state = {**seen.state, "weights": {**seen.state["weights"], projection.name: weight}}
    move = _mean_move(seen, seen.batches, state)[projection.name]
    return (move * weight).flatten(1).sum(1) / weight.flatten(1).square().sum(1)


def _nearest(growth: list[float]) -> int | None:
    """The place, nearest to where the weights are, after which growth passes 0 downwards."""
    turns = [place for place, (below, above) in enumerate(itertools.pairwise(growth)) if below > 0 >= above]
    middle = (len(growth) - 2) / 2
    return min(turns, key=lambda place: abs(place - middle), default=None)


def _mean_move(seen: Seen, batches: tuple[Batch, ...], state: State) -> Updates:
    total: Updates = {}
    for place, batch in enumerate(batches):
        moved = seen.moved(batch, state, seen.step + place)
        total = {name: total[name] + change if total else change for name, change in moved.items()}
    return {name: change / len(batches) for name, change in total.items()}
