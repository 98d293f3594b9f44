"""Monomials of a rule's factors: stacked where they are products of values, taken apart where they are cotangents."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.terms import FACTORS, Monomial

Values = dict[str, Tensor]
"""Factor -> (R B I), (R B J) or, per event, (R B 1)."""


def stacked(
    monomials: tuple[Monomial, ...], values: Values, shape: tuple[int, int, int], like: Tensor
) -> Float[Tensor, "R n B size"]:
    """The values of monomials as tensors of one shape (R B size).

    A value that is a monomial of its own is from then on a part of these: whoever keeps both holds it once.
    """
    made = []
    for monomial in monomials:
        powers = [powered(values[name], power) for name, power in monomial]
        value = functools.reduce(torch.mul, powers) if powers else like.new_ones(1, 1, 1)
        made.append(value if value.shape == shape else value.expand(shape))
    together = made[0].contiguous().unsqueeze(1) if len(made) == 1 else torch.stack(made, dim=1)
    for monomial, value in zip(monomials, together.unbind(1), strict=True):
        if len(monomial) == 1 and monomial[0][1] == 1 and FACTORS[monomial[0][0]].side != "event":
            values[monomial[0][0]] = value
    return together


def to_factors(
    found: Values, monomials: tuple[Monomial, ...], values: Values, cotangents: Float[Tensor, "R n B size"]
) -> None:
    """Adds to `found` what the cotangents of monomials say of each of their factors."""
    for monomial, cotangent in zip(monomials, cotangents.unbind(1), strict=True):
        for name, power in monomial:
            slope = cotangent
            for each, other in monomial:
                if each != name:
                    slope = slope * powered(values[each], other)
            if power > 1:
                slope = slope * powered(values[name], power - 1) * power
            if FACTORS[name].side == "event":
                slope = slope.sum(-1, keepdim=True)
            found[name] = found[name] + slope if name in found else slope


def powered(value: Tensor, power: int) -> Tensor:
    """value^power."""
    return value if power == 1 else value**power
