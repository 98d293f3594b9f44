"""Soft winners: the units of a hidden layer compete for every event, and share it as a softmax says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.credit.base import CreditAssignment, Weights
from metarule.credit.taught_readout import readout_taught
from metarule.network import Activity, Network
from metarule.params import Param
from metarule.signals import State

COMPETITION = (Param("gain", start=24.0, log=True), Param("homeostasis", start=0.2, log=True))
"""How sharply units compete, and how fast their thresholds equalise how much they win."""


@dataclass(frozen=True)
class SoftWinners(CreditAssignment):
    """rate = softmax(gain drive - threshold) in every hidden layer, whatever the network's nonlinearity there.

    threshold <- threshold + homeostasis (I <rate> - 1), I units in the layer: nobody wins everything. Hidden
    projections receive post = rate and post_ref = drive, as the rule `soft_hebb` reads them; the readout is taught.
    """

    kind = "soft_winners"
    source = "Moraitis et al. 2022; thresholds: Habenschuss, Bill and Nessler 2012"
    not_local = "Units of a layer compete: each hears what the others do. The readout hears its own error."
    gives = frozenset({"pre", "post", "post_ref", "error"})

    @property
    def params(self):
        return COMPETITION

    def gives_at(self, network, projection):
        return self.gives - ({"post_ref"} if projection.target == network.output_name else {"error"})

    def init(self, theta, network, weights, noise):
        return thresholds_at_rest(theta, network)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = competed(theta, network, weights, state, batch.x)
        signals = readout_taught(network, weights, activity, batch, wanted)
        for projection in network.projections:
            if projection.name in signals and projection.target != network.output_name:
                drive = activity.drives[projection.target]
                signals[projection.name] = replace(signals[projection.name], post_ref=drive)
        return signals, {name: adapted(theta, threshold, activity.rates[name]) for name, threshold in state.items()}

    def respond(self, theta, network, weights, state, x, noise):
        return competed(theta, network, weights, state, x)


def thresholds_at_rest(theta: Float[Tensor, "R P"], network: Network) -> State:
    """Hidden population -> thresholds (R 1 I), all 0."""
    return {each.name: theta.new_zeros(len(theta), 1, each.size) for each in network.populations[1:-1]}


def chances(theta: Float[Tensor, "R P"], drive: Float[Tensor, "R B I"], threshold: Tensor) -> Float[Tensor, "R B I"]:
    """Who wins: softmax(gain drive - threshold), theta as in `COMPETITION`."""
    return torch.softmax(theta[:, :1, None] * drive - threshold, dim=-1)


def adapted(theta: Float[Tensor, "R P"], threshold: Float[Tensor, "R 1 I"], won: Float[Tensor, "R B I"]) -> Tensor:
    """The thresholds after events that were won: up where a unit won more than its share."""
    return threshold + theta[:, 1:2, None] * (won.shape[2] * won.mean(1, keepdim=True) - 1)


def competed(theta: Float[Tensor, "R P"], network: Network, weights: Weights, thresholds: State, x: Tensor) -> Activity:
    """The feedforward pass with soft winners in every hidden layer."""
    drives, rates = {network.input_name: x}, {network.input_name: x}
    for population in network.populations[1:]:
        name = population.name
        sent = [torch.bmm(network.pre(p, rates), weights[p.name].transpose(1, 2)) for p in network.into(name)]
        drives[name] = sent[0] if len(sent) == 1 else torch.stack(sent).sum(0)
        hidden = name in thresholds
        rates[name] = chances(theta, drives[name], thresholds[name]) if hidden else network.rate(name, drives[name])
    return Activity(drives, rates)
