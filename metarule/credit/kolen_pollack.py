"""Kolen-Pollack: feedback weights change as the forward weights do, so that decay brings the two together."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.feedback import feedback_name
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.network import Network, Projection
from metarule.signals import Signals


@dataclass(frozen=True)
class KolenPollack(FeedbackAlignment):
    """Feedback alignment whose B is plastic: dB = rate_l error_{l+1}^T, the transpose of the delta rule's dW.

    With weight decay on both, W - B^T shrinks by (1 - rate decay) per step. The feedback projections need the rule
    `delta` and the synapse model of the forward ones.
    """

    kind = "kolen_pollack"
    source = "Kolen and Pollack 1994; Akrout et al. 2019"
    not_local = "Errors come through weights of their own, which see the same two ends as the forward ones."
    plastic_roles = frozenset({"feedback"})

    @property
    def crossing(self):
        return "own_taught"

    def gives_at(self, network: Network, projection: Projection):
        return frozenset({"pre", "post", "error"}) if projection.role == "feedback" else self.gives

    def teach_feedback(self, network, weights, activity, errors, signals, wanted):
        for projection in network.projections:
            name = feedback_name(projection)
            if name in wanted:
                # at this projection the upper error is pre and the lower rate is what the post unit should match
                rate = network.gather(projection, activity.rates[projection.source])
                signals[name] = Signals(weight=weights[name], pre=errors[projection.target], post=rate, error=rate)
        return signals
