"""Bcm: activity above a sliding threshold strengthens, activity below it weakens."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.rules.base import Rule
from metarule.signals import outer


@dataclass(frozen=True)
class Bcm(Rule):
    """dW = post (post - threshold) pre^T; threshold <- memory threshold + (1 - memory) <post^2>.

    The threshold of every unit follows the mean square of its activity, faster than the weights move: each unit ends
    up with one pattern that drives it. State: the thresholds (R I), `start` at first.
    Raises ValueError where `memory` lies outside [0, 1).
    """

    kind = "bcm"
    source = "Bienenstock, Cooper and Munro 1982; Intrator and Cooper 1992"

    memory: float = 0.9
    start: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.memory < 1:
            raise ValueError(f"rule.memory = {self.memory} must lie in [0, 1)")

    @property
    def reads(self):
        return frozenset({"pre", "post"})

    def init(self, theta, weight):
        return {"threshold": weight.new_full(weight.shape[:2], self.start)}

    def delta(self, theta, signals, state, noise):
        post, threshold = signals.read("post"), state["threshold"]
        slid = self.memory * threshold + (1 - self.memory) * post.square().mean(1)
        return outer(post * (post - threshold[:, None]), signals.read("pre")), {"threshold": slid}
