"""Feedback alignment: errors return through fixed random weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.feedback import SequentialFeedback, feedback_name, feedback_projection


@dataclass(frozen=True)
class FeedbackAlignment(SequentialFeedback):
    """feedback_l = B_l error_{l+1}, B_l random with the scale of the forward weights, drawn anew per episode."""

    kind = "feedback_alignment"
    source = "Lillicrap et al. 2016"
    not_local = "Errors come through weights of their own, layer by layer."
    over_positions = True

    @property
    def crossing(self) -> str | None:
        return "own"

    def projections(self, network):
        return tuple(feedback_projection(projection) for projection in network.projections)

    def sender(self, network, weights, state, step, noise):
        return lambda projection, error: torch.bmm(error, weights[feedback_name(projection)].transpose(1, 2))
