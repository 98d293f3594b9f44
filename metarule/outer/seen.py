"""Seen: what became of every rule so far, by its fingerprint, so that no rule is tried twice."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.outer.breeding import Flock

LARGEST = 100_000
"""Rules remembered; beyond them the oldest are forgotten."""


class Fate(NamedTuple):
    """The loss of a rule, and what it had lost at every hurdle."""

    loss: float
    short: tuple[float, ...]


class Seen:
    """Fates by key; a key is the hash of a fingerprint, so that a checkpoint stays small."""

    def __init__(self) -> None:
        self.fates: dict[int, Fate] = {}

    def remember(self, keys: list[int], loss: Float[Tensor, "N"], short: Float[Tensor, "N K"]) -> None:
        """What became of rules; the newest word counts."""
        for key, one, hurdles in zip(keys, loss.tolist(), short.tolist(), strict=True):
            self.fates.pop(key, None)
            self.fates[key] = Fate(one, tuple(hurdles))
        for key in list(self.fates)[: max(len(self.fates) - LARGEST, 0)]:
            del self.fates[key]

    def flock(self, rows: Float[Tensor, "N P"], keys: list[int]) -> Flock:
        """Rows whose rules were met, with what became of these."""
        fates = [self.fates[key] for key in keys]
        loss = torch.tensor([fate.loss for fate in fates], dtype=torch.float64)
        return Flock(
            rows, loss, torch.tensor([fate.short for fate in fates], dtype=torch.float64).reshape(len(rows), -1)
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors, in the order in which rules were met."""
        return {
            "keys": torch.tensor(list(self.fates), dtype=torch.int64),
            "loss": torch.tensor([fate.loss for fate in self.fates.values()], dtype=torch.float64),
            "short": torch.tensor([fate.short for fate in self.fates.values()], dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.fates = {}
        self.remember(state["keys"].tolist(), state["loss"], state["short"])


def keys_of(fingerprints: Float[Tensor, "N F"]) -> list[int]:
    """A number for every fingerprint, equal where they are; 0 is -0, and no nan differs from another."""
    plain = torch.where(fingerprints.isnan(), math.nan, fingerprints.to(torch.float64) + 0.0)
    return [
        int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little", signed=True)
        for row in plain.contiguous().numpy()
    ]
