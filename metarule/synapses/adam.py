"""Adam: a change measured against its own recent size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from metarule.params import Param
from metarule.signals import Change
from metarule.synapses.base import SynapseModel
from metarule.synapses.constraints import RATE, bounded, checked, decayed, one_sided


@dataclass(frozen=True)
class Adam(SynapseModel):
    """m <- b1 m + (1 - b1) c; v <- b2 v + (1 - b2) c^2; dw = rate m' / (sqrt(v') + epsilon), m', v' bias-corrected.

    Where v is exactly 0 (a pixel that is always blank) the whole quotient is 0, with zero gradient.
    """

    kind = "adam"
    source = "Kingma and Ba 2015"
    owns_scale = True

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    bound: float | None = None
    dale: bool = False

    def __post_init__(self) -> None:
        checked("synapse", self.weight_decay, self.bound)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"synapse.{name} = {getattr(self, name)} must lie in [0, 1)")

    @property
    def params(self) -> tuple[Param, ...]:
        return (replace(RATE, start=1e-3),)

    def init(self, theta, weight):
        zeros = torch.zeros_like(weight)
        return {"mean": zeros, "square": zeros, "step": weight.new_zeros(weight.shape[0], 1, 1)}

    def step(self, theta, weight, change, rate, state, noise):
        current = decayed(change, weight, self.weight_decay).tensor(weight)
        step = state["step"] + 1
        mean = self.beta1 * state["mean"] + (1 - self.beta1) * current
        square = self.beta2 * state["square"] + (1 - self.beta2) * current * current
        moved = square != 0  # nan is not 0: a diverged run must not look calm
        root = torch.where(moved, square, torch.ones_like(square)).sqrt() / (1 - self.beta2**step).sqrt()
        quotient = torch.where(moved, mean, torch.zeros_like(mean)) / (1 - self.beta1**step) / (root + self.epsilon)
        state = {"mean": mean, "square": square, "step": step}
        change = bounded(Change(full=theta[:, :1, None] * rate * quotient), weight, self.bound)
        return one_sided(change, weight, self.dale), state
