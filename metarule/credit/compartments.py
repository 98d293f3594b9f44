"""What the dendritic kinds of credit share: what a unit does when it is taught, against what it does untaught."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metarule.credit.base import Weights
from metarule.network import Network
from metarule.signals import Signals


def compared(
    network: Network,
    weights: Weights,
    rates: Mapping[str, Tensor],
    taught: Mapping[str, Tensor],
    untaught: Mapping[str, Tensor],
    gains: Mapping[str, Tensor],
    wanted: Mapping[str, frozenset[str]],
) -> dict[str, Signals]:
    """Signals at every plastic forward projection: pre = rates, post = taught, post_ref = untaught, by population."""
    return {
        projection.name: Signals(
            weights[projection.name],
            pre=network.pre(projection, rates),
            post=taught[projection.target],
            post_ref=untaught[projection.target],
            gain=gains.get(projection.target),
        )
        for projection in network.projections
        if projection.name in wanted
    }
