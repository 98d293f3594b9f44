"""Dendritic microcircuit in continuous time: somata and interneurons integrate, and lateral inhibition is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metarule.credit.base import Weights
from metarule.credit.compartments import compared
from metarule.credit.microcircuits import Microcircuit, apical, lateral_signals, to_interneurons
from metarule.credit.targets import chain, driven
from metarule.network import Activity, Network
from metarule.params import Param

Potentials = dict[str, Tensor]
"""Somatic potentials (R B units): of a population by its name, of interneurons by the name of their W_IP."""


@dataclass(frozen=True)
class ContinuousMicrocircuit(Microcircuit):
    """du/dt = -leak u + basal (v_B - u) + apical (v_A - u), v_B = W phi(u_below), in Euler steps of `dt`.

    Interneurons: du_I/dt = -leak u_I + dendritic (v_I - u_I) + nudge (u_above - u_I), v_I = W_IP phi(u). At the output
    nudge (target - u) stands for the apical term while it is taught. v_hat is the potential that v_B alone would hold.
    A batch is `lateral_stages` presentations of `duration` steps without a teacher, in which W_IP and W_PI learn, then
    one with it, in which W learns; gain undoes how much weaker teaching arrives from layer to layer. Lateral weights
    reach the self-predicting state only along directions in which rates vary: in a network of sigmoid units near 1/2
    they cancel the mean of what comes from above, and what the teacher adds to it arrives distorted. Teaching goes down
    one layer per step, so `duration` is at least the number of layers above the input.
    """

    kind = "continuous_microcircuit"
    source = "Sacramento et al. 2018"
    not_local = (
        "With feedback = 'transposed' top-down weights start as the transpose of the forward ones; with "
        "self_predicting lateral ones start as copies. Presentations without and with a teacher have to be told apart."
    )

    feedback: str = "transposed"
    self_predicting: bool = False
    low: float = 0.1
    high: float = 0.8
    leak: float = 0.1
    basal: float = 1.0
    apical: float = 0.8
    dendritic: float = 1.0
    dt: float = 0.5
    duration: int = 4
    lateral_stages: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("leak", "basal", "apical", "dendritic", "dt"):
            if getattr(self, name) <= 0:
                raise ValueError(f"credit.{name} = {getattr(self, name)} must be positive")
        for name in ("duration", "lateral_stages"):
            if getattr(self, name) < 1:
                raise ValueError(f"credit.{name} = {getattr(self, name)} must be at least 1")

    @property
    def params(self):
        return (Param("nudge", start=0.8, high=1.0, log=True),)

    def stages(self, network, batch):
        return self.lateral_stages + 1

    def prediction(self, network, projection):
        return self.share(network, projection.target) / self.interneuron_share

    def share(self, network: Network, population: str) -> float:
        """v_hat / v_B of a population."""
        other = self.leak if population == network.output_name else self.leak + self.apical
        return self.basal / (self.basal + other)

    @property
    def interneuron_share(self) -> float:
        """v_hat_I / v_I."""
        return self.dendritic / (self.leak + self.dendritic)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        nudge = theta[:, :1, None]
        mixing = nudge / (self.leak + self.dendritic + nudge)  # of the layer above in an interneuron
        taught = k == self.lateral_stages
        target = self.target_drive(network, batch, network.forward(weights, batch.x)) if taught else None
        potentials = self.settled(nudge, network, weights, batch.x, target)
        rates = self.rates(network, batch.x, potentials)
        signals = {}
        if not taught:
            for projection in chain(network)[1:]:
                into, upper = to_interneurons(projection), projection.target
                predicted = self.interneuron_share * driven(network, weights, into, rates[into.source])
                signals |= lateral_signals(
                    network, weights, projection, rates, network.rate(upper, potentials[into.name]),
                    network.rate(upper, predicted), 1 / mixing, wanted,
                )  # fmt: skip
            return signals, state
        predicted, gains = {}, {}
        gain = (self.leak + self.basal + nudge) / nudge
        for projection in reversed(chain(network)):
            name = projection.target
            basal = self.share(network, name) * driven(network, weights, projection, rates[projection.source])
            predicted[name], gains[name] = network.rate(name, basal), gain.expand_as(basal)
            gain = gain * (self.leak + self.basal + self.apical) / (self.apical * (1 - mixing))
        return compared(network, weights, rates, rates, predicted, gains, wanted), state

    def respond(self, theta, network, weights, state, x, noise):
        potentials = self.settled(theta[:, :1, None], network, weights, x, None)
        drives = {name: x if name == network.input_name else potentials[name] for name in network.sizes}
        return Activity(drives, self.rates(network, x, potentials))

    def settled(
        self, nudge: Tensor, network: Network, weights: Weights, x: Tensor, target: Tensor | None
    ) -> Potentials:
        """Potentials after `duration` steps from where basal dendrites alone would hold them."""
        potentials = self.at_rest(network, weights, x)
        for _ in range(self.duration):
            slopes = self.slopes(nudge, network, weights, potentials, self.rates(network, x, potentials), target)
            potentials = {name: torch.add(u, slopes[name], alpha=self.dt) for name, u in potentials.items()}
        return potentials

    def slopes(
        self,
        nudge: Tensor,
        network: Network,
        weights: Weights,
        potentials: Potentials,
        rates: Mapping[str, Tensor],
        target: Tensor | None,
    ) -> Potentials:
        """du/dt of every population and of its interneurons."""
        slopes = {}
        for projection in chain(network):
            lower, upper = projection.source, projection.target
            u = potentials[upper]
            basal = driven(network, weights, projection, rates[lower])
            slopes[upper] = self.basal * basal - (self.leak + self.basal) * u
            if lower == network.input_name:
                continue
            into = to_interneurons(projection)
            own = potentials[into.name]
            dendrite = driven(network, weights, into, rates[lower])
            slopes[into.name] = self.dendritic * dendrite - (self.leak + self.dendritic) * own + nudge * (u - own)
            reaching = apical(weights, projection, rates[upper], network.rate(upper, own))
            slopes[lower] = slopes[lower] + self.apical * (reaching - potentials[lower])
        if target is not None:
            top = network.output_name
            slopes[top] = slopes[top] + nudge * (target - potentials[top])
        return slopes

    def at_rest(self, network: Network, weights: Weights, x: Tensor) -> Potentials:
        """v_hat of every population and of its interneurons."""
        rates, potentials = {network.input_name: x}, {}
        for projection in chain(network):
            lower, upper = projection.source, projection.target
            potentials[upper] = self.share(network, upper) * driven(network, weights, projection, rates[lower])
            rates[upper] = network.rate(upper, potentials[upper])
            if lower != network.input_name:
                into = to_interneurons(projection)
                potentials[into.name] = self.interneuron_share * driven(network, weights, into, rates[lower])
        return potentials

    def rates(self, network: Network, x: Tensor, potentials: Potentials) -> dict[str, Tensor]:
        """Rates of every population."""
        somata = (population.name for population in network.populations[1:])
        return {network.input_name: x} | {name: network.rate(name, potentials[name]) for name in somata}
