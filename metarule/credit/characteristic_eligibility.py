"""Characteristic eligibility: a synapse remembers what it did for the act that was drawn; a reward then judges it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarule.credit.acting import act, explored, paid
from metarule.credit.base import CreditAssignment
from metarule.network import Projection
from metarule.params import Param
from metarule.signals import Signals


@dataclass(frozen=True)
class CharacteristicEligibility(CreditAssignment):
    """eligibility = d log chance of what was drawn / d weight; reward = what the act was paid, nothing subtracted.

    Units are noisy as in `reinforce`: post = m + s xi, post_ref = m, s = `sigma`, and the output acts. One event is one
    trial: the weights change after every single one, a stage each, so that a rule may multiply the two without a mean
    over trials. `reward_eligibility` is the gradient of the expected reward on average over draws.
    Raises ValueError where the task pays no reward.
    """

    kind = "characteristic_eligibility"
    source = "Williams 1992; Urbanczik and Senn 2009"
    not_local = "The reward reaches every synapse."
    gives = frozenset({"pre", "post", "post_ref", "reward", "eligibility"})

    @property
    def params(self):
        return Param("sigma", start=0.1, log=True), Param("output_sigma", start=0.1, log=True)

    def stages(self, network, batch):
        return batch.x.shape[1]

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        sigma, output_sigma = theta[:, :1, None], theta[:, 1:2, None]
        top, noisy = network.output_name, explored(network, wanted)
        means, scores = {}, {}

        def drawn(name, drive):
            means[name] = network.rate(name, drive)
            if name == top:
                action, means[name], precision = act(network, means[name], output_sigma, noise.at(name))
                scores[name] = (action - means[name]) * precision
                return action
            if name not in noisy:
                return means[name]
            jitter = noise.at(name).normal(*drive.shape[1:])
            scores[name] = jitter / sigma * network.gain(name, means)
            return means[name] + sigma * jitter

        rates = network.forward(weights, batch.x[:, k : k + 1], drawn).rates
        reward = paid(batch, rates[top].expand(-1, batch.x.shape[1], -1))[:, k : k + 1]

        def seen(projection: Projection) -> Signals:
            pre, score = network.pre(projection, rates), scores[projection.target]
            return Signals(
                weights[projection.name],
                pre,
                rates[projection.target],
                post_ref=means[projection.target],
                reward=reward,
                eligibility=_product(score, pre),
            )

        return {p.name: seen(p) for p in network.projections if p.name in wanted}, state


def _product(post_side: Tensor, pre_side: Tensor) -> Tensor:
    """(R 1 I), (R 1 J) -> (R I J)."""
    return torch.bmm(post_side.transpose(1, 2), pre_side)
