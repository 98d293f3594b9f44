"""Momentum: a change builds up speed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.params import Param
from metarule.signals import Change
from metarule.synapses.base import Plain, SynapseModel
from metarule.synapses.constraints import RATE, bounded, checked, decayed, one_sided


@dataclass(frozen=True)
class Momentum(SynapseModel):
    """v <- momentum v + change - weight_decay w; dw = rate v, or rate (change + momentum v) with `nesterov`."""

    kind = "momentum"
    source = "Polyak 1964; Sutskever et al. 2013"

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    bound: float | None = None
    dale: bool = False

    def __post_init__(self) -> None:
        checked("synapse", self.weight_decay, self.bound)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"synapse.momentum = {self.momentum} must lie in [0, 1)")

    @property
    def params(self) -> tuple[Param, ...]:
        return (RATE,)

    @property
    def plain(self):
        limited = self.bound is not None or self.dale
        return None if limited else Plain(self.weight_decay, self.momentum, self.nesterov)

    def init(self, theta, weight):
        return {"velocity": torch.zeros_like(weight)}

    def step(self, theta, weight, change, rate, state, noise):
        current = decayed(change, weight, self.weight_decay).tensor(weight)
        velocity = self.momentum * state["velocity"] + current
        ahead = current + self.momentum * velocity if self.nesterov else velocity
        change = bounded(Change(full=theta[:, :1, None] * rate * ahead), weight, self.bound)
        return one_sided(change, weight, self.dale), {"velocity": velocity}
