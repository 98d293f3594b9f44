"""What a population does with its drive: rate functions, their slopes, and outputs with the losses that match them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor


class Nonlinearity(NamedTuple):
    """A rate function of the drive, its slope as a function of the rate (no autograd), and the range of rates."""

    rate: Callable[[Tensor, float], Tensor]
    slope: Callable[[Tensor, float], Tensor]
    low: float = -math.inf
    high: float = math.inf


# softplus is linear from drive * beta = 40 on, where exp(-40) is below float64's resolution of 1
NONLINEARITIES: dict[str, Nonlinearity] = {
    "linear": Nonlinearity(lambda a, beta: a, lambda h, beta: torch.ones_like(h)),
    "relu": Nonlinearity(lambda a, beta: a.clamp(min=0), lambda h, beta: (h > 0).to(h.dtype), low=0.0),
    "sigmoid": Nonlinearity(lambda a, beta: torch.sigmoid(beta * a), lambda h, beta: beta * h * (1 - h), 0.0, 1.0),
    "softplus": Nonlinearity(
        lambda a, beta: functional.softplus(a, beta=beta, threshold=40.0),
        lambda h, beta: -torch.expm1(-beta * h),
        low=0.0,
    ),
    "tanh": Nonlinearity(lambda a, beta: torch.tanh(a), lambda h, beta: 1 - h * h, -1.0, 1.0),
}


def _softmax(drive: Tensor) -> Tensor:
    # torch.softmax is five times slower than its parts on many rows of few classes
    raised = torch.exp(drive - drive.detach().amax(dim=-1, keepdim=True))
    return raised / raised.sum(dim=-1, keepdim=True)


OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": _softmax,
    "sigmoid": torch.sigmoid,
    "linear": lambda drive: drive,
}
"""Output rates with the loss that matches them, so that the output error is target - rate in each."""

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": lambda drive, y: -(y * torch.log_softmax(drive, dim=-1)).sum(-1, keepdim=True),
    "sigmoid": lambda drive, y: (functional.softplus(drive) - y * drive).sum(-1, keepdim=True),
    "linear": lambda drive, y: 0.5 * (drive - y).square().sum(-1, keepdim=True),
}
"""The loss per event (R B 1) that matches each output: cross-entropy, binary cross-entropy, half the squared error."""
