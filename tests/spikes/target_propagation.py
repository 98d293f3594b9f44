"""Difference target propagation: targets travel down through learned inverses."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit import CreditAssignment
from metarule.network import Network, Projection
from metarule.nonlinearities import NONLINEARITIES
from metarule.params import Param
from metarule.signals import Signals


@dataclass(frozen=True)
class DifferenceTargetPropagation(CreditAssignment):
    """target_L = h_L + step e; target_l = h_l + G_l(target_{l+1}) - G_l(h_{l+1}), G_l(h) = f(V_l h).

    V learns to undo the layer above it from noisy activity: post = h_l + xi against post_ref = G_l(F(h_l + xi)).
    """

    kind = "difference_target_propagation"
    source = "Lee et al. 2015"
    gives = frozenset({"pre", "post", "post_ref", "gain"})
    plastic_roles = frozenset({"inverse"})

    @property
    def params(self):
        return (Param("step", start=0.2, log=True), Param("sigma", start=0.1, log=True))

    def projections(self, network):
        return tuple(
            Projection(f"{p.target}~>{p.source}", p.target, p.source, "inverse")
            for p in network.projections
            if p.source != network.input_name
        )

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        assert batch.y is not None
        size, sigma = theta[:, :1, None], theta[:, 1:2, None]
        rates = network.forward(weights, batch.x).rates
        top = network.output_name
        targets = {top: rates[top] + size * (batch.y - rates[top])}
        signals = {}
        for inverse in reversed(self.projections(network)):
            upper, lower = inverse.source, inverse.target
            above, seen = self.invert(network, weights, inverse, targets[upper], rates[upper])
            targets[lower] = rates[lower] + above - seen
            noisy = rates[lower] + sigma * noise.at("xi", lower).normal(*rates[lower].shape[1:])
            (forward,) = network.into(upper)
            driven = torch.bmm(network.pre(forward, {lower: noisy}), weights[forward.name].transpose(1, 2))
            reached = network.rate(upper, driven)
            rebuilt = self.invert(network, weights, inverse, reached)[0]
            signals[inverse.name] = Signals(
                weights[inverse.name], reached, noisy, post_ref=rebuilt, gain=network.gain(lower, {lower: rebuilt})
            )
        for projection in network.projections:
            post = projection.target
            signals[projection.name] = Signals(
                weights[projection.name],
                network.pre(projection, rates),
                targets[post],
                post_ref=rates[post],
                gain=network.gain(post, rates),
            )
        return {name: seen for name, seen in signals.items() if name in wanted}, state

    @staticmethod
    def invert(network: Network, weights, inverse: Projection, *rates):
        """G of each of some rates of the upper population."""
        nonlinearity = NONLINEARITIES[network.activations[inverse.target]]
        matrix = weights[inverse.name].transpose(1, 2)
        return [nonlinearity.rate(torch.bmm(rate, matrix), network.beta) for rate in rates]
