"""Model: any torch module, for searches over how gradient descent trains it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from metarule.rng import Noise


class Model(ABC):
    """Settings are the fields of a frozen dataclass.

    What it makes is trained one run at a time by torch.optim, unrolled by `higher`: at the price of a Python loop over
    runs, anything that torch can differentiate twice may be searched over.
    """

    kind: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def module(self, inputs: int, outputs: int, noise: Noise) -> nn.Module:
        """A fresh module, (B, inputs) -> the drive of the output (B, outputs), before any softmax or sigmoid.

        `noise` is that of one episode. While this is called torch's own generator stands at an address of the episode
        too, so that the usual initialisers may be used as they are; it is as it was afterwards. Raises ValueError where
        the sizes do not fit.
        """
