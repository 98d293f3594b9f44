"""Sanger: every unit sees what the units before it leave unexplained, so that they find one component each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.rules.base import Rule
from metarule.signals import Change, outer


@dataclass(frozen=True)
class Sanger(Rule):
    """dw_i = post_i (pre - sum_{k <= i} post_k w_k): the generalised Hebbian algorithm; not local.

    Row i converges to +-the i-th principal component, norm 1.
    """

    kind = "sanger"
    source = "Sanger 1989"

    @property
    def reads(self):
        return frozenset({"pre", "post"})

    @property
    def local(self):
        return False

    def delta(self, theta, signals, state, noise):
        post = signals.read("post")
        correlation = torch.bmm(post.transpose(1, 2), post) / post.shape[1]  # R I I
        explained = torch.bmm(correlation.tril(), signals.weight)
        return outer(post, signals.read("pre")) + Change(full=-explained), state
