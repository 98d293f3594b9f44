"""Contrastive Hebbian learning: the output is clamped to its target, and weak feedback carries the difference down."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.energy_phases import EnergyPhases, phase_signals, settle
from metarule.credit.feedback import target_of
from metarule.credit.settling import Circuit, depths
from metarule.params import Param


@dataclass(frozen=True)
class ContrastiveHebbian(EnergyPhases):
    """h_l <- f(W_l h_{l-1} + gamma W_{l+1}^T h_{l+1}), free, then with the output at its target.

    reward = gamma^(l - L): with rule `scaled_contrastive` this is backprop as gamma -> 0. On a graph L - l counts the
    projections of the longest way up, and feedback that skips levels is weakened by as many powers of gamma.
    Raises ValueError on fewer than one step, a relaxation outside (0, 2), a `tolerance` not kept.
    """

    kind = "contrastive_hebbian"
    source = "Xie and Seung 2003; O'Reilly 1996"
    not_local = "Activity comes down through the transposed forward weights; two phases have to be kept apart."

    free_steps: int = 8
    taught_steps: int = 5
    relaxation: float = 1.0
    tolerance: float | None = None

    @property
    def params(self):
        return (Param("gamma", start=0.1, log=True),)

    def circuit(self, theta, network, weights, x):
        gamma, depth = theta[:, :1, None], depths(network)
        strengths = {p.name: gamma ** (depth[p.source] - depth[p.target]) for p in network.projections}
        return Circuit.around(network, weights, x, strengths)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        top, target = network.output_name, target_of(batch)
        circuit = self.circuit(theta, network, weights, batch.x)
        free = self.free(circuit, weights, batch.x)
        shown = free._replace(rates=free.rates | {top: target})
        clamped = settle(circuit, shown, self.taught_steps, clamped=(top,), relaxation=self.relaxation)
        gamma = theta[:, :1, None]
        scales = {name: gamma**-depth for name, depth in depths(network).items()}
        return phase_signals(network, weights, clamped.rates, free.rates, scales, wanted), state
