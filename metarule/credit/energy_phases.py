"""What contrastive kinds of credit share: units settle freely, then under teaching, and the phases are compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
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
    """A kind whose `free_steps` sweeps settle the untaught network; what it answers is where they end.

    That they end at rest is not guaranteed: the stronger the weights, the more sweeps it takes. `residual` measures
    what is left, and a free phase that leaves more than `tolerance` is a ValueError; None, the default, never looks.
    """

    gives = PHASES
    free_steps: int
    taught_steps: int
    relaxation: float
    tolerance: float | None

    def __post_init__(self) -> None:
        for name in ("free_steps", "taught_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"credit.{name} = {getattr(self, name)} must be at least 1")
        if not 0 < self.relaxation < 2:
            raise ValueError(f"credit.relaxation = {self.relaxation} must lie between 0 and 2")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"credit.tolerance = {self.tolerance} must be positive")

    def circuit(self, theta: Tensor, network: Network, weights: Weights, x: Tensor) -> Circuit:
        """The weights both ways; W and its transpose unless overridden."""
        return Circuit.around(network, weights, x)

    def free(self, circuit: Circuit, weights: Weights, x: Tensor) -> Activity:
        """The free phase, begun at the feedforward pass; raises ValueError where it ends beyond the `tolerance`."""
        start = circuit.network.forward(weights, x)
        activity = settle(circuit, start, self.free_steps, relaxation=self.relaxation)
        if self.tolerance is not None and not (left := float(residual(circuit, activity).max())) <= self.tolerance:
            raise ValueError(
                f"credit.tolerance = {self.tolerance}: after {self.free_steps} sweeps the free phase has a residual of "
                f"{left:.2g}; raise credit.free_steps, or begin with smaller weights"
            )
        return activity

    def respond(self, theta, network, weights, state, x, noise):
        return self.free(self.circuit(theta, network, weights, x), weights, x)


def settle(
    circuit: Circuit,
    activity: Activity,
    steps: int,
    nudge: Nudge | None = None,
    clamped: Collection[str] = (),
    relaxation: float = 1.0,
) -> Activity:
    """`steps` sweeps of a <- a + relaxation (below + above + nudge - a), h = f(a), from the output down.

    One population after another, each with the newest rates. At relaxation 1 and with symmetric weights no sweep
    raises the energy, where steps of all at once may cycle (Hopfield 1984). Between 1 and 2, successive
    over-relaxation (Young 1954): weakly damped modes come to rest in far fewer sweeps, at the same places.
    The input and populations that are `clamped` stay as they are.
    """
    network = circuit.network
    drives, rates = dict(activity.drives), dict(activity.rates)
    moving = [p.name for p in reversed(network.populations[1:]) if p.name not in clamped]
    for _ in range(steps):
        for name in moving:
            drive = circuit.feedback(name, rates, onto=circuit.drive(name, rates))
            if nudge is not None and name == network.output_name:
                drive = torch.addcmul(drive, nudge.beta, nudge.target - rates[name])
            if relaxation != 1.0:
                drive = torch.lerp(drives[name], drive, relaxation)
            drives[name], rates[name] = drive, network.rate(name, drive)
    return Activity(drives, rates)


def residual(circuit: Circuit, activity: Activity) -> Float[Tensor, " R"]:
    """How far activity is from rest: the greatest |f(drive from below + feedback from above) - rate| of each run."""
    network, rates = circuit.network, activity.rates
    names = [population.name for population in network.populations[1:]]
    drives = {name: circuit.feedback(name, rates, onto=circuit.drive(name, rates)) for name in names[:-1]}
    drives[names[-1]] = circuit.drive(names[-1], rates)
    return torch.stack([(network.rate(n, drives[n]) - rates[n]).abs().amax((1, 2)) for n in names]).amax(0)


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
