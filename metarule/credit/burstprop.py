"""Burstprop: top-down bursts set the burst probability, and what differs from the untaught burst rate is learned."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.bursts import Bursts


@dataclass(frozen=True)
class Burstprop(Bursts):
    """p = sigmoid(Y b_above (1 - e)), b = p e, with the teacher (post) and without (post_ref): two phases.

    e are event rates, Y has standard deviation `feedback_std` and is drawn anew per episode.
    """

    kind = "burstprop"
    source = "Payeur et al. 2021"
    not_local = "Apical input comes through weights of its own, in two phases that have to be kept apart."

    baseline: float = 0.2
    feedback_std: float | None = 1.0

    def expected(self, network, weights, events):
        return self.untaught(network, weights, events)
