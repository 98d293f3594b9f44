"""Curves as inline SVG that needs no script: a plot that stretches with the page, its labels in the page's own type.

A script adds the crosshair and makes buttons of the legend, from the numbers that are embedded beside the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from metarule.inspection.markup import Html, embedded, tag
from metarule.inspection.page_parts import number
from metarule.inspection.thinned import ceiling, thinned

Values = Sequence[float | None]

PATTERNS = ("", "7 4", "10 3 2 3", "2 3")
"""Dashes of a line's second mark."""

SERIES = 8
"""Colours there are."""

WIDE = 20
"""A ratio of values from which on a logarithmic axis shows more."""


@dataclass(frozen=True)
class Line:
    """One curve: its name, its values, the band about it; `shown` where it is drawn before anybody asks.

    `look` is the number of its colour and dash, where they are not those of its place in the chart.
    """

    name: str
    x: Sequence[float]
    y: Values
    low: Values = ()
    high: Values = ()
    shown: bool = True
    stairs: bool = False
    look: int | None = None

    def number(self, place: int) -> int:
        """The number of its colour and dash as line number `place`."""
        return place if self.look is None else self.look


class Axis:
    """Where values stand between 0 and 1, and which of them are labelled."""

    def __init__(self, values: Iterable[float | None], log: bool = False) -> None:
        seen = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
        low, high = min(seen), max(seen)
        self.log = log and low > 0
        self.cut = ceiling(seen) if self.log else None
        high = high if self.cut is None else self.cut
        if self.log:
            low, high = math.log10(low), math.log10(high)
        room = (high - low) or abs(high) or 1.0
        self.low, self.high = low - 0.04 * room, high + 0.04 * room

    def at(self, value: float) -> float:
        """The place of a value, 0 at the axis's lower end."""
        there = math.log10(value) if self.log else value
        return (there - self.low) / (self.high - self.low)

    def tight(self) -> Axis:
        """The axis without room at its ends, as of generations."""
        room = (self.high - self.low) * 0.04 / 1.08
        self.low, self.high = self.low + room, self.high - room
        return self

    def ticks(self, count: int = 5) -> list[float]:
        """Round values in it."""
        if self.log:
            first, last = math.ceil(self.low), math.floor(self.high)
            if last - first >= 2:
                return [10.0**power for power in range(first, last + 1, max(1, math.ceil((last - first + 1) / count)))]
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            fine = [part * 10.0**power for power in powers for part in (1, 2, 5)]
            return [value for value in fine if self.low <= math.log10(value) <= self.high]
        step = _round((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def chart(
    identifier: str,
    title: str,
    lines: Sequence[Line],
    across: str,
    log: bool = False,
    whole: bool = True,
) -> Html:
    """A figure of curves over `across`; `whole` where only whole numbers of it are labelled."""
    lines = [line for line in lines if any(value is not None for value in line.y)]
    ends = [value for line in lines if line.shown for values in (line.y, line.low, line.high) for value in values]
    upright, flat = Axis(ends, log), Axis(x for line in lines for x in line.x)
    if not any(line.stairs for line in lines):
        flat.tight()
    drawn = [_drawn(place, line, flat, upright) for place, line in enumerate(lines)]
    grid = [tag("path", class_="grid", d=f"M0 {_y(upright.at(y))}H1000") for y in upright.ticks()]
    level = (
        tag("path", class_="level", d=f"M0 {_y(upright.at(0.0))}H1000")
        if not upright.log and _inside(upright)
        else None
    )
    picture = tag("svg", *grid, level, *drawn, viewBox="0 0 1000 1000", preserveAspectRatio="none", aria_hidden="true")
    marks = [_tick("y", f"bottom:{100 * upright.at(y):.2f}%", _short(y)) for y in upright.ticks()]
    steps = [x for x in flat.ticks() if not whole or float(x).is_integer()]
    marks += [_tick("x", f"left:{100 * flat.at(x):.2f}%", _short(x)) for x in steps]
    plot = tag(
        "div", picture, *marks, class_="plot", tabindex="0", role="group",
        aria_label=f"{title}, over {across}. With arrow keys the values are read.",
    )  # fmt: skip
    cut = " (what is above is cut off)" if upright.cut is not None else ""
    numbers = {
        "across": across,
        "lines": [_numbers(line, len(_every(lines)), flat, upright) for line in lines],
        "grid": [round(flat.at(x), 5) for x in _every(lines)],
        "x": [_short(x) for x in _every(lines)],
    }
    return tag(
        "figure", tag("figcaption", f"{title}{cut}"), _legend(lines) if len(lines) > 1 else None, plot,
        tag("div", across, class_="across"), embedded(f"{identifier}-numbers", numbers),
        class_="chart", id=identifier,
    )  # fmt: skip


def smooth(name: str, x: Sequence[float], y: Values, shown: bool = True) -> Line:
    """A curve that may be long and noisy: of medians, with their quartiles as its band, where it is."""
    curve = thinned(x, y)
    return Line(name, curve.x, curve.y, curve.low, curve.high, shown)


def smoothed(x: Sequence[float], unit: str) -> str | None:
    """What to say of curves over `x` that `smooth` has made."""
    width = thinned(x, [0.0] * len(x)).width
    return None if width == 1 else f"Curves are medians of {width} {unit} each; bands are quartiles."


def skewed(lines: Iterable[Line]) -> bool:
    """True where a logarithmic axis shows more of these lines."""
    seen = [value for line in lines for value in line.y if value is not None]
    return bool(seen) and min(seen) > 0 and max(seen) > WIDE * min(seen)


def dash(place: int) -> str | None:
    """The pattern of line number `place`: another for each round of colours."""
    return PATTERNS[(place // SERIES + place % SERIES) % len(PATTERNS)] or None


def swatch(place: int) -> Html:
    """A piece of line number `place`, for a legend."""
    piece = tag("path", d="M0 5H26", stroke_dasharray=dash(place))
    return tag("svg", piece, viewBox="0 0 26 10", class_=f"swatch s{place % SERIES}", aria_hidden="true")


def _legend(lines: Sequence[Line]) -> Html:
    entries = [
        tag("li", swatch(line.number(place)), tag("span", line.name), data_line=str(place), data_off=not line.shown)
        for place, line in enumerate(lines)
    ]
    return tag("ul", *entries, class_="legend")


def _drawn(place: int, line: Line, flat: Axis, upright: Axis) -> Html:
    band = None
    if line.low and line.high:
        edge = [
            (x, low, high) for x, low, high in zip(line.x, line.low, line.high, strict=True) if None not in (low, high)
        ]
        points = [_point(x, y, flat, upright) for x, _, y in edge]
        points += [_point(x, y, flat, upright) for x, y, _ in reversed(edge)]
        band = tag("path", class_="band", d=f"M{'L'.join(points)}Z") if points else None
    pieces: list[str] = []
    fresh = True
    for x, y in zip(line.x, line.y, strict=True):
        if y is None or (upright.log and y <= 0):
            fresh = True
            continue
        point = _point(x, y, flat, upright)
        if line.stairs and not fresh:
            pieces.append(f"H{point.split()[0]}")
        pieces.append(("M" if fresh else "L") + point)
        fresh = False
    curve = tag("path", class_="curve", d="".join(pieces), stroke_dasharray=dash(line.number(place)))
    dots = None
    if len(line.x) < 10:
        dots = tag("path", class_="dots", d="".join(f"M{each[1:]}h0" for each in pieces if each[0] != "H"))
    kind = f"line s{line.number(place) % SERIES}" + ("" if line.shown else " off")
    return tag("g", band, curve, dots, class_=kind, data_line=str(place))


def _numbers(line: Line, count: int, flat: Axis, upright: Axis) -> dict[str, Any]:
    """What the crosshair says of a line: text and height of every point, by its place on the axis."""
    order = {x: place for place, x in enumerate(line.x)}
    heights = [None if y is None or (upright.log and y <= 0) else round(upright.at(y), 4) for y in line.y]
    bands = [_band(line, place) for place in range(len(line.x))] if line.low else []
    return {
        "name": line.name,
        "x": None if len(order) == count else [round(flat.at(x), 5) for x in order],
        "text": [number(y) + (f" {bands[place]}" if bands else "") for place, y in enumerate(line.y)],
        "height": heights,
        "shown": line.shown,
    }


def _band(line: Line, place: int) -> str:
    low, high = line.low[place], line.high[place]
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def _every(lines: Sequence[Line]) -> list[float]:
    return sorted({x for line in lines for x in line.x})


def _point(x: float, y: float | None, flat: Axis, upright: Axis) -> str:
    assert y is not None
    inside = y if not upright.log or y > 0 else 10.0**upright.low
    return f"{1000 * flat.at(x):.1f} {_y(upright.at(inside))}"


def _y(height: float) -> str:
    return f"{1000 * (1 - min(max(height, -0.2), 1.2)):.1f}"


def _inside(axis: Axis) -> bool:
    return axis.low < 0 < axis.high


def _tick(side: str, style: str, text: str) -> Html:
    return tag("span", text, class_=f"tick {side}", style=style, aria_hidden="true")


def _short(value: float) -> str:
    """A round value, as short as it is."""
    return (
        f"{value:.0f}".replace("-", "−") if abs(value) < 1e4 and float(value).is_integer() else number(value, trim=True)
    )


def _round(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(part * power for part in (1, 2, 2.5, 5, 10) if part * power >= step * 0.999)
