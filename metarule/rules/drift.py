"""Drift: weights wander, whatever the activity; the control that learns nothing."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.rules.base import Rule
from metarule.signals import Change
from metarule.terms import glorot


@dataclass(frozen=True)
class Drift(Rule):
    """dW = s xi, xi ~ N(0, 1) anew at every step and synapse, s = sqrt(2 / (I + J)) the weight scale."""

    kind = "drift"
    source = "Rule, O'Leary and Harvey 2019"

    @property
    def reads(self):
        return frozenset()

    def delta(self, theta, signals, state, noise):
        _, size_out, size_in = signals.weight.shape
        wander = noise.at("drift").normal(size_out, size_in).to(signals.weight.dtype)
        return Change(full=wander * glorot(size_out, size_in)), state
