"""Fast and slow: a weight is the sum of a part that learns and fades and a part into which it consolidates."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.params import Param
from metarule.signals import Change
from metarule.synapses.base import SynapseModel
from metarule.synapses.constraints import RATE


@dataclass(frozen=True)
class FastSlow(SynapseModel):
    """W = fast + slow; fast <- (1 - fading) fast + rate change; slow <- (1 - leak) slow + consolidation fast.

    A change c is forgotten along two exponentials: W_t = rate c [(1 - s) (1 - fading)^t + s (1 - leak)^t] with
    s = consolidation / (fading - leak). The initial weight is slow. State: the fast part (R I J).
    Raises ValueError where 0 <= leak < fading <= 1 does not hold or `consolidation` lies outside [0, fading].
    """

    kind = "fast_slow"
    source = "Hinton and Plaut 1987"

    fading: float = 0.1
    consolidation: float = 0.05
    leak: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 <= self.leak < self.fading <= 1:
            raise ValueError(
                f"synapse.leak = {self.leak} and synapse.fading = {self.fading} must satisfy 0 <= leak < fading <= 1"
            )
        if not 0 <= self.consolidation <= self.fading:
            raise ValueError(
                f"synapse.consolidation = {self.consolidation} must lie in [0, fading = {self.fading}]: "
                "what consolidates is taken from what fades"
            )

    @property
    def params(self) -> tuple[Param, ...]:
        return (RATE,)

    def init(self, theta, weight):
        return {"fast": torch.zeros_like(weight)}

    def step(self, theta, weight, change, rate, state, noise):
        fast = state["fast"]
        slow = weight - fast
        taken = change.scaled(theta[:, :1, None] * rate)
        drift = (self.consolidation - self.fading) * fast - self.leak * slow
        return taken + Change(full=drift), {"fast": taken.apply((1 - self.fading) * fast)}
