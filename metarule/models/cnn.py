"""Cnn: a small convolutional network for square images."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from metarule.models.base import Model


@dataclass(frozen=True)
class Cnn(Model):
    """Convolutions of `kernel` x `kernel` with `channels`, tanh, means over 2 x 2 pixels after each, then one layer.

    tanh, because a gradient through gradient steps needs a second derivative. Initialised as torch does. Raises
    ValueError where the input is not a square image or is smaller than the convolutions need.
    """

    kind = "cnn"
    source = "LeCun et al. 1989"

    channels: tuple[int, ...] = (8, 16)
    kernel: int = 3

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"model.channels = {list(self.channels)} must name at least one number of channels")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"model.kernel = {self.kernel} must be odd and positive")

    def module(self, inputs, outputs, noise):
        side = math.isqrt(inputs)
        if side * side != inputs:
            raise ValueError(f"model.kind = 'cnn' needs square images; the task has {inputs} inputs")
        if side < 2 ** len(self.channels):
            raise ValueError(
                f"model.channels = {list(self.channels)} halve an image of {side} x {side} to nothing; name fewer"
            )
        parts: OrderedDict[str, nn.Module] = OrderedDict(image=nn.Unflatten(1, (1, side, side)))
        before = 1
        for number, channels in enumerate(self.channels, start=1):
            parts[f"convolution{number}"] = nn.Conv2d(before, channels, self.kernel, padding=self.kernel // 2)
            parts[f"rate{number}"] = nn.Tanh()
            parts[f"pool{number}"] = nn.AvgPool2d(2)
            side, before = side // 2, channels
        parts["flat"] = nn.Flatten()
        parts["readout"] = nn.Linear(before * side * side, outputs)
        return nn.Sequential(parts)
