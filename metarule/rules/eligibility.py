"""Eligibility: a synapse remembers what happened at it, and a reward turns the memory into a change."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.collect import unknown
from metarule.params import Param
from metarule.rules.base import Rule
from metarule.signals import Change
from metarule.terms import TERMS, combine


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
        if self.term not in TERMS:
            raise ValueError(unknown("rule.term", self.term, TERMS))
        if "reward" in TERMS[self.term].reads:
            raise ValueError(f"rule.term = '{self.term}' reads the reward, which comes after the memory; leave it out")

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
        reward = signals.read("reward")
        if reward.shape[1] != 1:
            raise ValueError(
                f"rule 'eligibility' was given {reward.shape[1]} events; it needs one at a time: inner.batch = 1"
            )
        rate, tau = theta[:, :1, None], theta[:, 1:2, None]
        induced = combine((TERMS[self.term],), torch.ones_like(theta[:, :1]), signals).tensor(signals.weight)
        eligibility = state["eligibility"] * torch.exp(-1 / tau) + induced
        return Change(full=rate * reward * eligibility), {"eligibility": eligibility}
