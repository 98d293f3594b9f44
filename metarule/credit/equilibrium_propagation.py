"""Equilibrium propagation: the network settles, its output is nudged, it settles again; so does its answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.collect import unknown
from metarule.credit.energy_phases import EnergyPhases, Nudge, phase_signals, settle
from metarule.credit.feedback import target_of
from metarule.network import Activity
from metarule.params import Param

NUDGES = ("one_sided", "random_sign", "symmetric")

BETA = Param("beta", start=0.1, log=True)
"""How hard the output is nudged."""

HOSTS = {"activation": ("sigmoid", "tanh"), "output": ("sigmoid", "linear")}
"""Networks whose rates at rest are a minimum of an energy with the cost |target - output|^2 / 2."""


@dataclass(frozen=True)
class EquilibriumPropagation(EnergyPhases):
    """s_l <- f(W_l s_{l-1} + W_{l+1}^T s_{l+1}), the output's drive nudged by beta (target - s_L).

    reward = 1 / difference of betas: with rule `scaled_contrastive`, minus the gradient of |target - s_L|^2 / 2 at the
    point of rest, as far as both phases come to rest. "one_sided", nudged against free, is off by O(beta);
    "random_sign" is the same with +-beta, drawn per step; "symmetric", +beta against -beta, is off by O(beta^2).
    Raises ValueError on an unknown nudge, fewer than one step, a relaxation outside (0, 2), a `tolerance` not kept.
    """

    kind = "equilibrium_propagation"
    source = "Scellier and Bengio 2017; Laborieux et al. 2021"
    not_local = "Activity comes down through the transposed forward weights; phases have to be kept apart."
    requires = HOSTS

    nudge: str = "symmetric"
    free_steps: int = 40
    taught_steps: int = 12
    relaxation: float = 1.6
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nudge not in NUDGES:
            raise ValueError(unknown("credit.nudge", self.nudge, NUDGES))

    @property
    def params(self):
        return (BETA,)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        beta, target = theta[:, :1, None], target_of(batch)
        circuit = self.circuit(theta, network, weights, batch.x)
        free = self.free(circuit, weights, batch.x)
        if self.nudge == "symmetric":
            # both signs side by side, as events of one batch
            beta = beta.expand(-1, target.shape[1], 1)
            betas = torch.cat((beta, -beta), dim=1)
            nudge = Nudge(betas, torch.cat((target, target), dim=1))
            circuit = self.circuit(theta, network, weights, torch.cat((batch.x, batch.x), dim=1))
            nudged = settle(circuit, _twice(free), self.taught_steps, nudge, relaxation=self.relaxation).rates
            halves = {name: rate.chunk(2, dim=1) for name, rate in nudged.items()}
            taught, reference = ({name: half[side] for name, half in halves.items()} for side in (0, 1))
            scale = 0.5 / beta[:, :1]
        else:
            if self.nudge == "random_sign":
                beta = torch.where(noise.at("sign").uniform(1, 1) < 0.5, -beta, beta)
            nudge = Nudge(beta, target)
            taught = settle(circuit, free, self.taught_steps, nudge, relaxation=self.relaxation).rates
            reference = free.rates
            scale = 1 / beta
        return phase_signals(network, weights, taught, reference, dict.fromkeys(network.sizes, scale), wanted), state


def _twice(activity: Activity) -> Activity:
    drives, rates = ({name: torch.cat((part, part), dim=1) for name, part in parts.items()} for parts in activity)
    return Activity(drives, rates)
