"""None: nobody teaches; rules see activity only."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import forward_signals


@dataclass(frozen=True)
class Nobody(CreditAssignment):
    """Gives pre and post of the feedforward pass."""

    kind = "none"
    source = "Hebb 1949"
    not_local = "Nothing is sent."
    over_positions = True
    gives = frozenset({"pre", "post", "gain"})

    @property
    def crossing(self):
        return "nothing"

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        return forward_signals(network, weights, activity, {}, {}, wanted), state
