"""A stranger's network: two convolutions, a skip around the second, one readout."""

from dataclasses import dataclass

import torch
from torch import nn

from metarule import Model


class Residual(nn.Module):
    """(B, 64) -> the drive of the output (B, outputs)."""

    def __init__(self, outputs: int, channels: int):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.readout = nn.Linear(channels * 16, outputs)

    def forward(self, x):
        x = torch.tanh(self.first(x.reshape(-1, 1, 8, 8)))
        x = x + torch.tanh(self.second(x))
        return self.readout(nn.functional.avg_pool2d(x, 2).flatten(1))


@dataclass(frozen=True)
class MyCnn(Model):
    """Two convolutions with a skip, for images of 8 x 8."""

    kind = "my_cnn"
    source = "docs/my_cnn.py"

    channels: int = 8

    def module(self, inputs, outputs, noise):
        if inputs != 64:
            raise ValueError(f"model.kind = 'my_cnn' is for images of 8 x 8; the task has {inputs} inputs")
        return Residual(outputs, self.channels)
