"""What the burst kinds of credit share: events carry activity up, the fraction of them that are bursts carries credit.

A unit's event rate e is its rate, its burst rate b = p e with p the burst probability. The output's bursts are
p = baseline (1 + (y - e)(1 - e)) when it is taught, the baseline when it is not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from metarule.credit.base import CreditAssignment, Weights
from metarule.credit.compartments import compared
from metarule.credit.feedback import feedback_projection, output_error
from metarule.network import Network, Projection
from metarule.signals import Signals

Rates = Mapping[str, Tensor]
"""Population -> events or bursts (R B units)."""


class Bursts(CreditAssignment):
    """post = bursts when the output is taught, post_ref = bursts expected without a teacher, pre = events.

    A member says what drives an apical dendrite, how a hidden unit's burst probability follows and what is expected.
    Feedback Y is fixed unless a rule `delta` serves it, which then changes it as W changes (Kolen-Pollack). Raises
    ValueError where the task gives no target.
    """

    gives = frozenset({"pre", "post", "post_ref"})
    requires = {"activation": ("sigmoid",), "output": ("sigmoid",)}  # noqa: RUF012
    baseline: float
    feedback_std: float | None

    def __post_init__(self) -> None:
        if not 0 < self.baseline <= 0.5:
            raise ValueError(f"credit.baseline = {self.baseline} must lie in (0, 0.5]: taught, it is doubled")
        if self.feedback_std is not None and self.feedback_std <= 0:
            raise ValueError(f"credit.feedback_std = {self.feedback_std} must be positive")

    def projections(self, network):
        return tuple(self.feedback(p) for p in network.projections if p.source != network.input_name)

    def feedback(self, projection: Projection) -> Projection:
        """The projection Y against a forward one."""
        return feedback_projection(projection)._replace(std=self.feedback_std)

    def feedback_into(self, network: Network, name: str) -> tuple[Projection, ...]:
        """The projections Y into a hidden population."""
        return tuple(self.feedback(projection) for projection in network.out_of(name))

    def gives_at(self, network: Network, projection: Projection):
        return frozenset({"pre", "post", "error"}) if projection.role == "feedback" else self.gives

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        events, top = activity.rates, network.output_name
        error = output_error(network, activity, batch)
        taught = self.sweep(network, weights, events, self.baseline * (1 + error * (1 - events[top])) * events[top])
        expected = self.expected(network, weights, events)
        signals = compared(network, weights, events, taught, expected, {}, wanted)
        for feedback in Bursts.projections(self, network):
            if feedback.name in wanted:
                surprise, lower = taught[feedback.source] - expected[feedback.source], events[feedback.target]
                signals[feedback.name] = Signals(weights[feedback.name], pre=surprise, post=lower, error=lower)
        return signals, state

    def sweep(self, network: Network, weights: Weights, events: Rates, top: Tensor) -> dict[str, Tensor]:
        """Bursts of every population above the input when those of the output are `top`."""
        bursts = {network.output_name: top}
        for population in reversed(network.populations[1:-1]):
            apical = self.apical(network, weights, events, bursts, population.name)
            bursts[population.name] = self.probability(apical * (1 - events[population.name])) * events[population.name]
        return bursts

    def apical(self, network: Network, weights: Weights, events: Rates, bursts: Rates, name: str) -> Tensor:
        """Apical potential of a hidden population (R B I): Y bursts, summed over the projections that leave it."""
        return arriving(weights, bursts, self.feedback_into(network, name))

    def probability(self, drive: Tensor) -> Tensor:
        """Burst probability of hidden units."""
        return torch.sigmoid(drive)

    def expected(self, network: Network, weights: Weights, events: Rates) -> Rates:
        """Bursts of every population above the input without a teacher."""
        raise NotImplementedError

    def untaught(self, network: Network, weights: Weights, events: Rates) -> dict[str, Tensor]:
        """Bursts of every population above the input while the output bursts at its baseline."""
        return self.sweep(network, weights, events, self.baseline * events[network.output_name])


def arriving(weights: Weights, rates: Rates, projections: Iterable[Projection]) -> Tensor:
    """Sum of what projections into one population bring it (R B I), each from the rates of its source."""
    parts = (torch.bmm(rates[projection.source], weights[projection.name].mT) for projection in projections)
    return functools.reduce(torch.add, parts)
