"""A stranger's rule: an error-driven change, gated by how active the unit is, with forgetting."""

from dataclasses import dataclass

import sympy

from metarule import Param, Rule
from metarule.signals import Change, outer


@dataclass(frozen=True)
class GatedDelta(Rule):
    """dW = error (rate + gate post²) preᵀ − forget W: busy units learn faster."""

    kind = "gated_delta"
    source = "docs/my_rule.py"

    scale: float = 0.05

    @property
    def params(self):
        return tuple(Param(name, start=0.0, scale=self.scale) for name in ("rate", "gate", "forget"))

    @property
    def reads(self):
        return frozenset({"error", "pre", "post"})

    def delta(self, theta, signals, state, noise):
        rate, gate, forget = (column[:, None, None] for column in theta.T)
        left = signals.read("error") * (rate + gate * signals.read("post") ** 2)
        return outer(left, signals.read("pre")) + Change(shrink=forget), state

    def equation(self, theta, shape):
        error, pre, post, weight = sympy.symbols("error pre post weight")
        rate, gate, forget = map(sympy.Float, theta.tolist())
        return error * (rate + gate * post**2) * pre - forget * weight
