"""What contrastive kinds of credit share: units settle freely, then under teaching, and the phases are compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metarule.credit.base import CreditAssignment, Weights
from metarule.credit.settling import Circuit
from metarule.network import Activity, Network
from metarule.signals import Signals

PHASES = frozenset({"pre", "post", "pre_ref", "post_ref", "reward"})
"""The signals that two phases give: taught against free, and the scale of their difference as reward."""


class Nudge(NamedTuple):
    """The pull beta (target - rate) on the output's drive, beta (R 1 1) or (R B 1)."""

    beta: Tensor
    target: Tensor


class EnergyPhases(CreditAssignment):
    """A kind whose `free_steps` sweeps settle the untaught network; what it answers is where they end."""

    gives = PHASES
    free_steps: int
    taught_steps: int

    def __post_init__(self) -> None:
        for name in ("free_steps", "taught_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"credit.{name} = {getattr(self, name)} must be at least 1")

    def circuit(self, theta: Tensor, network: Network, weights: Weights, x: Tensor) -> Circuit:
        """The weights both ways; W and its transpose unless overridden."""
        return Circuit.around(network, weights, x)

    def free(self, theta: Tensor, network: Network, weights: Weights, x: Tensor) -> Activity:
        """The free phase, begun at the feedforward pass."""
        return settle(self.circuit(theta, network, weights, x), network.forward(weights, x), self.free_steps)

    def respond(self, theta, network, weights, state, x, noise):
        return self.free(theta, network, weights, x)


def settle(
    circuit: Circuit,
    activity: Activity,
    steps: int,
    nudge: Nudge | None = None,
    clamped: Collection[str] = (),
) -> Activity:
    """`steps` sweeps of h <- f(drive from below + feedback from above + nudge), from the output down.

    One population after another, each with the newest rates: with symmetric weights no sweep raises the energy, where
    steps of all at once may cycle (Hopfield 1984). The input and populations that are `clamped` stay as they are.
    """
    network = circuit.network
    drives, rates = dict(activity.drives), dict(activity.rates)
    moving = [p.name for p in reversed(network.populations[1:]) if p.name not in clamped]
    for _ in range(steps):
        for name in moving:
            drive = circuit.feedback(name, rates, onto=circuit.drive(name, rates))
            if nudge is not None and name == network.output_name:
                drive = torch.addcmul(drive, nudge.beta, nudge.target - rates[name])
            drives[name], rates[name] = drive, network.rate(name, drive)
    return Activity(drives, rates)


def phase_signals(
    network: Network,
    weights: Weights,
    taught: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    wanted: Mapping[str, frozenset[str]],
) -> dict[str, Signals]:
    """Signals at every plastic projection, from the rates of two phases; reward is the scale (R 1 1) of its target."""
    events = taught[network.output_name].shape[1]
    return {
        p.name: Signals(
            weights[p.name],
            network.pre(p, taught),
            taught[p.target],
            pre_ref=network.pre(p, free),
            post_ref=free[p.target],
            reward=scales[p.target].expand(-1, events, 1),
        )
        for p in network.projections
        if p.name in wanted
    }
