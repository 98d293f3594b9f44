"""What rules with a memory of their own share: a synapse adds up what happens at it, and forgets."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.signals import Signals
from metarule.terms import TERMS, combine, events


def check_term(owner: str, name: str) -> None:
    """Raises ValueError where a term is unknown or reads the reward, which comes after the memory."""
    if name not in TERMS:
        raise ValueError(unknown(owner, name, TERMS))
    if "reward" in TERMS[name].reads:
        raise ValueError(f"{owner} = '{name}' reads the reward, which comes after the memory; leave it out")


def happened(kind: str, name: str, signals: Signals) -> Float[Tensor, "R I J"]:
    """The term called `name` at the one event that a memory takes at a time; raises ValueError on more of them."""
    count = events(signals)
    if count != 1:
        raise ValueError(f"rule '{kind}' was given {count} events; it needs one at a time: inner.batch = 1")
    return combine((TERMS[name],), signals.weight.new_ones(len(signals.weight), 1), signals).tensor(signals.weight)


def left_over(tau: Tensor) -> Tensor:
    """The part of a memory that is left after one event: exp(-1 / tau)."""
    return torch.exp(-1 / tau)
