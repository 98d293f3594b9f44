"""Direct feedback alignment: the output error reaches every population through its own fixed random weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import EXPLICIT, forward_signals, output_error
from metarule.network import Projection


@dataclass(frozen=True)
class DirectFeedbackAlignment(CreditAssignment):
    """feedback_l = B_l (target - output), B_l random, drawn anew per episode."""

    kind = "direct_feedback_alignment"
    source = "Nokland 2016"
    gives = EXPLICIT

    def projections(self, network):
        return tuple(
            Projection(f"{network.output_name}=>{population.name}", network.output_name, population.name, "feedback")
            for population in network.populations[:-1]
        )

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        top = output_error(network, activity, batch)
        feedback = {network.output_name: top}
        errors = {network.output_name: top}
        for projection in self.projections(network):
            feedback[projection.target] = torch.bmm(top, weights[projection.name].transpose(1, 2))
            errors[projection.target] = feedback[projection.target] * network.gain(projection.target, activity.rates)
        return forward_signals(network, weights, activity, feedback, errors, wanted), state
