"""Probes of the units: how active they are, how many of them have stopped to take part."""

from __future__ import annotations

import torch

from metarule.inspection.seen import ByLayer, Seen
from metarule.nonlinearities import NONLINEARITIES

FLAT = 0.05
"""A unit is saturated where its slope is below this share of the steepest."""

QUIET = 0.05
"""A unit is silent where its activity varies, from event to event, by less than this share of its layer's."""


def activity(seen: Seen) -> ByLayer:
    """Root mean square of a population's activity, over units and events."""
    rates = seen.activity.rates
    return {name: rates[name].square().mean((1, 2)).sqrt() for name in _populations(seen)}


def saturated(seen: Seen) -> ByLayer:
    """Share of (unit, event) at which a hidden unit's slope is below `FLAT` of its nonlinearity's steepest."""
    network, rates = seen.learner.network, seen.activity.rates
    found = {}
    for name in _populations(seen):
        if name == network.output_name:
            continue
        nonlinearity = NONLINEARITIES[network.activations[name]]
        drives = torch.linspace(-50.0, 50.0, 2001, dtype=rates[name].dtype)
        steepest = nonlinearity.slope(nonlinearity.rate(drives, network.beta), network.beta).max()
        flat = network.gain(name, rates) < FLAT * steepest
        found[name] = flat.to(rates[name].dtype).mean((1, 2))
    return found


def silent(seen: Seen) -> ByLayer:
    """Share of units that say the same at every event, to `QUIET` of the spread of their layer.

    Not of an output that is taught: a class that is not asked for is silent as it should be.
    """
    found = {}
    for name in _populations(seen):
        if seen.taught and name == seen.learner.network.output_name:
            continue
        spread = seen.activity.rates[name].std(dim=1)
        layer = spread.square().mean(1, keepdim=True).sqrt()
        found[name] = (spread <= QUIET * layer).to(spread.dtype).mean(1)
    return found


def _populations(seen: Seen) -> list[str]:
    return [population.name for population in seen.learner.network.populations[1:]]
