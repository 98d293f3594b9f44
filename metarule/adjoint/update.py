"""How a list of terms moves the weights of one projection in a step, and the adjoint of that."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.adjoint.walk import decay
from metarule.fused.tables import Table, tabled
from metarule.rules.base import Listed
from metarule.synapses.base import Plain
from metarule.terms import FACTORS, Monomial

Values = dict[str, Tensor]
"""Factor -> (R B I), (R B J) or, per event, (R B 1)."""


class _Part(NamedTuple):
    """A table whose side with fewer monomials, k of them, is its anchor; `coefficients` (R k n) has it in its rows."""

    table: Table
    turned: bool  # the anchor is the columns' side
    coefficients: Float[Tensor, "R k n"]

    @property
    def sides(self) -> tuple[tuple[Monomial, ...], tuple[Monomial, ...]]:
        """The anchor's monomials and the other side's."""
        rows, columns = self.table.rows, self.table.columns
        return (columns, rows) if self.turned else (rows, columns)


class Sides(NamedTuple):
    """One table's product at one step: sum over anchors and events of anchor other^T, or the transpose of that.

    `anchor` (R k B .), `other` (R n B .), `scaled` the coefficients over B times what the model multiplies them by, and
    `mixed` = scaled other (R kB .).
    """

    part: _Part
    anchor: Tensor
    other: Tensor
    scaled: Float[Tensor, "R k n"]
    mixed: Tensor

    @property
    def factors(self) -> tuple[Float[Tensor, "R N I"], Float[Tensor, "R N J"]]:
        """left and right of left^T right."""
        anchor = self.anchor.flatten(1, 2)
        return (self.mixed, anchor) if self.part.turned else (anchor, self.mixed)

    def product(self) -> Float[Tensor, "R I J"]:
        """The change itself, before the power of the weight."""
        left, right = self.factors
        return torch.bmm(left.transpose(1, 2), right)


@dataclass(eq=False)
class Sums:
    """What the way back has gathered: the cotangents of one projection's weights and of what is constant over steps."""

    weight: Float[Tensor, "R I J"]
    velocity: Float[Tensor, "R I J"] | None
    tables: list[Float[Tensor, "R k n"]]
    kept: Float[Tensor, "R"]
    rate: Float[Tensor, "R"]


class Update:
    """W <- W + rate (sum_k c_k term_k - weight_decay W), or with a momentum, of the runs of one walk."""

    def __init__(self, listed: Listed, rate: Float[Tensor, "R"], plain: Plain) -> None:
        self.rate, self.plain, self.count = rate[:, None, None], plain, listed.coefficients.shape[1]
        self.parts: list[_Part] = []
        self.lost = torch.full_like(rate, plain.weight_decay)
        self.decay: Table | None = None
        for table in tabled(listed.terms):
            found = table.coefficients(listed.coefficients)
            if decay(table):
                self.decay, self.lost = table, self.lost - found[:, 0]
                continue
            shape = len(table.rows), len(table.columns)
            turned = shape[0] > shape[1]
            found = found.unflatten(1, shape)
            self.parts.append(_Part(table, turned, (found.mT if turned else found).contiguous()))
        self.shrinks = bool(plain.weight_decay) or self.decay is not None
        self.shrink = self.lost[:, None, None]

    def sides(self, values: Values, weight: Tensor, multiplier: float) -> list[Sides]:
        """The products of a step whose factors have these values."""
        events = next(iter(values.values())).shape[1] if values else 1
        scale: Tensor | float = 1.0 / events
        if self.plain.momentum is None:
            scale = self.rate * (multiplier / events)
        made = []
        for part in self.parts:
            ends = (weight.shape[2], weight.shape[1]) if part.turned else weight.shape[1:]
            anchor, other = (
                _stacked(monomials, values, (len(weight), events, size), weight)
                for monomials, size in zip(part.sides, ends, strict=True)
            )
            scaled = part.coefficients * scale
            mixed = scaled[..., None] * other if scaled.shape[1:] == (1, 1) else _times(scaled, other)
            made.append(Sides(part, anchor, other, scaled, mixed.flatten(1, 2)))
        return made

    def there(
        self, weight: Tensor, velocity: Tensor | None, sides: list[Sides], multiplier: float, in_place: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Weight and velocity after a step; `in_place` overwrites the weight."""
        full = [side.product() * _power(weight, side.part.table.power) for side in sides if side.part.table.power]
        plain = [side.factors for side in sides if not side.part.table.power]
        if velocity is not None:
            current = weight * -self.shrink if self.shrinks else torch.zeros_like(weight)
            for left, right in plain:
                current.baddbmm_(left.mT, right)
            for each in full:
                current.add_(each)
            momentum = self.plain.momentum
            assert momentum is not None
            velocity = torch.add(current, velocity, alpha=momentum)
            ahead = torch.add(current, velocity, alpha=momentum) if self.plain.nesterov else velocity
            return torch.addcmul(weight, ahead, self.rate * multiplier), velocity
        owned = in_place
        if self.shrinks:
            weight = weight.mul_(self._keep(multiplier)) if owned else weight * self._keep(multiplier)
            owned = True
        for left, right in plain:
            weight = weight.baddbmm_(left.mT, right) if owned else torch.baddbmm(weight, left.mT, right)
            owned = True
        for each in full:
            weight = weight.add_(each) if owned else weight + each
            owned = True
        return weight, None

    def rebuilt(self, weight: Tensor, sides: list[Sides], multiplier: float) -> Tensor:
        """The weight before a step from the one after it, in place."""
        for side in sides:
            left, right = side.factors
            weight.baddbmm_(left.mT, right, alpha=-1)
        return weight.div_(self._keep(multiplier)) if self.shrinks else weight

    def _keep(self, multiplier: float) -> Tensor:
        return 1 - self.shrink * self.rate * multiplier

    def start(self, weight: Tensor, velocity: Tensor | None) -> Sums:
        """Sums that go on from the cotangents of weight and velocity."""
        return Sums(
            weight,
            velocity,
            [torch.zeros_like(part.coefficients) for part in self.parts],
            torch.zeros_like(self.lost),
            torch.zeros_like(self.lost),
        )

    def back(
        self,
        sums: Sums,
        sides: list[Sides],
        values: Values,
        weight: Tensor,
        velocities: tuple[Tensor, Tensor] | None,
        multiplier: float,
    ) -> Values:
        """The cotangents of the factors; `sums` goes from after the step to before it, its weight in place.

        `weight` is the one before the step, `velocities` those before and after it.
        """
        slope = sums.weight
        whole = None  # what the weight's cotangent gains
        if velocities is not None:
            slope = self._through_velocity(sums, velocities, multiplier)
        found: Values = {}
        for part_sum, side in zip(sums.tables, sides, strict=True):
            power, turned = side.part.table.power, side.part.turned
            seen = slope
            if power:
                seen = slope * _power(weight, power)
                gained = side.product() * slope
                if power > 1:
                    gained = gained * _power(weight, power - 1) * power
                whole = gained if whole is None else whole.add_(gained)
            toward = seen.mT if turned else seen
            anchor = torch.bmm(side.anchor.flatten(1, 2), toward).reshape(*side.anchor.shape[:3], -1)
            events = anchor.shape[2]
            met = torch.bmm(anchor.flatten(2), side.other.flatten(2).mT)
            part_sum.add_(met, alpha=(multiplier if velocities is None else 1.0) / events)
            other = _times(side.scaled.mT, anchor)
            back = torch.bmm(side.mixed, toward.mT).reshape(side.anchor.shape)
            for monomials, cotangents in zip(side.part.sides, (back, other), strict=True):
                for place, monomial in enumerate(monomials):
                    _to_factors(found, monomial, values, cotangents[:, place])
        if self.shrinks:
            sums.kept.add_(_dot(slope, weight), alpha=multiplier if velocities is None else 1.0)
            if velocities is None:
                sums.weight.mul_(self._keep(multiplier))
            else:
                sums.weight.sub_(slope * self.shrink)
        if whole is not None:
            sums.weight.add_(whole)
        return found

    def _through_velocity(self, sums: Sums, velocities: tuple[Tensor, Tensor], multiplier: float) -> Tensor:
        """The cotangent of the change that the rule induces, decay included; that of the velocity moves on."""
        before, after = velocities
        momentum = self.plain.momentum
        assert momentum is not None
        assert sums.velocity is not None
        # nesterov goes ahead by change + momentum after, and the change is after - momentum before
        sums.rate.add_(_dot(sums.weight, after), alpha=multiplier * (1 + momentum * self.plain.nesterov))
        if self.plain.nesterov:
            sums.rate.add_(_dot(sums.weight, before), alpha=-multiplier * momentum)
        stepped = sums.weight * (self.rate * multiplier)
        slope = torch.add(sums.velocity, stepped, alpha=momentum if self.plain.nesterov else 1.0)
        sums.velocity = slope * momentum
        return slope + stepped if self.plain.nesterov else slope

    def ended(self, sums: Sums) -> tuple[Float[Tensor, "R K"], Float[Tensor, "R"]]:
        """The cotangents of the coefficients of the terms and of the rate."""
        stepped = self.plain.momentum is None
        by_term = self.lost.new_zeros(len(self.lost), self.count)
        scale = self.rate[:, 0] if stepped else 1.0
        rate = sums.rate
        if stepped:
            rate = rate - self.lost * sums.kept
        for part, met in zip(self.parts, sums.tables, strict=True):
            if stepped:
                rate = rate + (part.coefficients * met).sum((1, 2))
            _to_terms(by_term, part.table, (met.mT if part.turned else met).flatten(1) * scale)
        if self.decay is not None:
            _to_terms(by_term, self.decay, sums.kept[:, None] * scale)
        return by_term, rate


def _to_terms(by_term: Tensor, table: Table, found: Float[Tensor, "R kn"]) -> None:
    by_term.index_add_(1, table.terms, found[:, table.places] * table.signs.to(found.dtype))


def _to_factors(found: Values, monomial: Monomial, values: Values, cotangent: Tensor) -> None:
    """Adds what a monomial's cotangent says of each of its factors."""
    for name, power in monomial:
        others = [_power(values[each], other) for each, other in monomial if each != name]
        slope = functools.reduce(torch.mul, others, cotangent)
        if power > 1:
            slope = slope * _power(values[name], power - 1) * power
        if FACTORS[name].side == "event":
            slope = slope.sum(-1, keepdim=True)
        found[name] = found[name] + slope if name in found else slope


def _stacked(
    monomials: tuple[Monomial, ...], values: Values, shape: tuple[int, int, int], like: Tensor
) -> Float[Tensor, "R n B size"]:
    made = []
    for monomial in monomials:
        powers = [_power(values[name], power) for name, power in monomial]
        value = functools.reduce(torch.mul, powers) if powers else like.new_ones(1, 1, 1)
        made.append(value if value.shape == shape else value.expand(shape))
    return made[0].unsqueeze(1).contiguous() if len(made) == 1 else torch.stack(made, dim=1)


def _times(coefficients: Float[Tensor, "R k n"], values: Float[Tensor, "R n B size"]) -> Float[Tensor, "R k B size"]:
    mixed = torch.bmm(coefficients, values.flatten(2))
    return mixed.unflatten(2, values.shape[2:])


def _power(value: Tensor, power: int) -> Tensor:
    return value if power == 1 else value**power


def _dot(first: Float[Tensor, "R I J"], second: Float[Tensor, "R I J"]) -> Float[Tensor, "R"]:
    return torch.bmm(first.flatten(1)[:, None], second.flatten(1)[:, :, None])[:, 0, 0]
