"""PEPITA: the input is seen twice, the second time with the error added to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import output_error, target_of
from metarule.network import Network, Projection
from metarule.signals import Signals


@dataclass(frozen=True)
class Pepita(CreditAssignment):
    """A second pass sees x - F (target - output); post is its activity, post_ref that of the first pass.

    pre is the activity of the second pass. With the rule `activity_difference`, dW = (h' - h) pre'^T in hidden layers;
    at the output post is the target, dW = (target - output) pre'^T. F is fixed, drawn uniformly within
    `scale` sqrt(6 / J), J the number of inputs.
    """

    kind = "pepita"
    source = "Dellaferrera and Kreiman 2022"
    not_local = "The output's error reaches the input; two passes have to be kept apart."
    gives = frozenset({"pre", "post", "post_ref"})

    scale: float = 0.05

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"credit.scale = {self.scale} must be positive")

    def projections(self, network):
        return (self.feedback(network),)

    def feedback(self, network: Network) -> Projection:
        """F, from the output to the input."""
        top, bottom = network.output_name, network.input_name
        std = self.scale * math.sqrt(2 / network.sizes[bottom])
        return Projection(f"{top}=>{bottom}", top, bottom, "feedback", std=std)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        first = network.forward(weights, batch.x)
        error = output_error(network, first, batch)
        back = weights[self.feedback(network).name].transpose(1, 2)
        second = network.forward(weights, torch.baddbmm(batch.x, error, back, alpha=-1))
        reached = {**second.rates, network.output_name: target_of(batch)}
        signals = {
            p.name: Signals(
                weights[p.name],
                pre=network.pre(p, second.rates),
                post=reached[p.target],
                post_ref=first.rates[p.target],
            )
            for p in network.projections
            if p.name in wanted
        }
        return signals, state
