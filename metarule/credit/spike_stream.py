"""Spike stream: every event lasts some time steps in which units spike, one event after another without a pause."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from metarule.credit.base import CreditAssignment, Weights
from metarule.credit.soft_winners import COMPETITION, adapted, chances, competed, thresholds_at_rest
from metarule.credit.taught_readout import readout_taught
from metarule.network import Network, Projection
from metarule.params import Param
from metarule.rng import Noise
from metarule.signals import Signals, State


@dataclass(frozen=True)
class SpikeStream(CreditAssignment):
    """Hidden projections see B `steps` time steps as events: spikes as pre and post, their traces as the references.

    trace <- (trace + spike) exp(-1 / tau) once a step is over: it holds the spikes before this step, and goes on from
    batch to batch. An input spikes with probability x at every step; of a hidden layer one unit does, drawn from
    softmax(gain drive - threshold), its drive the weighted rates that the traces and the present spikes estimate. The
    readout is taught, and hears soft winners (as does who asks when nobody teaches). Raises ValueError where `steps`
    is below 1.
    """

    kind = "spike_stream"
    source = "Song, Miller and Abbott 2000; competition: Nessler et al. 2013"
    not_local = "Units of a layer compete: each hears what the others do. The readout hears its own error."
    gives = frozenset({"pre", "post", "pre_ref", "post_ref", "error"})

    steps: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"credit.steps = {self.steps} must be at least 1: an event lasts that many time steps")

    @property
    def params(self):
        return (*COMPETITION, Param("tau_pre", start=1.0, log=True), Param("tau_post", start=1.0, log=True))

    def gives_at(self, network, projection):
        reads_out = projection.target == network.output_name
        return frozenset({"pre", "post", "error"}) if reads_out else self.gives - {"error"}

    def init(self, theta, network, weights, noise):
        runs, traces = len(theta), {}
        for p in hidden_projections(network):
            size_out, size_in = network.shape(p)
            traces[p.name] = {"pre": theta.new_zeros(runs, 1, size_in), "post": theta.new_zeros(runs, 1, size_out)}
        return {"thresholds": thresholds_at_rest(theta, network), "traces": traces}

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = competed(theta, network, weights, state["thresholds"], batch.x)
        signals = readout_taught(network, weights, activity, batch, wanted)
        heard, state = self.spiking(theta, network, weights, state, batch.x, noise)
        return {name: heard.get(name, signals[name]) for name in signals}, state

    def spiking(
        self, theta: Tensor, network: Network, weights: Weights, state: State, x: Tensor, noise: Noise
    ) -> tuple[dict[str, Signals], State]:
        """The signals of a stretch of the stream at every hidden projection, and the state after it."""
        tau_pre, tau_post = theta[:, 2, None, None], theta[:, 3, None, None]
        chance = x.repeat_interleave(self.steps, dim=1)
        spikes = {network.input_name: drawn(chance, noise.at(network.input_name).uniform(*chance.shape[1:]))}
        signals: dict[str, Signals] = {}
        traces: State = {}
        for name, threshold in state["thresholds"].items():
            before = {p.name: state["traces"][p.name] for p in network.into(name)}
            pre = {p.name: network.pre(p, spikes) for p in network.into(name)}
            trace = {edge: traced(pre[edge], before[edge]["pre"], tau_pre) for edge in pre}
            # 1 - exp(-1 / tau) turns a trace that holds the present spike into an estimate of the rate
            rate = {edge: -torch.expm1(-1 / tau_pre) * (trace[edge][:, :-1] + pre[edge]) for edge in pre}
            drive = torch.stack([torch.bmm(rate[edge], weights[edge].transpose(1, 2)) for edge in pre]).sum(0)
            spikes[name] = winner(chances(theta, drive, threshold), noise.at(name).uniform(drive.shape[1], 1))
            for edge in pre:
                back = traced(spikes[name], before[edge]["post"], tau_post)
                signals[edge] = Signals(weights[edge], pre[edge], spikes[name], trace[edge][:, :-1], back[:, :-1])
                traces[edge] = {"pre": trace[edge][:, -1:], "post": back[:, -1:]}
        thresholds = {name: adapted(theta, old, spikes[name]) for name, old in state["thresholds"].items()}
        return signals, {"thresholds": thresholds, "traces": traces}

    def respond(self, theta, network, weights, state, x, noise):
        return competed(theta, network, weights, state["thresholds"], x)


def hidden_projections(network: Network) -> tuple[Projection, ...]:
    """The forward projections between units that spike."""
    return tuple(p for p in network.projections if p.target != network.output_name)


def drawn(chance: Tensor, uniform: Tensor) -> Tensor:
    """1 where `chance` exceeds the draw, else 0; its gradient is 0, as that of every jump."""
    return torch.sign(chance - uniform).clamp(min=0)


def winner(chance: Float[Tensor, "R B I"], uniform: Float[Tensor, "R B 1"]) -> Float[Tensor, "R B I"]:
    """One unit per event, one-hot, with its chance."""
    beyond = drawn(chance.cumsum(-1), uniform)
    return beyond - functional.pad(beyond[:, :, :-1], (1, 0))


def traced(
    spikes: Float[Tensor, "R B n"], trace: Float[Tensor, "R 1 n"], tau: Float[Tensor, "R 1 1"]
) -> Float[Tensor, "R B+1 n"]:
    """The trace before every time step and after the last: `trace`, decayed, + sum over past spikes exp(-lag / tau)."""
    held = torch.cat((trace, torch.exp(-1 / tau) * spikes), dim=1)
    lag = 1
    while lag < held.shape[1]:  # every pass doubles how far back the sums reach (Hillis and Steele, 1986)
        held = held + torch.exp(-lag / tau) * functional.pad(held[:, :-lag], (0, 0, lag, 0))
        lag *= 2
    return held
