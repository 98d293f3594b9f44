"""What the target kinds of credit share: a chain of layers, each told how far its activity should move."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from metarule.credit.base import CreditAssignment, Weights
from metarule.network import Activity, Network, Projection
from metarule.params import Param
from metarule.rng import Noise
from metarule.signals import Batch, Signals

STEP = Param("step", start=0.2, log=True)
"""How far along its error the output should move."""

SIGMA = Param("sigma", start=0.1, log=True)
"""Standard deviation of the noise from which feedback is learned."""

Moves = dict[str, Tensor]
"""Population -> target - activity (R B units)."""


class Targets(CreditAssignment):
    """Every unit hears a target: post = activity + move, post_ref = activity.

    A batch is `inverse_stages` stages in which feedback is learned from noise, then one in which the forward weights
    follow their targets. A member says in `moves` how far each layer should go, in `inverse_signals` what its feedback
    learns from. Raises ValueError where the network is no chain or the task gives no target.
    """

    gives = frozenset({"pre", "post", "post_ref", "gain"})
    inverse_stages: int = 0

    def projections(self, network) -> tuple[Projection, ...]:
        chain(network)
        return ()

    def stages(self, network, batch):
        return self.inverse_stages + 1

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        if k < self.inverse_stages:
            return self.inverse_signals(theta, network, weights, activity, noise, wanted), state
        moves = self.moves(theta, network, weights, activity, batch)
        signals = {}
        for projection in chain(network):
            if projection.name in wanted:
                post = projection.target
                signals[projection.name] = Signals(
                    weights[projection.name],
                    pre=network.pre(projection, activity.rates),
                    post=activity.rates[post] + moves[post],
                    post_ref=activity.rates[post],
                    gain=network.gain(post, activity.rates),
                )
        return signals, state

    def moves(self, theta: Tensor, network: Network, weights: Weights, activity: Activity, batch: Batch) -> Moves:
        """target - activity of every population above the input."""
        raise NotImplementedError

    def inverse_signals(
        self,
        theta: Tensor,
        network: Network,
        weights: Weights,
        activity: Activity,
        noise: Noise,
        wanted: Mapping[str, frozenset[str]],
    ) -> dict[str, Signals]:
        """Signals at the plastic feedback projections; none unless overridden."""
        return {}


@functools.lru_cache(maxsize=256)
def chain(network: Network) -> tuple[Projection, ...]:
    """The forward projections bottom up; raises ValueError where the network has a skip or a branch."""
    found = []
    for below, above in itertools.pairwise(network.populations):
        into = network.into(above.name)
        sources = [projection.source for projection in into]
        if sources != [below.name]:
            raise ValueError(
                f"targets travel down a chain of layers, but population '{above.name}' receives from "
                f"{', '.join(sources)} where '{below.name}' alone is possible; take out skips and branches, or choose "
                "a kind of credit that sums over them, such as backprop"
            )
        found.append(into[0])
    return tuple(found)


def driven(network: Network, weights: Weights, projection: Projection, activity: Tensor) -> Tensor:
    """What `activity` of its source drives a projection's target with (R B I)."""
    pre = network.pre(projection, {projection.source: activity})
    return torch.bmm(pre, weights[projection.name].transpose(1, 2))


def onward(network: Network, weights: Weights, start: str, rate: Tensor, layers: int | None = None) -> Activity:
    """Activity of `start`, firing at `rate`, and of the `layers` above it; of all where none are counted."""
    drives: dict[str, Tensor] = {}
    rates = {start: rate}
    above = itertools.dropwhile(lambda projection: projection.source != start, chain(network))
    for projection in itertools.islice(above, layers):
        drives[projection.target] = driven(network, weights, projection, rates[projection.source])
        rates[projection.target] = network.rate(projection.target, drives[projection.target])
    return Activity(drives, rates)


def checked_stages(inverse_stages: int) -> None:
    """Raises ValueError where feedback would have no stage to learn in."""
    if inverse_stages < 1:
        raise ValueError(f"credit.inverse_stages = {inverse_stages} must be at least 1, for feedback is learned")
