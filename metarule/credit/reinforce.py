"""Reinforce: units that are noisy, one act, one reward; deviations that were followed by success are repeated."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.acting import SingleTrial, act, explored
from metarule.params import Param
from metarule.signals import Signals


@dataclass(frozen=True)
class Reinforce(SingleTrial):
    """post = m + s xi, post_ref = m = f(drive), reward = (r - expected) / s^2 at a hidden unit, s = `sigma`.

    The output acts: softmax draws a unit (post = action, post_ref = its chances, reward = r - expected), linear adds
    noise of size `output_sigma`. With rule `reinforce` the update is the gradient of the expected reward on average
    over draws, for any `expected`.
    """

    kind = "reinforce"
    source = "Williams 1992"
    not_local = "The reward reaches every synapse."
    gives = frozenset({"pre", "post", "post_ref", "gain", "reward"})

    @property
    def params(self):
        return Param("sigma", start=0.1, log=True), Param("output_sigma", start=0.1, log=True)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        sigma, output_sigma = theta[:, :1, None], theta[:, 1:2, None]
        top, noisy = network.output_name, explored(network, wanted)
        means, precisions = {}, {}

        def drawn(name, drive):
            means[name], precisions[name] = network.rate(name, drive), sigma**-2
            if name == top:
                action, means[name], precisions[name] = act(network, means[name], output_sigma, noise.at(name))
                return action
            return means[name] + sigma * noise.at(name).normal(*drive.shape[1:]) if name in noisy else means[name]

        rates = network.forward(weights, batch.x, drawn).rates
        success, state = self.success(state, batch, rates[top])
        signals = {
            p.name: Signals(
                weights[p.name],
                network.pre(p, rates),
                rates[p.target],
                post_ref=means[p.target],
                gain=network.gain(p.target, means),
                reward=success * precisions[p.target],
            )
            for p in network.projections
            if p.name in wanted
        }
        return signals, state
