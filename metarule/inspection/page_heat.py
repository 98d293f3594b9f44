"""Response surfaces as maps of a few colours, drawn from rectangles: blue lowers a weight, orange raises it."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from metarule.inspection.markup import Html, embedded, tag
from metarule.inspection.page_parts import number, words

LEVELS = 7
"""Shades on either side of nothing."""

POLE = 95
"""Percent of a surface's values that decide its shades where those above are `FAR` times as large."""

FAR = 4

Rows = list[list[float | None]]


def heat_map(identifier: str, surface: dict[str, Any], owner: str = "") -> Html:
    """dW over two signals (rows are y, the lowest first), its scale, and what was held; `owner` is its rule's name."""
    x, y = surface["x_values"], surface["y_values"]
    rows: Rows = surface["change"]
    largest, cut = _largest(rows)
    shades = [_shade(level, _strips(rows, level, largest)) for level in range(-LEVELS, LEVELS + 1)]
    picture = tag(
        "svg", *shades, viewBox=f"0 0 {len(x)} {len(y)}", preserveAspectRatio="none", shape_rendering="crispEdges",
        aria_hidden="true",
    )  # fmt: skip
    ends = [
        tag("span", number(y[-1], digits=2), class_="tick y", style="bottom:calc(100% - .6em)"),
        tag("span", number(y[0], digits=2), class_="tick y", style="bottom:.6em"),
        tag("span", number(x[0], digits=2), class_="tick x", style="left:.8em"),
        tag("span", number(x[-1], digits=2), class_="tick x", style="left:calc(100% - .8em)"),
    ]
    title = f"{words(owner)}{': ' if owner else ''}ΔW over {surface['x']} and {surface['y']}"
    plot = tag(
        "div", picture, *ends, class_="plot heat", tabindex="0", role="group",
        aria_label=f"{title}. With arrow keys the values are read.",
    )  # fmt: skip
    held = ", ".join(f"{name} = {number(value)}" for name, value in surface.get("held", {}).items())
    names = tag("div", tag("span", f"↑ {surface['y']}"), tag("span", f"{surface['x']} →"), class_="axes")
    numbers = {
        "x_name": surface["x"],
        "y_name": surface["y"],
        "x": [number(value) for value in x],
        "y": [number(value) for value in y],
        "change": [[number(value, sign=True) for value in row] for row in rows],
    }
    return tag(
        "figure", tag("figcaption", title), plot, names, _scale(largest, cut),
        tag("p", f"held: {held}", class_="note") if held else None,
        embedded(f"{identifier}-numbers", numbers), class_="chart surface", id=identifier,
    )  # fmt: skip


def level_of(value: float | None, largest: float) -> int | None:
    """Which of the shades a value has, -LEVELS to LEVELS; None where there is no value."""
    if value is None:
        return None
    return 0 if largest == 0 else min(max(round(LEVELS * value / largest), -LEVELS), LEVELS)


def _largest(rows: Rows) -> tuple[float, bool]:
    """The value of the last shade, and whether larger ones are cut off: a pole would leave all else without a shade."""
    sizes = sorted(abs(value) for row in rows for value in row if value is not None)
    if not sizes:
        return 0.0, False
    most = sizes[(POLE * (len(sizes) - 1)) // 100]
    return (most, True) if sizes[-1] > FAR * most > 0 else (sizes[-1], False)


def _strips(rows: Rows, level: int, largest: float) -> str:
    """Path of all cells of one shade; neighbours in a row are one rectangle."""
    path = []
    for down, row in enumerate(reversed(rows)):
        across = 0
        for shade, cells in groupby(level_of(value, largest) for value in row):
            width = sum(1 for _ in cells)
            if shade == level:
                path.append(f"M{across} {down}h{width}v1h-{width}z")
            across += width
    return "".join(path)


def _shade(level: int, path: str) -> Html | None:
    return tag("path", d=path, style=f"fill:{_colour(level)}") if path else None


def _colour(level: int) -> str:
    series, share = ("--series1", level) if level > 0 else ("--series0", -level)
    return f"color-mix(in oklab,var({series}) {round(100 * share / LEVELS)}%,var(--faint))"


def _scale(largest: float, cut: bool) -> Html:
    """The legend: the shades in a row, with the numbers of its ends; `cut` where what is beyond has these shades."""
    steps = [tag("i", style=f"background:{_colour(level)}") for level in range(-LEVELS, LEVELS + 1)]
    ends = f"{'≤ ' * cut}{number(-largest)}", f"{'≥ ' * cut}{number(largest, sign=True)}"
    return tag("div", tag("span", ends[0]), tag("span", *steps, class_="steps"), tag("span", ends[1]), class_="scale")
