"""Weight mirror: between batches noise runs up the network, and feedback weights learn what it met on its way."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.feedback import carriers, feedback_name, without_bias
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.network import Network, Projection
from metarule.params import Param
from metarule.signals import Signals


@dataclass(frozen=True)
class WeightMirror(FeedbackAlignment):
    """Feedback alignment, and after each batch one of noise: at every B, post = xi, pre = f(W xi), xi ~ N(0, sigma^2).

    xi (R B units) replaces the rates of one layer at a time, and the next one answers without its bias, the output
    linearly. With rule `hebb`, dB = xi f(W xi)^T is sigma^2 W^T on average; weight decay on B keeps it bounded.
    """

    kind = "weight_mirror"
    source = "Akrout et al. 2019"
    not_local = "Errors come through weights of their own, which learn in a mode of its own, driven by noise."
    plastic_roles = frozenset({"feedback"})
    over_positions = False

    @property
    def params(self):
        return (Param("sigma", start=0.1, log=True),)

    def gives_at(self, network: Network, projection: Projection):
        return frozenset({"pre", "post"}) if projection.role == "feedback" else self.gives

    def stages(self, network, batch):
        return 2

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        if k == 0:
            return super().stage(k, theta, network, weights, state, batch, step, noise, wanted)
        signals = {}
        for projection in carriers(network, wanted):
            name = feedback_name(projection)
            if name in wanted:
                size = network.sizes[projection.source]
                sent = theta[:, :1, None] * noise.at(projection.name).normal(batch.x.shape[1], size)
                met = torch.bmm(sent, without_bias(projection, weights[projection.name]).transpose(1, 2))
                if projection.target != network.output_name:
                    met = network.rate(projection.target, met)
                signals[name] = Signals(weights[name], pre=met, post=sent)
        return signals, state
