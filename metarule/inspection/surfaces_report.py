"""Response surfaces as terminal text: a small map of signs and sizes for each pair of signals."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from metarule.inspection.probe_words import number

GROWS, SHRINKS = "▒▓█", "=≡≣"
"""Above a quarter, a half and three quarters of the largest change of the map; below a quarter + and -."""

SLIGHT = 0.05
"""Share of the largest change below which a cell is blank."""

POSITIVE, NEGATIVE = "bright_red", "bright_blue"

ACROSS, UP = 33, 11
"""Cells of a map at most."""


def surfaces_report(section: dict[str, Any]) -> RenderableType:
    """What `metarule inspect --surfaces` shows; sizes by shade, + and - so that no colour is needed."""
    parts: list[RenderableType] = []
    for surface in section["surfaces"]:
        parts += _map(surface)
    return Group(*parts, *(Text(f"• {sentence}") for sentence in section["sentences"]))


def _map(surface: dict[str, Any]) -> list[RenderableType]:
    largest = max((abs(value) for row in surface["change"] for value in row if value is not None), default=0.0)
    held = ", ".join(f"{name} = {number(value)}" for name, value in surface["held"].items())
    heading = f"{surface['rule']}: dW of a synapse of {surface['at']}" + (f", {held}" if held else "")
    rows = _some(list(zip(surface["y_values"], surface["change"], strict=True)), UP)
    columns = _some(list(range(len(surface["x_values"]))), ACROSS)
    lines: list[RenderableType] = [Text(heading, style="bold")]
    if surface["equation"]:
        lines.append(Text(surface["equation"]))
    lines.append(Text(f"{'':>10}  {surface['y']}"))
    for value, changes in reversed(rows):
        line = Text(f"{number(value):>10}  ")
        for column in columns:
            line.append(*_cell(changes[column], largest))
        lines.append(line)
    first, last = (number(surface["x_values"][end]) for end in (0, -1))
    lines.append(Text(f"{'':>10}  {first}{surface['x']:^{max(len(columns) - len(first) - len(last), 1)}}{last}"))
    lines.append(
        Text(f"{'':>10}  +{GROWS} grows, by up to {number(largest)}; -{SHRINKS} shrinks as much; · less than 5 %")
    )
    lines.append(Text(""))
    return lines


def _cell(value: float | None, largest: float) -> tuple[str, str]:
    """The sign and size of one cell, and its colour."""
    if value is None:
        return "?", ""
    size = abs(value) / largest if largest else 0.0
    if size < SLIGHT:
        return "·", ""
    shades, color = (f"+{GROWS}", POSITIVE) if value > 0 else (f"-{SHRINKS}", NEGATIVE)
    return shades[min(int(size * len(shades)), len(shades) - 1)], color


def _some(items: list[Any], most: int) -> list[Any]:
    """At most so many of a list, evenly spread, its ends included."""
    if len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]
