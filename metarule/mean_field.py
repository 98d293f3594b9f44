"""Mean-field theory of wide random networks: how large drives are, and how fast two inputs part, layer by layer.

Weights are N(0, gain^2 / J), biases N(0, bias^2). With z standard normal, the variance of drives maps as
q <- gain^2 E[f(sqrt(q) z)^2] + bias^2, and a small squared difference grows per layer by
chi = gain^2 E[f'(sqrt(q) z)^2] (Poole et al., 2016; Schoenholz et al., 2017).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from metarule.nonlinearities import NONLINEARITIES

_LARGE, _SMALL = 1e12, 1e-300
_KNOWN = {"linear": 1.0, "tanh": 1.0, "relu": math.sqrt(2.0)}


def variance(activation: str, gain: float, bias: float = 0.0, beta: float = 1.0) -> float:
    """The variance q* of drives that a deep network settles to from q = 1; inf where it grows without bound."""

    def after(q: float) -> float:
        return gain**2 * _mean(NONLINEARITIES[activation].rate(_drives(q), beta).square()) + bias**2

    if math.isclose(after(1.0), 1.0, rel_tol=1e-12):
        return 1.0
    grows = after(1.0) > 1
    near = far = 1.0
    while (after(far) > far) == grows:
        near, far = far, far * (2.0 if grows else 0.5)
        if not _SMALL < far < _LARGE:
            return math.inf if grows else 0.0
    while abs(far - near) > 1e-14 * far:
        middle = math.sqrt(near * far)
        if middle in (near, far):
            break
        near, far = (middle, far) if (after(middle) > middle) == grows else (near, middle)
    return far


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
def _normal() -> tuple[Tensor, Tensor]:
    """Points of a standard normal variable and their probabilities.

    A fine grid, not Gauss-Hermite nodes: these are too far apart for the steep slopes of a chaotic network. It
    straddles 0, so that a kink there costs nothing.
    """
    points = (torch.arange(-2000, 2000, dtype=torch.float64) + 0.5) / 200
    density = torch.exp(-0.5 * points.square())
    return points, density / density.sum()


def _drives(q: float) -> Tensor:
    return math.sqrt(q) * _normal()[0]


def _mean(values: Tensor) -> float:
    return float((values * _normal()[1]).sum())
