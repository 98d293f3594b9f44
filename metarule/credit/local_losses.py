"""Local losses: every hidden population has a readout of its own, and learns to make that one right."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import EXPLICIT, forward_signals, output_error, target_of
from metarule.network import Network, Projection
from metarule.signals import Signals


@dataclass(frozen=True)
class LocalLosses(CreditAssignment):
    """feedback_l = C_l^T (target - f(C_l h_l)), f the output's nonlinearity; error_l = gain_l feedback_l.

    The local readouts C learn by the rule `delta`. Nothing crosses from one population to another.
    """

    kind = "local_losses"
    source = "Mostafa, Ramesh and Cauwenberghs 2018; Nokland and Eidnes 2019"
    not_local = "Every layer needs the label and the transpose of its own readout."
    gives = EXPLICIT - {"pre_error"}
    plastic_roles = frozenset({"local_readout"})

    def projections(self, network):
        return tuple(
            Projection(
                f"{population.name}~>{network.output_name}", population.name, network.output_name, "local_readout"
            )
            for population in network.populations[1:-1]
        )

    def gives_at(self, network: Network, projection: Projection):
        return frozenset({"pre", "post", "error"}) if projection.role == "local_readout" else self.gives

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        top = network.output_name
        target, error = target_of(batch), output_error(network, activity, batch)
        feedback, errors, signals = {top: error}, {top: error}, {}
        for readout in self.projections(network):
            name, weight = readout.source, weights[readout.name]
            guess = network.rate(top, torch.bmm(activity.rates[name], weight.transpose(1, 2)))
            missed = target - guess
            feedback[name] = torch.bmm(missed, weight)
            errors[name] = feedback[name] * network.gain(name, activity.rates)
            if readout.name in wanted:
                signals[readout.name] = Signals(weight, pre=activity.rates[name], post=guess, error=missed)
        return signals | forward_signals(network, weights, activity, feedback, errors, wanted), state
