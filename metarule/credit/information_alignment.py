"""Information alignment: feedback weights learn from ordinary activity, sent up and back again."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.feedback import carriers, feedback_name, without_bias
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.network import Network, Projection
from metarule.signals import Signals


@dataclass(frozen=True)
class InformationAlignment(FeedbackAlignment):
    """Feedback alignment; at every B, post = x, pre = W x and post_ref = B W x, x the rates below it.

    With the terms a post_pre - b post_ref_pre + c weight_decay, dB = a x (W x)^T - b (B W x)(W x)^T - c B: Hebbian
    growth as in the weight mirror, and a null term that bounds it. For white x it settles at
    B = a W^T (b W W^T + c)^-1. `centred` takes the mean over events out of x first.
    """

    kind = "information_alignment"
    source = "Kunin, Nayebi et al. 2020"
    not_local = "Errors come through weights of their own, which learn from activity sent up and back down."
    plastic_roles = frozenset({"feedback"})
    over_positions = False

    centred: bool = True

    def gives_at(self, network: Network, projection: Projection):
        return frozenset({"pre", "post", "post_ref"}) if projection.role == "feedback" else self.gives

    def teach_feedback(self, network, weights, activity, errors, signals, wanted):
        for projection in carriers(network, wanted):
            name = feedback_name(projection)
            if name in wanted:
                rate = activity.rates[projection.source]
                rate = rate - rate.mean(1, keepdim=True) if self.centred else rate
                sent = torch.bmm(rate, without_bias(projection, weights[projection.name]).transpose(1, 2))
                back = torch.bmm(sent, weights[name].transpose(1, 2))
                signals[name] = Signals(weights[name], pre=sent, post=rate, post_ref=back)
        return signals
