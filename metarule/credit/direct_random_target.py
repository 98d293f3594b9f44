"""Direct random target projection: the target itself, not the error, reaches every population."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.feedback import DirectFeedback, target_of


@dataclass(frozen=True)
class DirectRandomTarget(DirectFeedback):
    """feedback_l = B_l target, B_l random, drawn anew per episode: hidden layers need not wait for the output.

    Direct feedback alignment with the target in place of the error; the output alone learns from target - output.
    """

    kind = "direct_random_target"
    source = "Frenkel, Lefebvre and Bol 2021"
    not_local = (
        "Targets reach every population directly, through weights of their own; nothing comes back from the output."
    )

    def broadcast(self, top, batch):
        return target_of(batch)
