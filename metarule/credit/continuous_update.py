"""Continuous update: plasticity at every moment of the nudged phase, from how the post rate is changing."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.energy_phases import EnergyPhases, Nudge, phase_signals, settle
from metarule.credit.equilibrium_propagation import BETA, HOSTS
from metarule.credit.feedback import target_of
from metarule.network import Activity


@dataclass(frozen=True)
class ContinuousUpdate(EnergyPhases):
    """After the free phase each nudged sweep is a stage: post against post_ref, a sweep ago; reward = 1 / beta.

    dW = reward (post - post_ref) pre^T is spike-timing-dependent plasticity in rates. With post_ref (pre - pre_ref)^T
    added, the stages sum to one-sided equilibrium propagation where W waits.
    Raises ValueError on fewer than one step, a relaxation outside (0, 2), a `tolerance` not kept.
    """

    kind = "continuous_update"
    source = "Bengio et al. 2017; Ernoult et al. 2020"
    not_local = "Activity comes down through the transposed forward weights: symmetric weights."
    requires = HOSTS

    free_steps: int = 40
    taught_steps: int = 2
    relaxation: float = 1.6
    tolerance: float | None = None

    @property
    def params(self):
        return (BETA,)

    def stages(self, network, batch):
        return self.taught_steps

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        beta = theta[:, :1, None]
        circuit = self.circuit(theta, network, weights, batch.x)
        before = Activity(**state) if k else self.free(circuit, weights, batch.x)
        after = settle(circuit, before, 1, Nudge(beta, target_of(batch)))
        scales = dict.fromkeys(network.sizes, 1 / beta)
        signals = phase_signals(network, weights, after.rates, before.rates, scales, wanted)
        return signals, after._asdict() if k + 1 < self.taught_steps else {}
