"""Taught readout: hidden layers see activity only, and the readout alone is told what it should have said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metarule.credit.base import CreditAssignment, Weights
from metarule.credit.feedback import forward_signals, output_error
from metarule.network import Activity, Network
from metarule.signals import Batch, Signals


@dataclass(frozen=True)
class TaughtReadout(CreditAssignment):
    """Gives pre, post and gain everywhere, error = target - output at the projections into the output.

    For rules of activity alone, {"forward": Hebb()}, under a readout by the delta rule, {"readout": Delta()}.
    """

    kind = "taught_readout"
    source = "Moody and Darken 1989"
    not_local = "Nothing but the readout's own error."
    gives = frozenset({"pre", "post", "gain", "error"})

    def gives_at(self, network, projection):
        return self.gives if projection.target == network.output_name else self.gives - {"error"}

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        return readout_taught(network, weights, network.forward(weights, batch.x), batch, wanted), state


def readout_taught(
    network: Network, weights: Weights, activity: Activity, batch: Batch, wanted: Mapping[str, frozenset[str]]
) -> dict[str, Signals]:
    """The signals of an activity at every plastic projection; the error where a projection ends at the output."""
    error = output_error(network, activity, batch)
    return forward_signals(network, weights, activity, {}, {network.output_name: error}, wanted)
