"""What the explicit-error kinds of credit share: errors sent down the graph become signals at every projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor

from metarule.credit.base import CreditAssignment, Weights
from metarule.network import Activity, Network, Projection
from metarule.rng import Noise
from metarule.signals import Batch, Signals, State

EXPLICIT = frozenset({"pre", "post", "feedback", "error", "pre_error", "gain"})
"""The signals an explicit error gives at a forward projection."""

Errors = dict[str, Tensor]
"""Population -> error (R B units)."""


class SequentialFeedback(CreditAssignment):
    """Errors travel one projection at a time: error_l = gain_l sum over projections of sent(error_{l+1}).

    A member says in `send` how an error crosses a forward projection backwards. Skips and branches sum.
    """

    gives = EXPLICIT

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        send = self.sender(network, weights, state, step, noise)
        activity = network.forward(weights, batch.x)
        feedback, errors = sent_down(network, activity, output_error(network, activity, batch), send, wanted)
        signals = forward_signals(network, weights, activity, feedback, errors, wanted)
        return self.teach_feedback(network, weights, activity, errors, signals, wanted), state

    def sender(
        self, network: Network, weights: Weights, state: State, step: int, noise: Noise
    ) -> Callable[[Projection, Tensor], Tensor]:
        """(forward projection, error at its target) -> feedback at its source (R B J), the always-on unit left out."""
        raise NotImplementedError

    def teach_feedback(
        self,
        network: Network,
        weights: Weights,
        activity: Activity,
        errors: Errors,
        signals: dict[str, Signals],
        wanted: Mapping[str, frozenset[str]],
    ) -> dict[str, Signals]:
        """Adds the signals of plastic feedback projections; none unless overridden."""
        return signals


def sent_down(
    network: Network,
    activity: Activity,
    top: Tensor,
    send: Callable[[Projection, Tensor], Tensor],
    wanted: Mapping[str, frozenset[str]],
) -> tuple[Errors, Errors]:
    """Feedback and error at every population for an error `top` (R B I) at the output; the input's where it is read."""
    feedback: Errors = {network.output_name: top}
    errors = dict(feedback)
    reached = {projection.source for projection in carriers(network, wanted)}
    for population in reversed(network.populations[:-1]):
        if population.name not in reached:
            continue
        sent = [
            network.back(projection, send(projection, errors[projection.target]))
            for projection in network.out_of(population.name)
        ]
        feedback[population.name] = sent[0] if len(sent) == 1 else torch.stack(sent).sum(0)
        errors[population.name] = feedback[population.name] * network.gain(population.name, activity.rates)
    return feedback, errors


class DirectFeedback(CreditAssignment):
    """One signal from the output reaches every population through its own fixed random weights, drawn per episode.

    feedback_l = B_l sent, error_l = gain_l feedback_l; the output itself hears target - output. A member says in
    `broadcast` what is sent.
    """

    gives = EXPLICIT

    def projections(self, network):
        return tuple(
            Projection(f"{network.output_name}=>{population.name}", network.output_name, population.name, "feedback")
            for population in network.populations[:-1]
        )

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        top = output_error(network, activity, batch)
        sent = self.broadcast(top, batch)
        feedback, errors = {network.output_name: top}, {network.output_name: top}
        for projection in self.projections(network):
            feedback[projection.target] = torch.bmm(sent, weights[projection.name].transpose(1, 2))
            errors[projection.target] = feedback[projection.target] * network.gain(projection.target, activity.rates)
        return forward_signals(network, weights, activity, feedback, errors, wanted), state

    def broadcast(self, top: Tensor, batch: Batch) -> Tensor:
        """What the output sends (R B I), from its error and the batch."""
        raise NotImplementedError


def carriers(network: Network, wanted: Mapping[str, frozenset[str]]) -> tuple[Projection, ...]:
    """Forward projections that errors cross: those that leave the input only where a rule reads `pre_error` there."""
    inner = tuple(projection for projection in network.projections if projection.source != network.input_name)
    outermost = network.out_of(network.input_name)
    reached = any("pre_error" in wanted.get(projection.name, ()) for projection in outermost)
    return network.projections if reached else inner


def output_error(network: Network, activity: Activity, batch: Batch) -> Tensor:
    """target - output at the matched output; raises ValueError where the task gives no target."""
    return target_of(batch) - activity.rates[network.output_name]


def target_of(batch: Batch) -> Tensor:
    """The target (R B I) of every event; raises ValueError where the task gives none."""
    if batch.y is None:
        raise ValueError("this credit assignment needs targets, and the task gives none; credit.kind = 'none' fits")
    return batch.y


def forward_signals(
    network: Network,
    weights: Weights,
    activity: Activity,
    feedback: Errors,
    errors: Errors,
    wanted: Mapping[str, frozenset[str]],
) -> dict[str, Signals]:
    """Signals at every plastic forward projection, from activity and errors per population."""
    signals = {}
    for projection in network.projections:
        reads = wanted.get(projection.name)
        if reads is None:
            continue
        pre_error = None
        if "pre_error" in reads and projection.source in errors:
            pre_error = network.gather(projection, errors[projection.source])
        signals[projection.name] = Signals(
            weight=weights[projection.name],
            pre=network.pre(projection, activity.rates),
            post=activity.rates[projection.target],
            feedback=feedback.get(projection.target),
            error=errors.get(projection.target),
            pre_error=functional.pad(pre_error, (0, 1)) if pre_error is not None and projection.bias else pre_error,
            gain=network.gain(projection.target, activity.rates) if "gain" in reads else None,
        )
    return signals


def without_bias(projection: Projection, weight: Tensor) -> Tensor:
    """The weights of a forward projection without the column of its always-on unit."""
    return weight[:, :, :-1] if projection.bias else weight


def feedback_name(projection: Projection) -> str:
    """Name of the feedback projection that runs against a forward one."""
    return f"{projection.target}=>{projection.source}"


def feedback_projection(projection: Projection, role: str = "feedback") -> Projection:
    """The projection that carries errors against `projection`."""
    shape = None if projection.shape is None else (projection.shape[1], projection.shape[0])
    return Projection(feedback_name(projection), projection.target, projection.source, role, shape=shape)
