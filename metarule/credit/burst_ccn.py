"""Burst-dependent learning in one phase: inhibition leaves in the apical dendrite only what is unexpected."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.bursts import Bursts, arriving
from metarule.network import Projection
from metarule.signals import Signals


@dataclass(frozen=True)
class BurstCCN(Bursts):
    """b = sigmoid(slope apical (1 - e)) e, apical = Y b_above - Q e_above; expected bursts are e / 2: one phase.

    Q = Y / 2 cancels all that comes down while nobody teaches. It starts there where `cancelling`, and stays unless a
    rule `delta` serves the role "inhibition": dQ = apical e_above^T, apical as it is without a teacher.
    """

    kind = "burst_ccn"
    source = "Greedy et al. 2022"
    not_local = "Apical input comes through weights of their own; the inhibition that cancels it knows their strength."
    baseline = 0.5  # a hidden unit's burst probability where nothing reaches its apical dendrite

    feedback_std: float | None = None
    slope: float = 4.0
    cancelling: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slope <= 0:
            raise ValueError(f"credit.slope = {self.slope} must be positive")

    def projections(self, network):
        excitation = super().projections(network)
        return (*excitation, *(inhibition(projection) for projection in excitation))

    def gives_at(self, network, projection):
        return frozenset({"pre", "post", "error"}) if projection.role != "forward" else self.gives

    def tied(self, network, weights):
        if not self.cancelling:
            return weights
        start = {inhibition(p).name: self.baseline * weights[p.name] for p in super().projections(network)}
        return {**weights, **start}

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        signals, state = super().stage(k, theta, network, weights, state, batch, step, noise, wanted)
        plastic = [p for p in super().projections(network) if inhibition(p).name in wanted]
        if plastic:
            events = network.forward(weights, batch.x).rates
            bursts = self.untaught(network, weights, events)
            for projection in plastic:
                name, lower = inhibition(projection).name, projection.target
                signals[name] = Signals(
                    weights[name],
                    pre=events[projection.source],
                    post=events[lower],
                    error=self.apical(network, weights, events, bursts, lower),
                )
        return signals, state

    def apical(self, network, weights, events, bursts, name):
        inhibited = (inhibition(feedback) for feedback in self.feedback_into(network, name))
        return super().apical(network, weights, events, bursts, name) - arriving(weights, events, inhibited)

    def probability(self, drive):
        return torch.sigmoid(self.slope * drive)

    def expected(self, network, weights, events):
        return {name: self.baseline * rate for name, rate in events.items()}


def inhibition(feedback: Projection) -> Projection:
    """The projection Q that runs beside a feedback projection Y."""
    return feedback._replace(name=feedback.name.replace("=>", "=|"), role="inhibition")
