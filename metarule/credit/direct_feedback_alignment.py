"""Direct feedback alignment: the output error reaches every population through its own fixed random weights."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.feedback import DirectFeedback


@dataclass(frozen=True)
class DirectFeedbackAlignment(DirectFeedback):
    """feedback_l = B_l (target - output), B_l random, drawn anew per episode."""

    kind = "direct_feedback_alignment"
    source = "Nokland 2016"
    not_local = "The output's error reaches every population directly, through weights of its own."

    @property
    def crossing(self):
        return "direct"

    def broadcast(self, top, batch):
        return top
