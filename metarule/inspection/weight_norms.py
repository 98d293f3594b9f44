"""Probes of the weights: how large and how orthonormal they are, and how fast they move."""

from __future__ import annotations

import torch
from torch import Tensor

from metarule.inspection.orthonormality import orthonormality
from metarule.inspection.seen import ByLayer, Seen
from metarule.network import Projection


def without_bias(seen: Seen, projection: Projection) -> Tensor:
    """The weights of a projection from units that are not always on."""
    weight = seen.state["weights"][projection.name]
    return weight[:, :, :-1] if projection.bias else weight


def row_orthonormality(seen: Seen) -> ByLayer:
    """E = |W W^T - I|_F / sqrt(I) of the weights from other units."""
    return {p.name: orthonormality(without_bias(seen, p)) for p in seen.layers}


def weight_norm(seen: Seen) -> ByLayer:
    """|w_i|, the length of a unit's weights, its mean over units."""
    return {p.name: without_bias(seen, p).norm(dim=2).mean(1) for p in seen.layers}


def step_size(seen: Seen) -> ByLayer:
    """|W_t+1 - W_t| / |W_t| of a step, mean over some batches, the synapse model included."""
    sizes: dict[str, Tensor] = {}
    for place, batch in enumerate(seen.single):
        for name, change in seen.moved(batch, seen.state, seen.step + place).items():
            size = change.flatten(1).norm(dim=1) / seen.state["weights"][name].flatten(1).norm(dim=1)
            sizes[name] = sizes.get(name, torch.zeros_like(size)) + size / len(seen.single)
    return sizes
