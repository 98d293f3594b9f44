"""Segregated dendrites: plateau potentials of an apical dendrite tell a unit what it should have done."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.base import CreditAssignment
from metarule.credit.compartments import compared
from metarule.credit.feedback import output_error
from metarule.network import Projection


@dataclass(frozen=True)
class SegregatedDendrites(CreditAssignment):
    """post = alpha^t = sigmoid(Y target), post_ref = alpha^f = sigmoid(Y output): plateaus with and without a teacher.

    Y (hidden I, output J) is random and fixed, `feedback_std` the standard deviation of its weights; the output itself
    is held at the target while it is taught. This is the rate form of the spiking model, one plateau per phase.
    Raises ValueError where the task gives no target.
    """

    kind = "segregated_dendrites"
    source = "Guerguiev, Lillicrap and Richards 2017"
    not_local = "The output's activity reaches every population directly, through weights of its own; two phases."
    gives = frozenset({"pre", "post", "post_ref", "gain"})

    feedback_std: float = 0.1

    def __post_init__(self) -> None:
        if self.feedback_std <= 0:
            raise ValueError(f"credit.feedback_std = {self.feedback_std} must be positive")

    def projections(self, network):
        top = network.output_name
        return tuple(
            Projection(f"{top}=>{population.name}", top, population.name, "feedback", std=self.feedback_std)
            for population in network.populations[1:-1]
        )

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        rates, top = activity.rates, network.output_name
        taught = {top: rates[top] + output_error(network, activity, batch)}
        untaught = {top: rates[top]}
        for projection in self.projections(network):
            transposed = weights[projection.name].transpose(1, 2)
            taught[projection.target] = torch.sigmoid(torch.bmm(taught[top], transposed))
            untaught[projection.target] = torch.sigmoid(torch.bmm(untaught[top], transposed))
        gains = {name: network.gain(name, rates) for name in taught}
        return compared(network, weights, rates, taught, untaught, gains, wanted), state
