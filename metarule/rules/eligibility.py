"""Eligibility: a synapse remembers what happened at it, and a reward turns the memory into a change."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.params import Param
from metarule.rules.base import Rule
from metarule.rules.traces import check_term, happened, left_over
from metarule.signals import Change
from metarule.terms import TERMS


@dataclass(frozen=True)
class Eligibility(Rule):
    """e <- e exp(-1 / tau) + term; dW = rate reward e, with `term` one of `terms.TERMS` and tau in events.

    One event at a time: reward times e of a batch is not the product of their means, so more than one event raises
    ValueError. Credit that puts time on the events axis carries the memory in its reward instead, for any batch.
    Raises ValueError where `term` is unknown or reads the reward itself.
    """

    kind = "eligibility"
    source = "Izhikevich 2007; Gerstner et al. 2018"

    term: str = "post_change_pre"

    def __post_init__(self) -> None:
        check_term("rule.term", self.term)

    @property
    def params(self):
        return Param("rate", start=0.05, log=True), Param("tau", start=10.0, low=0.1, log=True)

    @property
    def reads(self):
        return TERMS[self.term].reads | {"reward"}

    @property
    def local(self):
        return TERMS[self.term].local

    def init(self, theta, weight):
        return {"eligibility": torch.zeros_like(weight)}

    def delta(self, theta, signals, state, noise):
        rate, tau = theta[:, :1, None], theta[:, 1:2, None]
        eligibility = state["eligibility"] * left_over(tau) + happened(self.kind, self.term, signals)
        return Change(full=rate * signals.read("reward") * eligibility), {"eligibility": eligibility}
