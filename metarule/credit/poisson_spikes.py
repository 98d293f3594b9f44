"""Poisson spikes: every unit spikes at its rate, a synapse sees spikes and their traces, and nobody teaches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.collect import unknown
from metarule.credit.base import CreditAssignment
from metarule.credit.spike_stream import drawn, traced
from metarule.params import Param
from metarule.signals import Signals


@dataclass(frozen=True)
class PoissonSpikes(CreditAssignment):
    """An event lasts `steps` time steps, in each of which a unit spikes with the probability that its rate is.

    Rates are those of the feedforward pass; spikes are drawn from them, every unit for itself. `pre_ref` and `post_ref`
    are traces of the spikes before a time step, sum over lags exp(-lag / tau), which go on from batch to batch: at rate
    r a trace is r / (exp(1 / tau) - 1) on average. Weights out of the populations named in `inhibitory` start negative,
    all others positive. Raises ValueError where `steps` is below 1 or a population does not exist.
    """

    kind = "poisson_spikes"
    source = "Kempter, Gerstner and van Hemmen 1999; Vogels et al. 2011"
    not_local = "Nothing is sent."
    gives = frozenset({"pre", "post", "pre_ref", "post_ref"})

    steps: int = 20
    inhibitory: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "inhibitory", tuple(self.inhibitory))
        if self.steps < 1:
            raise ValueError(f"credit.steps = {self.steps} must be at least 1: an event lasts that many time steps")

    @property
    def params(self):
        return Param("tau_pre", start=20.0, low=0.1, log=True), Param("tau_post", start=20.0, low=0.1, log=True)

    def projections(self, network):
        for name in self.inhibitory:
            if name not in network.sizes:
                raise ValueError(unknown("credit.inhibitory", name, network.sizes))
        return ()

    def tied(self, network, weights):
        signs = {p.name: -1.0 if p.source in self.inhibitory else 1.0 for p in network.projections}
        return {name: weight.abs() * signs.get(name, 1.0) for name, weight in weights.items()}

    def init(self, theta, network, weights, noise):
        shapes = {p.name: network.shape(p) for p in network.projections}
        return {
            name: {"pre": theta.new_zeros(len(theta), 1, size_in), "post": theta.new_zeros(len(theta), 1, size_out)}
            for name, (size_out, size_in) in shapes.items()
        }

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        rates = network.forward(weights, batch.x).rates
        plastic = [p for p in network.projections if p.name in wanted]
        spikes = {}
        for name in dict.fromkeys(end for p in plastic for end in (p.source, p.target)):
            chance = rates[name].repeat_interleave(self.steps, dim=1)
            spikes[name] = drawn(chance, noise.at(name).uniform(*chance.shape[1:]))
        tau_pre, tau_post = theta[:, 0, None, None], theta[:, 1, None, None]
        signals, state = {}, dict(state)
        for p in plastic:
            pre, post = network.pre(p, spikes), spikes[p.target]
            before, behind = traced(pre, state[p.name]["pre"], tau_pre), traced(post, state[p.name]["post"], tau_post)
            signals[p.name] = Signals(weights[p.name], pre, post, before[:, :-1], behind[:, :-1])
            state[p.name] = {"pre": before[:, -1:], "post": behind[:, -1:]}
        return signals, state


def trace_of_one(tau: torch.Tensor) -> torch.Tensor:
    """The sum of a spike's trace over all later time steps: what the mean of a trace is in units of the rate."""
    return 1 / torch.expm1(1 / tau)
