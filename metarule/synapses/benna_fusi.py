"""Benna-Fusi: a synapse as a chain of variables, each slower than the one before; memories fade as 1 / sqrt(t)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.params import Param
from metarule.signals import Change
from metarule.synapses.base import SynapseModel
from metarule.synapses.constraints import RATE


@dataclass(frozen=True)
class BennaFusi(SynapseModel):
    """u_1 = W takes the changes; du_k = n^(-2(k-1)) coupling [n (u_{k-1} - u_k) + (u_{k+1} - u_k)], u_{m+1} = 0.

    Variable k holds n times the charge of the one before and talks to the next one n times more weakly. A change fades
    as t^(-1/2) from about 1 / `coupling` to n^(2m) steps. All variables start at the initial weight. State: the hidden
    variables (R m-1 I J). Raises ValueError without a variable, with a ratio below 1 or a step that is not stable.
    """

    kind = "benna_fusi"
    source = "Benna and Fusi 2016"

    variables: int = 8
    ratio: float = 2.0
    coupling: float = 0.25

    def __post_init__(self) -> None:
        if self.variables < 1:
            raise ValueError(f"synapse.variables = {self.variables} must be at least 1")
        if self.ratio < 1:
            raise ValueError(f"synapse.ratio = {self.ratio} must be at least 1: no variable is faster than the first")
        if not 0 < self.coupling <= 0.5:
            raise ValueError(f"synapse.coupling = {self.coupling} must lie in (0, 0.5], where a step is stable")

    @property
    def params(self) -> tuple[Param, ...]:
        return (RATE,)

    def init(self, theta, weight):
        return {"hidden": weight[:, None].expand(-1, self.variables - 1, -1, -1).clone()}

    def step(self, theta, weight, change, rate, state, noise):
        chain = torch.cat((weight[:, None], state["hidden"]), dim=1)
        flow = torch.cat((chain[:, 1:], torch.zeros_like(chain[:, :1])), dim=1) - chain  # from the next variable
        order = torch.arange(self.variables, dtype=chain.dtype, device=chain.device)[:, None, None]
        speed = self.coupling * self.ratio ** (-2 * order)
        lost = torch.cat((torch.zeros_like(flow[:, :1]), flow[:, :-1]), dim=1)  # to the one before
        chain = speed * (flow - self.ratio * lost) + chain
        taken = change.scaled(theta[:, :1, None] * rate)
        return Change(full=chain[:, 0] - weight) + taken, {"hidden": chain[:, 1:]}
