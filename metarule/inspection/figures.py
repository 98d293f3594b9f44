"""The pictures of a run: learning curve, coefficients, battery; drawn from numbers, saved as PNG in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
from metarule.records import jsonable, read_log

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Colours that colour-blind readers tell apart (Okabe and Ito, 2008), beginning with the strongest."""

WIDE = 20
"""A ratio of losses from which on a logarithmic axis shows more."""

STEEP = 5
"""The same for the losses of a front."""

FAR = 1.5
"""How far beyond the front's worst loss a rule is still drawn, in heights of the front."""


MARKERS = ("o", "s", "^", "D")
LONGEST_LABEL = 60
DASHES = ("-", "--", "-.", ":")
NAMES = ("learning_curve.png", "coefficients.png", "battery.png", "front.png")


def draw(path: Path) -> list[Path]:
    """Draw all pictures of a run into RUN/figures, replacing older ones; returns the files."""
    document = found(path)
    folder = path / "figures"
    folder.mkdir(exist_ok=True)
    title = document["name"]
    drawn: dict[str, Figure | None] = dict.fromkeys(NAMES)
    if document["learning_curve"]:
        drawn["learning_curve.png"] = learning_curve_figure(curve(document), title)
        if document["coefficients"]:
            drawn["coefficients.png"] = coefficients_figure(coefficients(document), title)
    tested = comparison(document, episodes(path))
    if tested:
        drawn["battery.png"] = battery_figure(tested, title)
    leading = front(document, read_log(path / "log.jsonl"))
    if leading:
        drawn["front.png"] = front_figure(leading, title)
    for name, figure in drawn.items():
        (folder / name).unlink(missing_ok=True)
        if figure is not None:
            figure.savefig(folder / name, dpi=160)
    return [folder / name for name, figure in drawn.items() if figure is not None]


def learning_curve_figure(numbers: LearningCurve, title: str) -> Figure:
    """Objective of the mean and the luckiest candidate over generations; other metrics, where there are any, below."""
    shown = list(numbers.metrics.items())
    figure = Figure(figsize=(6.4, 3.4 + 2.0 * len(shown)), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1 + len(shown), 1, sharex=True, squeeze=False)[:, 0])
    marker = _marker(numbers.generations)
    axes[0].plot(numbers.generations, numbers.mean, color=PALETTE[0], marker=marker, label="mean of candidates")
    axes[0].plot(
        numbers.generations, numbers.best, color=PALETTE[1], ls="--", marker=marker, label="luckiest candidate"
    )
    axes[0].set_ylabel("objective (lower is better)")
    seen = [value for value in (*numbers.mean, *numbers.best) if not math.isnan(value)]
    if seen and min(seen) > 0 and max(seen) > WIDE * min(seen):
        axes[0].set_yscale("log")
    axes[0].legend(frameon=False)
    for place, (name, values) in enumerate(shown, start=1):
        axes[place].plot(numbers.generations, values, color=PALETTE[2], marker=marker)
        axes[place].set_ylabel(f"{name.replace('_', ' ')}, mean")
    gap = any(math.isnan(value) for value in numbers.mean)
    _finish(axes, f"{title}: learning curve" + (" (gap: every candidate diverged)" if gap else ""))
    return figure


def coefficients_figure(numbers: Coefficients, title: str) -> Figure:
    """Normalised coefficients over generations, the largest of many; bars at the right are their ranges over the last
    third."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    last = numbers.generations[-1]
    step = max(len(numbers.generations), 10) * 0.025
    axes.axhline(0.0, color="0.7", lw=0.8, zorder=0)
    largest = sorted(numbers.values, key=lambda name: -abs(numbers.values[name][-1]))[:LARGEST]
    shown = {name: values for name, values in numbers.values.items() if name in largest}
    for place, (name, values) in enumerate(shown.items()):
        color, dash = PALETTE[place % len(PALETTE)], DASHES[place // len(PALETTE) % len(DASHES)]
        axes.plot(numbers.generations, values, color=color, ls=dash, marker=_marker(numbers.generations), label=name)
        if name in numbers.intervals:
            where = last + step * (place + 1)
            axes.plot([where, where], numbers.intervals[name], color=color, lw=3, solid_capstyle="butt")
            axes.plot([where], [values[-1]], "o", color=color, ms=4)
    axes.set_ylabel("normalised coefficient")
    columns = math.ceil(len(shown) / 12)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", ncols=columns)
    which = "coefficients" if len(shown) == len(numbers.values) else f"the {LARGEST} largest coefficients"
    _finish([axes], f"{title}: {which} (bars: range over the last third)")
    return figure


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
    axes.set_title(f"{title}: {number} held-out episodes, mean and 95 % interval", loc="left", fontsize="medium")
    return figure


def front_figure(numbers: Front, title: str) -> Figure:
    """The rules of the front as stairs over the dots of all that was tried and is not far worse, each with its name."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
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
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize="small", loc="upper right")
    dress(axes)
    axes.set_title(f"{title}: what no other rule beats", loc="left", fontsize="medium")
    return figure


def keep(folder: Path, name: str, numbers: dict[str, Any], draw: Callable[[dict[str, Any]], Figure]) -> list[Path]:
    """Write the numbers of an analysis as JSON, then their picture as PNG, to FOLDER/NAME; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json", folder / f"{name}.png"]
    files[0].write_text(json.dumps(jsonable(numbers), indent=1) + "\n")
    draw(numbers).savefig(files[1], dpi=160)
    return files


def _marker(generations: tuple[int, ...]) -> str:
    """Dots where a line alone would be too short to see."""
    return "." if len(generations) < 10 else ""


def _finish(axes: list[Axes], title: str) -> None:
    for each in axes:
        dress(each)
    axes[-1].set_xlabel("generation")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_title(title, loc="left", fontsize="medium")


def dress(axes: Axes) -> None:
    """The look that all pictures share: no box, a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="0.92", lw=0.6)
    axes.set_axisbelow(True)
