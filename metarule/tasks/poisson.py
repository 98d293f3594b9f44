"""Poisson counts from addressed noise: how many spikes fall into a bin."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.rng import Noise


def counts(noise: Noise, mean: Float[Tensor, "R ..."], most: float) -> Float[Tensor, "R ..."]:
    """Poisson numbers by inversion, elementwise with these means, none above `most`; one uniform number each."""
    drawn = noise.uniform(*mean.shape[1:])
    chance = torch.exp(-mean)
    below, found = chance.clone(), torch.zeros_like(mean)
    for k in range(1, math.ceil(most + 8 * math.sqrt(most)) + 8):  # the tail beyond is below 1e-9
        found += (drawn > below).to(mean.dtype)
        chance = chance * mean / k
        below = below + chance
    return found
