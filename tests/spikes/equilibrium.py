"""Equilibrium propagation: the network settles, is nudged both ways, and settles again; so does its answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit import CreditAssignment
from metarule.credit.feedback import without_bias
from metarule.network import Activity
from metarule.params import Param
from metarule.rules.linear import LinearRule
from metarule.signals import Signals
from metarule.terms import Term, monomial


@dataclass(frozen=True)
class EquilibriumPropagation(CreditAssignment):
    """s_l <- f(sum W s_below + sum W^T s_above), the output nudged by +-beta (target - s_L); reward = 1 / (2 beta)."""

    kind = "equilibrium_propagation"
    source = "Scellier and Bengio 2017; Laborieux et al. 2021"
    gives = frozenset({"pre", "post", "pre_ref", "post_ref", "reward"})
    requires = {"activation": ("sigmoid",), "output": ("sigmoid",)}  # noqa: RUF012

    free: int = 60
    nudged: int = 60

    @property
    def params(self):
        return (Param("beta", start=0.1, log=True),)

    def settle(self, network, weights, activity, steps, beta=None, target=None):
        """Synchronous steps from the rates of `activity`; the input stays clamped."""
        drives, rates = activity
        for _ in range(steps):
            drives = {network.input_name: rates[network.input_name]}
            for population in network.populations[1:]:
                name = population.name
                drive = sum(
                    torch.bmm(network.pre(p, rates), weights[p.name].transpose(1, 2)) for p in network.into(name)
                )
                for p in network.out_of(name):
                    drive = drive + torch.bmm(rates[p.target], without_bias(p, weights[p.name]))
                if name == network.output_name and beta is not None:
                    drive = drive + beta * (target - rates[name])
                drives[name] = drive
            rates = {name: rates[name] if name == network.input_name else network.rate(name, drives[name])
                     for name in drives}  # fmt: skip
        return Activity(drives, rates)

    def respond(self, theta, network, weights, state, x, noise):
        return self.settle(network, weights, network.forward(weights, x), self.free)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        beta = theta[:, :1, None]
        free = self.settle(network, weights, network.forward(weights, batch.x), self.free)
        plus = self.settle(network, weights, free, self.nudged, beta, batch.y).rates
        minus = self.settle(network, weights, free, self.nudged, -beta, batch.y).rates
        scale = (1 / (2 * beta)).expand(-1, batch.x.shape[1], 1)
        signals = {
            p.name: Signals(
                weights[p.name], network.pre(p, plus), plus[p.target],
                pre_ref=network.pre(p, minus), post_ref=minus[p.target], reward=scale,
            )
            for p in network.projections
            if p.name in wanted
        }  # fmt: skip
        return signals, state


@dataclass(frozen=True)
class ScaledContrastive(LinearRule):
    """dW = reward (post pre^T - post_ref pre_ref^T): contrastive Hebbian learning at the size that credit knows."""

    kind = "scaled_contrastive"
    source = "Laborieux et al. 2021"

    @property
    def weighted(self):
        near = monomial(reward=1, post=1, pre=1)
        far = monomial(reward=1, post_ref=1, pre_ref=1)
        return (Term("reward_contrastive", ((1, near), (-1, far))),)
