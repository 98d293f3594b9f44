"""Synthetic gradients: every population predicts the error that will come, from its own activity and the target."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import EXPLICIT, forward_signals, output_error, target_of, without_bias
from metarule.network import Network, Projection
from metarule.signals import Signals


@dataclass(frozen=True)
class SyntheticGradients(CreditAssignment):
    """feedback_l = V_l h_l + U_l target, linear heads that start at 0; error_l = gain_l feedback_l.

    Both heads learn by the rule `delta` from error = sum W_{l+1}^T error_{l+1} - feedback_l, where error_{l+1} is the
    prediction above and the true error at the output.
    """

    kind = "synthetic_gradients"
    source = "Jaderberg et al. 2017"
    not_local = "Heads learn from errors that cross one layer of transposed forward weights."
    gives = EXPLICIT - {"pre_error"}
    plastic_roles = frozenset({"head"})

    def projections(self, network):
        top = network.output_name
        return tuple(
            Projection(f"{source}~>{name}", source, name, "head", std=0.0)
            for name in hidden(network)
            for source in (name, top)
        )

    def gives_at(self, network: Network, projection: Projection):
        return frozenset({"pre", "post", "error"}) if projection.role == "head" else self.gives

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        top = network.output_name
        target, error = target_of(batch), output_error(network, activity, batch)
        feedback, errors = {top: error}, {top: error}
        for name in hidden(network):
            own = torch.bmm(activity.rates[name], weights[f"{name}~>{name}"].transpose(1, 2))
            feedback[name] = torch.baddbmm(own, target, weights[f"{top}~>{name}"].transpose(1, 2))
            errors[name] = feedback[name] * network.gain(name, activity.rates)
        signals = forward_signals(network, weights, activity, feedback, errors, wanted)
        for head in self.projections(network):
            if head.name in wanted:
                name = head.target
                arriving = [torch.bmm(errors[p.target], without_bias(p, weights[p.name])) for p in network.out_of(name)]
                missed = torch.stack(arriving).sum(0) - feedback[name]
                pre = target if head.source == top else activity.rates[name]
                signals[head.name] = Signals(weights[head.name], pre=pre, post=feedback[name], error=missed)
        return signals, state


def hidden(network: Network) -> tuple[str, ...]:
    """Names of the populations between input and output."""
    return tuple(population.name for population in network.populations[1:-1])
