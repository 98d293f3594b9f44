"""Neuromodulated plasticity: units fluctuate or spike through a trial, and what it earns meets their trace."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.credit.acting import SingleTrial, act, paid
from metarule.network import Network, Projection
from metarule.nonlinearities import NONLINEARITIES, Nonlinearity
from metarule.params import Param
from metarule.rng import Noise
from metarule.signals import Batch, Signals, State

Populations = dict[str, Tensor]
"""Population -> (R T*B units)."""


@dataclass(frozen=True)
class TimedTrial(SingleTrial):
    """A trial of `steps` time steps: x stays, hidden units are drawn anew at each, and so is the action.

    (time, sample) lie on the events axis, times leading, and an eligibility that decays with `tau` is a number per
    event. What is paid is the mean action of the trial, `delay` time steps after its end:
    reward_t = steps (r - expected) exp(-(steps - 1 - t + delay) / tau), the factor `steps` because updates are means
    over events. A linear output adds noise of size `output_sigma`. Raises ValueError for no steps or a negative delay.
    """

    steps: int = 3
    delay: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"credit.steps = {self.steps} must be at least 1")
        if self.delay < 0:
            raise ValueError(f"credit.delay = {self.delay} must not be negative")

    @property
    def params(self) -> tuple[Param, ...]:
        return Param("tau", start=20.0, low=0.1, log=True), Param("output_sigma", start=0.1, log=True)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        means: Populations = {}
        precisions: dict[str, Tensor | float] = {}

        def drawn(name, drive):
            mean, own = network.rate(name, drive), noise.at(name)
            if name == network.output_name:
                rate, mean, precisions[name] = act(network, mean, theta[:, 1:2, None], own)
            else:
                rate, precisions[name] = self.draw(mean, NONLINEARITIES[network.activations[name]], theta, own)
            means[name] = mean
            return rate

        rates = network.forward(weights, batch.x.repeat(1, self.steps, 1), drawn).rates
        modulator, state = self.modulator(theta, state, batch, self._by_time(rates[network.output_name]))
        modulator = self.steps * modulator.flatten(1, 2)
        signals = {
            p.name: Signals(
                weights[p.name],
                network.pre(p, rates),
                rates[p.target],
                reward=modulator * precisions[p.target],
                **self.references(network, p, rates, means, theta),
            )
            for p in network.projections
            if p.name in wanted
        }
        return signals, state

    def modulator(
        self, theta: Tensor, state: State, batch: Batch, actions: Float[Tensor, "R T B I"]
    ) -> tuple[Float[Tensor, "R T B 1"], State]:
        """What the third factor still does to an eligibility laid down at each time step, and the new state."""
        success, state = self.success(state, batch, actions.mean(1))
        late = torch.arange(self.steps - 1, -1, -1, dtype=theta.dtype, device=theta.device) + self.delay
        return torch.exp(-late / theta[:, :1])[:, :, None, None] * success[:, None], state

    @abstractmethod
    def draw(
        self, mean: Tensor, nonlinearity: Nonlinearity, theta: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor | float]:
        """Hidden activity about its mean, and what turns deviation times gain into a score."""

    @abstractmethod
    def references(
        self, network: Network, projection: Projection, rates: Populations, means: Populations, theta: Tensor
    ) -> Populations:
        """The signals of the member's own at a projection."""

    def _by_time(self, events: Tensor) -> Tensor:
        """(R T*B n) -> (R T B n)."""
        return events.unflatten(1, (self.steps, -1))


@dataclass(frozen=True)
class ThreeFactor(TimedTrial):
    """post = m + sigma xi, post_ref = m = f(drive); at the output post = action, post_ref = its mean.

    With rule `reinforce` the eligibility is a sum over time of gain (post - post_ref) pre; without forgetting
    (tau -> infinity) the update is the gradient of the expected reward on average.
    """

    kind = "three_factor"
    source = "Miconi 2017; Fremaux and Gerstner 2016"
    not_local = "The reward reaches every synapse."
    gives = frozenset({"pre", "post", "post_ref", "gain", "reward"})

    @property
    def params(self):
        return *super().params, Param("sigma", start=0.1, log=True)

    def draw(self, mean, nonlinearity, theta, noise):
        sigma = theta[:, 2:3, None]
        return mean + sigma * noise.normal(*mean.shape[1:]), sigma**-2

    def references(self, network, projection, rates, means, theta):
        return {"post_ref": means[projection.target], "gain": network.gain(projection.target, means)}


@dataclass(frozen=True)
class RewardModulatedSpikes(TimedTrial):
    """Hidden units spike or not, on average at their rate; `pre_ref` and `post_ref` are traces of the spikes.

    A sigmoid unit is 1 or 0. A tanh unit is 1 or -1: spikes counted from the rate at rest, a half.
    Traces decay with `tau_pre` and `tau_post`. Within a time step pre spikes come first: `pre_ref` counts them,
    `post_ref` holds what came before. Every action is paid `delay` time steps later, and success_t is its reward less
    the mean of the trial's earlier ones and of `expected`: without an expectation of its own for every stimulus, STDP
    would follow correlations that earn nothing (Fremaux, Sprekeler and Gerstner 2010).
    reward_s = steps sum_{t >= s} exp(-(t - s + delay) / tau) success_t.
    """

    kind = "reward_modulated_spikes"
    source = "Izhikevich 2007; Florian 2007"
    not_local = "The reward reaches every synapse."
    gives = frozenset({"pre", "post", "pre_ref", "post_ref", "reward"})
    requires = {"activation": ("tanh", "sigmoid")}  # noqa: RUF012

    steps: int = 8

    @property
    def params(self):
        taus = (Param("tau_pre", start=2.0, low=0.1, log=True), Param("tau_post", start=0.5, low=0.1, log=True))
        return *super().params, *taus

    def modulator(self, theta, state, batch, actions):
        rewards = torch.stack([paid(batch, action) for action in actions.unbind(1)], dim=1)
        earlier = rewards.cumsum(1) - rewards + state["expected"][:, None]
        lag = _lags(theta.new_zeros(self.steps))
        success = rewards - earlier / (torch.arange(self.steps, device=lag.device) + 1)[:, None, None]
        later = torch.exp(-(self.delay - lag.clamp(max=0)) / theta[:, :1, None]) * (lag <= 0)
        return torch.bmm(later, success.flatten(2)).reshape(success.shape), self.expecting(state, rewards.mean(1))

    def draw(self, mean, nonlinearity, theta, noise):
        low, high = nonlinearity.low, nonlinearity.high
        spikes = noise.uniform(*mean.shape[1:]) < (mean - low) / (high - low)
        return low + (high - low) * spikes.to(mean.dtype), 1.0

    def references(self, network, projection, rates, means, theta):
        lag = _lags(theta.new_zeros(self.steps))
        pre, post = self._by_time(network.pre(projection, rates)), self._by_time(rates[projection.target])
        return {
            "pre_ref": _trace(pre, theta[:, 2], lag, lag >= 0),
            "post_ref": _trace(post, theta[:, 3], lag, lag > 0),
        }


def _lags(times: Tensor) -> Tensor:
    """t - s, (T T), for as many time steps as there are in `times`."""
    place = torch.arange(len(times), dtype=times.dtype, device=times.device)
    return place[:, None] - place


def _trace(spikes: Tensor, tau: Tensor, lag: Tensor, counts: Tensor) -> Tensor:
    """sum over times s that count of exp(-(t - s) / tau) spikes_s, (R T B n) -> (R T*B n)."""
    kernel = torch.exp(-lag.clamp(min=0) / tau[:, None, None]) * counts
    return torch.bmm(kernel, spikes.flatten(2)).reshape(spikes.shape).flatten(1, 2)
