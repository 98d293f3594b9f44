"""Mean-field theory of wide random networks: how large drives are, and how fast two inputs part, layer by layer.

Weights are N(0, gain^2 / J), biases N(0, bias^2). With z standard normal, the variance of drives maps as
q <- gain^2 E[f(sqrt(q) z)^2] + bias^2, and a small difference grows per layer by chi = gain^2 E[f'(sqrt(q) z)^2]
(Poole et al., 2016; Schoenholz et al., 2017).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from metarule.nonlinearities import NONLINEARITIES

_NODES = 200
_LAYERS = 2000
_KNOWN = {"linear": 1.0, "tanh": 1.0, "relu": math.sqrt(2.0)}


def variance(activation: str, gain: float, bias: float = 0.0, beta: float = 1.0) -> float:
    """The variance q* of drives that a deep network settles to; inf where it grows without bound."""
    q = 1.0
    for _ in range(_LAYERS):
        rate = NONLINEARITIES[activation].rate(_drives(q), beta)
        after = gain**2 * _mean(rate.square()) + bias**2
        if after > 1e12:
            return math.inf
        if abs(after - q) <= 1e-14 * q:
            break
        q = after
    return q


def chi(activation: str, gain: float, bias: float = 0.0, beta: float = 1.0) -> float:
    """The factor by which a small squared difference grows per layer at q*: below 1 order, above 1 chaos."""
    q = variance(activation, gain, bias, beta)
    if math.isinf(q):
        return math.inf
    nonlinearity = NONLINEARITIES[activation]
    slope = nonlinearity.slope(nonlinearity.rate(_drives(q), beta), beta)
    return gain**2 * _mean(slope.square())


@functools.lru_cache(maxsize=64)
def critical_gain(activation: str, beta: float = 1.0) -> float:
    """The gain at which chi = 1 without biases."""
    if activation in _KNOWN:
        return _KNOWN[activation]
    low, high = 1e-3, 100.0
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if chi(activation, middle, beta=beta) > 1 else (middle, high)
    return low


@functools.cache
def _quadrature() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return torch.as_tensor(nodes), torch.as_tensor(weights / weights.sum())


def _drives(q: float) -> Tensor:
    return math.sqrt(q) * _quadrature()[0]


def _mean(values: Tensor) -> float:
    return float((values * _quadrature()[1]).sum())
