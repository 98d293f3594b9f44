"""Long noisy curves made readable: medians of neighbouring generations, with the quartiles about them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

LONGEST = 150
"""Points from which on a curve is thinned."""

POINTS = 100
"""What is left of them, about."""

FAR = 4
"""Decades beyond which what is above nine tenths of a curve's values is cut off: divergence has no scale."""

Values = Sequence[float | None]


class Thinned(NamedTuple):
    """A curve of medians and quartiles over `width` neighbours each; as it was, and no quartiles, for a width of 1."""

    x: list[float]
    y: list[float | None]
    low: list[float | None]
    high: list[float | None]
    width: int


def thinned(x: Sequence[float], y: Values) -> Thinned:
    """The curve with about a hundred points; a None, or a nan, is left out, a stretch of them stays a gap."""
    width = math.ceil(len(x) / POINTS) if len(x) > LONGEST else 1
    if width == 1:
        return Thinned(list(x), [_finite(value) for value in y], [], [], 1)
    made = Thinned([], [], [], [], width)
    for first in range(0, len(x), width):
        part = [value for value in y[first : first + width] if _finite(value) is not None]
        made.x.append(statistics.fmean(x[first : first + width]))
        low, middle, high = _quartiles([value for value in part if value is not None])
        made.y.append(middle)
        made.low.append(low)
        made.high.append(high)
    return made


def ceiling(values: Sequence[float | None]) -> float | None:
    """Where to cut an axis of positive values off; None where nothing is so far above the rest."""
    seen = sorted(value for value in values if value is not None and math.isfinite(value) and value > 0)
    if not seen:
        return None
    most = seen[(9 * (len(seen) - 1)) // 10]
    return 10 * most if math.log10(seen[-1] / seen[0]) > FAR and seen[-1] > 10 * most else None


def _quartiles(values: list[float]) -> tuple[float | None, float | None, float | None]:
    if not values:
        return None, None, None
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
