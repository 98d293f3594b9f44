"""The pictures of a run: learning curve, coefficients, battery; drawn from numbers, saved as PNG in its folder."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from metarule.inspection.figure_files import (
    Rows,
    battery_rows,
    coefficient_rows,
    curve_rows,
    front_rows,
    removed,
    saved,
    written,
)
from metarule.inspection.numbers import (
    LARGEST,
    Coefficients,
    Comparison,
    Front,
    LearningCurve,
    coefficients,
    comparison,
    curve,
    episodes,
    found,
    front,
)
from metarule.inspection.palette import DASHES, LIGHT_SERIES, PALETTE
from metarule.inspection.thinned import ceiling, thinned
from metarule.records import jsonable, read_log

WIDE = 20
"""A ratio of losses from which on a logarithmic axis shows more."""

STEEP = 5
"""The same for the losses of a front."""

FAR = 1.5
"""How far beyond the front's worst loss a rule is still drawn, in heights of the front."""

NAMED = len(PALETTE)
"""Coefficients that have a colour and a name in their picture; of more, the others are grey behind them."""

DECADES = 3
"""Up to so many, a logarithmic axis is labelled in between its powers of ten."""

TITLE = 62
"""Characters in a line of a title."""

MARKERS = ("o", "s", "^", "D")
LONGEST_LABEL = 60
NAMES = ("learning_curve.png", "coefficients.png", "battery.png", "front.png")


def draw(path: Path) -> list[Path]:
    """Draw all pictures of a run into RUN/figures, replacing older ones; returns the PNG files.

    Beside each lie its numbers as CSV, written first, and the same drawing as SVG.
    """
    document = found(path)
    folder = path / "figures"
    folder.mkdir(exist_ok=True)
    title = document["name"]
    drawn: dict[str, tuple[Rows, Figure]] = {}
    if document["learning_curve"]:
        lines = curve(document)
        drawn["learning_curve.png"] = curve_rows(lines), learning_curve_figure(lines, title)
        if document["coefficients"]:
            values = coefficients(document)
            drawn["coefficients.png"] = coefficient_rows(values, drawn_of(values)), coefficients_figure(values, title)
    tested = comparison(document, episodes(path))
    if tested:
        drawn["battery.png"] = battery_rows(tested), battery_figure(tested, title)
    leading = front(document, read_log(path / "log.jsonl"))
    if leading:
        drawn["front.png"] = front_rows(leading), front_figure(leading, title)
    for name in NAMES:
        removed(folder / name)
        if name in drawn:
            rows, figure = drawn[name]
            written(rows, (folder / name).with_suffix(".csv"))
            saved(figure, folder / name)
    return [folder / name for name in NAMES if name in drawn]


def learning_curve_figure(numbers: LearningCurve, title: str) -> Figure:
    """Objective of the mean and the luckiest candidate over generations; other metrics, where there are any, below.

    Long curves are medians of neighbouring generations over their quartiles.
    """
    shown = list(numbers.metrics.items())
    figure = Figure(figsize=(6.4, 3.4 + 2.0 * len(shown)), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1 + len(shown), 1, sharex=True, squeeze=False)[:, 0])
    alone = numbers.mean == numbers.best  # one candidate: both lines would be one
    width = _curve(axes[0], numbers.generations, numbers.mean, 0, "mean of candidates")
    if not alone:
        _curve(axes[0], numbers.generations, numbers.best, 1, "luckiest candidate", "--")
        axes[0].legend(frameon=False)
    axes[0].set_ylabel("objective (lower is better)")
    seen = [value for value in (*numbers.mean, *numbers.best) if not math.isnan(value)]
    cut = None
    if seen and min(seen) > 0 and max(seen) > WIDE * min(seen):
        cut = ceiling(seen)
        _logarithmic(axes[0], cut)
    for place, (name, values) in enumerate(shown, start=1):
        _curve(axes[place], numbers.generations, values, 2)
        axes[place].set_ylabel(f"{name.replace('_', ' ')}, mean")
    said = [f"medians of {width} generations, quartiles"] * (width > 1)
    said += ["gap: every candidate diverged"] * (None in thinned(numbers.generations, numbers.mean).y)
    said += ["what is above the axis is cut off"] * (cut is not None)
    _finish(axes, f"{title}: learning curve" + (f" ({'; '.join(said)})" if said else ""))
    return figure


def coefficients_figure(numbers: Coefficients, title: str) -> Figure:
    """Normalised coefficients over generations, the largest of many; bars at the right are their ranges over the last
    third. The eight largest have colours and their names beside their ends."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    last = numbers.generations[-1]
    step = max(last - numbers.generations[0], 1) * 0.025
    axes.axhline(0.0, color="0.7", lw=0.8, zorder=0)
    largest = drawn_of(numbers)
    for name in largest[NAMED:]:
        axes.plot(numbers.generations, numbers.values[name], color="0.8", lw=0.7, zorder=1)
    named = [name for name in numbers.values if name in largest[:NAMED]]
    for place, name in enumerate(named):
        values, color = numbers.values[name], PALETTE[place]
        _curve(axes, numbers.generations, values, place, name, DASHES[place % len(DASHES)])
        if name in numbers.intervals:
            where = last + step * (place + 1)
            axes.plot([where, where], numbers.intervals[name], color=color, lw=3, solid_capstyle="butt")
            axes.plot([where], [values[-1]], "o", color=color, ms=4)
    axes.set_xlim(right=last + step * (len(named) + 1))
    _labelled(axes, {name: numbers.values[name][-1] for name in named})
    axes.set_ylabel("normalised coefficient")
    which = "coefficients" if len(largest) == len(numbers.values) else f"the {LARGEST} largest coefficients"
    named_only = "" if len(largest) == len(named) else f"; named: the {NAMED} largest"
    _finish([axes], f"{title}: {which} (bars: range over the last third{named_only})")
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= last]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    return figure


def drawn_of(numbers: Coefficients) -> list[str]:
    """Names of the coefficients that are drawn, the largest first."""
    return sorted(numbers.values, key=lambda name: -abs(numbers.values[name][-1]))[:LARGEST]


def battery_figure(numbers: Comparison, title: str) -> Figure:
    """Mean and 95 % interval per learner, over the faint dots of its episodes."""
    count = len(numbers.learners)
    figure = Figure(figsize=(6.4, 1.4 + 0.55 * count), layout="constrained")
    axes = figure.subplots()
    for place in range(count):
        color = PALETTE[place % len(PALETTE)]
        values = np.array([value for value in numbers.episodes[place] if math.isfinite(value)])
        # a fixed spread, not a random one: the same run gives the same picture
        offsets = ((np.arange(len(values)) * 0.618034) % 1.0 - 0.5) * 0.5
        axes.plot(
            values,
            place + offsets,
            ".",
            color=color,
            alpha=max(0.18, 0.5 - len(values) / 300),
            ms=5,
            mec="none",
            zorder=1,
        )
        mean, low, high = numbers.means[place], numbers.lows[place], numbers.highs[place]
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [place, place], color="black", lw=2.2, solid_capstyle="butt", zorder=2)
        axes.plot([mean], [place], "o", color=color, mec="black", ms=7, zorder=3)
    axes.set_yticks(range(count), numbers.learners)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlabel(numbers.metric.replace("_", " "))
    number = max((len(values) for values in numbers.episodes), default=0)
    dress(axes)
    _title(axes, f"{title}: {number} held-out episodes, mean and 95 % interval")
    return figure


def front_figure(numbers: Front, title: str) -> Figure:
    """The rules of the front as stairs over the dots of all that was tried and is not far worse, each with its name."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    lowest, highest = min(numbers.first), max(numbers.first)
    top = highest + FAR * max(highest - lowest, 0.1 * abs(highest))
    near = [pair for pair in numbers.tried if pair[0] <= top]
    axes.plot([two for _, two in near], [one for one, _ in near], ".", color="0.7", ms=5, mec="none", label="tried")
    order = sorted(range(len(numbers.first)), key=lambda place: numbers.second[place])
    across = [numbers.second[place] for place in order]
    up = [numbers.first[place] for place in order]
    axes.step(across, up, where="post", color=PALETTE[0], lw=1.2, zorder=2)
    names = list(dict.fromkeys(numbers.labels[place] for place in order))
    for number, name in enumerate(names):
        here = [place for place in order if numbers.labels[place] == name]
        axes.plot(
            [numbers.second[place] for place in here],
            [numbers.first[place] for place in here],
            MARKERS[number // len(PALETTE) % len(MARKERS)],
            color=PALETTE[number % len(PALETTE)],
            mec="black",
            ms=8,
            zorder=3,
            label=name if len(name) <= LONGEST_LABEL else f"{name[:LONGEST_LABEL]}…",
        )
    first, second = (name.replace("_", " ") for name in numbers.objectives)
    axes.set_xlabel(second)
    axes.set_ylabel(f"{first} in the search (lower is better)")
    axes.set_xlim(left=min(0.0, min(across)) - 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if 0 < lowest < highest / STEEP:
        _logarithmic(axes)
    # below the axes: within them it would lie over rules that were tried
    columns = 2 if max(map(len, names)) <= LONGEST_LABEL // 2 else 1
    figure.legend(frameon=False, fontsize="small", loc="outside lower left", ncols=columns)
    dress(axes)
    _title(axes, f"{title}: what no other rule beats")
    return figure


def keep(folder: Path, name: str, numbers: dict[str, Any], draw: Callable[[dict[str, Any]], Figure]) -> list[Path]:
    """Write the numbers of an analysis as JSON, then their picture as PNG, to FOLDER/NAME; returns both files.

    Beside the PNG lies the same drawing as SVG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json", folder / f"{name}.png"]
    files[0].write_text(json.dumps(jsonable(numbers), indent=1) + "\n")
    saved(draw(numbers), files[1])
    return files


def _curve(
    axes: Axes, x: Sequence[float], y: Sequence[float], place: int, label: str | None = None, dash: str = "-"
) -> int:
    """One line in the colour of its place, thinned where it is long; returns how many values a point of it is of."""
    line = thinned(x, y)
    colour = PALETTE[place]
    if line.width > 1:
        axes.fill_between(line.x, _numbers(line.low), _numbers(line.high), color=colour, alpha=0.2, lw=0)
    axes.plot(line.x, _numbers(line.y), color=colour, ls=dash, marker=_marker(line.x), label=label)
    return line.width


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _labelled(axes: Axes, ends: dict[str, float]) -> None:
    """Names beside the ends of lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    room = (high - low) * 0.055
    order = sorted(ends, key=lambda name: ends[name])
    heights: list[float] = []
    for name in order:
        heights.append(max(ends[name], heights[-1] + room) if heights else ends[name])
    most = high
    for place in reversed(range(len(heights))):  # what was pushed out at the top comes back down
        heights[place] = min(heights[place], most)
        most = heights[place] - room
    colours = dict(zip(ends, LIGHT_SERIES, strict=False))  # the palette's, dark enough to be read
    for name, height in zip(order, heights, strict=True):
        axes.text(
            1.01, height, name, color=colours[name], fontsize="small", va="center", transform=axes.get_yaxis_transform()
        )


def _logarithmic(axes: Axes, cut: float | None = None) -> None:
    """A logarithmic axis with plain numbers, 1, 2, 5, 10, where they are few."""
    axes.set_yscale("log")
    if cut is not None:
        axes.set_ylim(top=cut)
    low, high = axes.get_ylim()
    if math.log10(high / low) <= DECADES:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _title(axes: Axes, text: str) -> None:
    axes.set_title(textwrap.fill(text, TITLE), loc="left", fontsize="medium")


def _marker(generations: Sequence[float]) -> str:
    """Dots where a line alone would be too short to see."""
    return "." if len(generations) < 10 else ""


def _finish(axes: list[Axes], title: str) -> None:
    for each in axes:
        dress(each)
    axes[-1].set_xlabel("generation")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    _title(axes[0], title)


def dress(axes: Axes) -> None:
    """The look that all pictures share: no box, a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="0.92", lw=0.6)
    axes.set_axisbelow(True)
