"""How a list of terms moves the weights of one projection in a step, and the adjoint of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.adjoint.monomials import Values, powered, stacked, to_factors
from metarule.adjoint.walk import decay
from metarule.fused.tables import Table, tabled
from metarule.rules.base import Listed
from metarule.synapses.base import Plain
from metarule.terms import Monomial


class _Part(NamedTuple):
    """A table whose side with fewer monomials, k of them, is its anchor; the other side has n."""

    table: Table
    turned: bool  # the anchor is the columns' side
    coefficients: Float[Tensor, "R k n"]

    @property
    def sides(self) -> tuple[tuple[Monomial, ...], tuple[Monomial, ...]]:
        """The anchor's monomials and the other side's."""
        rows, columns = self.table.rows, self.table.columns
        return (columns, rows) if self.turned else (rows, columns)


class Sides(NamedTuple):
    """The monomials of one table at one step: it sums anchor coefficients other^T over them and over events."""

    anchor: Float[Tensor, "R k B size"]
    other: Float[Tensor, "R n B size"]


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
        self._scaled: dict[tuple[float, int], list[Tensor]] = {}

    def sides(self, values: Values, weight: Tensor) -> list[Sides]:
        """The monomials of a step whose factors have these values, which become parts of them, see `stacked`."""
        events = next(iter(values.values())).shape[1] if values else 1
        made = []
        for part in self.parts:
            ends = (weight.shape[2], weight.shape[1]) if part.turned else weight.shape[1:]
            shapes = [(len(weight), events, size) for size in ends]
            anchor, other = (
                stacked(monomials, values, shape, weight) for monomials, shape in zip(part.sides, shapes, strict=True)
            )
            made.append(Sides(anchor, other))
        return made

    def scaled(self, multiplier: float, events: int) -> list[Float[Tensor, "R k n"]]:
        """The coefficients of every table over B, times what the synapse model multiplies changes by."""
        key = multiplier, events
        if key not in self._scaled:
            scale = 1.0 / events if self.plain.momentum is not None else self.rate * (multiplier / events)
            self._scaled[key] = [part.coefficients * scale for part in self.parts]
        return self._scaled[key]

    def factors(self, sides: list[Sides], multiplier: float) -> list[tuple[Tensor, Tensor]]:
        """left (R N I) and right (R N J) of every table, whose change is left^T right but for the weight's power."""
        made = []
        for part, side, scaled in zip(self.parts, sides, self._of(sides, multiplier), strict=True):
            anchor, mixed = side.anchor.flatten(1, 2), _times(scaled, side.other).flatten(1, 2)
            made.append((mixed, anchor) if part.turned else (anchor, mixed))
        return made

    def _of(self, sides: list[Sides], multiplier: float) -> list[Tensor]:
        return self.scaled(multiplier, sides[0].anchor.shape[2]) if sides else []

    def there(
        self, weight: Tensor, velocity: Tensor | None, sides: list[Sides], multiplier: float, in_place: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Weight and velocity after a step; `in_place` overwrites the weight."""
        powers = [part.table.power for part in self.parts]
        factors = self.factors(sides, multiplier)
        full = [_product(pair) * powered(weight, power) for power, pair in zip(powers, factors, strict=True) if power]
        plain = [pair for power, pair in zip(powers, factors, strict=True) if not power]
        if velocity is not None:
            current = self._added(weight * -self.shrink if self.shrinks else torch.zeros_like(weight), plain, full)
            momentum = self.plain.momentum
            assert momentum is not None
            velocity = torch.add(current, velocity, alpha=momentum)
            ahead = torch.add(current, velocity, alpha=momentum) if self.plain.nesterov else velocity
            return torch.addcmul(weight, ahead, self.rate * multiplier), velocity
        if not in_place:
            weight = weight.clone()
        if self.shrinks:
            weight.mul_(self._keep(multiplier))
        return self._added(weight, plain, full), None

    def _added(self, total: Tensor, plain: list[tuple[Tensor, Tensor]], full: list[Tensor]) -> Tensor:
        for left, right in plain:
            total.baddbmm_(left.transpose(1, 2), right)
        for each in full:
            total.add_(each)
        return total

    def rebuilt(self, weight: Tensor, factors: list[tuple[Tensor, Tensor]], multiplier: float) -> None:
        """From the weight after a step to the one before it, in place."""
        for left, right in factors:
            weight.baddbmm_(left.transpose(1, 2), right, alpha=-1)
        if self.shrinks:
            weight.div_(self._keep(multiplier))

    def _keep(self, multiplier: float) -> Tensor:
        return 1 - self.shrink * self.rate * multiplier

    def start(self, weight: Tensor, velocity: Tensor | None) -> Sums:
        """Sums that go on from the cotangents of weight and velocity."""
        tables = [torch.zeros_like(part.coefficients) for part in self.parts]
        return Sums(weight, velocity, tables, torch.zeros_like(self.lost), torch.zeros_like(self.lost))

    def back(
        self,
        sums: Sums,
        sides: list[Sides],
        factors: list[tuple[Tensor, Tensor]],
        values: Values,
        weight: Tensor,
        velocities: tuple[Tensor, Tensor] | None,
        multiplier: float,
    ) -> Values:
        """The cotangents of the factors; `sums` goes from after the step to before it, its weight in place.

        `weight` is the one before the step, `velocities` those before and after it.
        """
        slope, stepped = sums.weight, 1.0
        whole = None  # what the weight's cotangent gains
        if velocities is None:
            stepped = multiplier
        else:
            slope = self._through_velocity(sums, velocities, multiplier)
        found: Values = {}
        for part, side, pair, scaled, total in zip(
            self.parts, sides, factors, self._of(sides, multiplier), sums.tables, strict=True
        ):
            seen = slope
            if part.table.power:
                seen = slope * powered(weight, part.table.power)
                gained = _product(pair) * slope
                if part.table.power > 1:
                    gained = gained * powered(weight, part.table.power - 1) * part.table.power
                whole = gained if whole is None else whole.add_(gained)
            anchor, mixed = pair
            if part.turned:
                seen, anchor, mixed = seen.transpose(1, 2), mixed, anchor
            runs, count, events, _ = side.anchor.shape
            met = torch.bmm(anchor, seen).view(runs, count, events, -1)
            total.baddbmm_(met.flatten(2), side.other.flatten(2).transpose(1, 2), alpha=stepped / events)
            back = torch.bmm(mixed, seen.transpose(1, 2)).view(side.anchor.shape)
            other = _times(scaled.transpose(1, 2), met)
            for monomials, cotangents in zip(part.sides, (back, other), strict=True):
                to_factors(found, monomials, values, cotangents)
        if self.shrinks:
            sums.kept.add_(_dot(slope, weight), alpha=stepped)
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
            pairs = (met.mT if part.turned else met).flatten(1)
            by_term = by_term + part.table.terms_gradient(pairs * scale, self.count)
        if self.decay is not None:
            by_term = by_term + self.decay.terms_gradient(sums.kept[:, None] * scale, self.count)
        return by_term, rate


def _times(coefficients: Float[Tensor, "R k n"], values: Float[Tensor, "R n B size"]) -> Float[Tensor, "R k B size"]:
    if coefficients.shape[1:] == (1, 1):
        return values * coefficients[..., None]
    mixed = torch.bmm(coefficients, values.flatten(2))
    return mixed.view(len(values), -1, *values.shape[2:])


def _product(factors: tuple[Tensor, Tensor]) -> Float[Tensor, "R I J"]:
    left, right = factors
    return torch.bmm(left.transpose(1, 2), right)


def _dot(first: Float[Tensor, "R I J"], second: Float[Tensor, "R I J"]) -> Float[Tensor, "R"]:
    return torch.bmm(first.flatten(1)[:, None], second.flatten(1)[:, :, None])[:, 0, 0]
