"""Sgd: the change itself, times the rate."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.params import Param
from metarule.synapses.base import Plain, SynapseModel
from metarule.synapses.constraints import RATE, bounded, checked, decayed, one_sided


@dataclass(frozen=True)
class Sgd(SynapseModel):
    """dw = rate (change - weight_decay w), inside soft bounds and on its side of 0 (`dale`) where asked."""

    kind = "sgd"
    source = "Robbins and Monro 1951"

    weight_decay: float = 0.0
    bound: float | None = None
    dale: bool = False

    def __post_init__(self) -> None:
        checked("synapse", self.weight_decay, self.bound)

    @property
    def params(self) -> tuple[Param, ...]:
        return (RATE,)

    @property
    def plain(self):
        return None if self.bound is not None or self.dale else Plain(self.weight_decay)

    def step(self, theta, weight, change, rate, state, noise):
        change = decayed(change, weight, self.weight_decay).scaled(theta[:, :1, None] * rate)
        return one_sided(bounded(change, weight, self.bound), weight, self.dale), state
