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

SCALES = tuple(2.0 ** (power / 2) for power in range(-4, 5))
"""Factors by which the weights of a layer are tried, from 1/4 to 4."""


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


def _rest(seen: Seen, projection: Projection, norm: Tensor) -> Rest:
    growth = torch.stack([_growth(seen, projection, scale) for scale in SCALES], dim=1)
    points = [_nearest(row) for row in growth.tolist()]
    point = norm.new_tensor(points)
    return Rest(norm, norm * point, (growth[:, -1] > 0).to(norm.dtype), (growth[:, 0] > 0).to(norm.dtype))


def _growth(seen: Seen, projection: Projection, scale: float) -> Float[Tensor, "R"]:
    """The mean change along the weights, relative to them, when they are `scale` times what they are."""
    weight = seen.state["weights"][projection.name] * scale
    state = {**seen.state, "weights": {**seen.state["weights"], projection.name: weight}}
    move = _mean_move(seen, seen.batches, state)[projection.name]
    return (move * weight).flatten(1).sum(1) / weight.flatten(1).square().sum(1)


def _nearest(growth: list[float]) -> float:
    """The factor, nearest to 1, at which growth passes 0 downwards; by a straight line in the factor's logarithm."""
    found = []
    for place, (below, above) in enumerate(itertools.pairwise(growth)):
        if below > 0 >= above:
            share = below / (below - above)
            found.append(math.exp((1 - share) * math.log(SCALES[place]) + share * math.log(SCALES[place + 1])))
    return min(found, key=lambda factor: abs(math.log(factor)), default=math.nan)


def _mean_move(seen: Seen, batches: tuple[Batch, ...], state: State) -> Updates:
    total: Updates = {}
    for place, batch in enumerate(batches):
        moved = seen.moved(batch, state, seen.step + place)
        total = {name: total[name] + change if total else change for name, change in moved.items()}
    return {name: change / len(batches) for name, change in total.items()}
