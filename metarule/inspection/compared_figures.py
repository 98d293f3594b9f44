"""The pictures of a comparison: learning curves over one another, coefficients, batteries, paired differences."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from metarule.inspection.compared import shared
from metarule.inspection.figure_files import Rows, removed, saved, written
from metarule.inspection.figures import WIDE, dress
from metarule.inspection.numbers import LARGEST
from metarule.inspection.palette import DASHES, PALETTE
from metarule.inspection.thinned import ceiling, thinned
from metarule.records import jsonable

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""The second mark of a run, which colour alone does not tell from the others."""

TALL = 4
"""Panels below one another; of more there are two columns."""

NAMED = 16
"""Runs that a legend names."""


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Write the comparison as JSON, and its pictures as PNG and SVG with their numbers as CSV; returns the PNG files.

    Pictures of an earlier comparison in the same folder are replaced. Raises ValueError where it cannot be written.
    """
    names = document["names"]
    drawn = {
        "learning_curves.png": (curve_rows, curves_figure(document["panels"], names)),
        "coefficients.png": (coefficient_rows, coefficients_figure(document["coefficients"], names)),
        "batteries.png": (battery_rows, batteries_figure(document["batteries"], names)),
        "tests.png": (lambda document: document["tests"], tests_figure(document["tests"])),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(jsonable(document), indent=1, allow_nan=False)
        (folder / "comparison.json").write_text(f"{text}\n", encoding="utf-8")
        files = []
        for name, (rows, figure) in drawn.items():
            removed(folder / name)
            if figure is not None:
                written(rows(document), (folder / name).with_suffix(".csv"))
                saved(figure, folder / name)
                files.append(folder / name)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error
    return files


def curve_rows(document: dict[str, Any]) -> Rows:
    """One row per panel, run and generation."""
    return [
        {"task": panel["task"], "number": panel["number"], "run": document["names"][line["run"]]}
        | {"generation": generation, "value": value}
        for panel in document["panels"]
        for line in panel["lines"]
        for generation, value in enumerate(line["values"])
    ]


def coefficient_rows(document: dict[str, Any]) -> Rows:
    """One row per coefficient and run that has it."""
    return [
        {"coefficient": row["name"], "run": name, "normalised": value}
        for row in document["coefficients"]
        for name, value in zip(document["names"], row["values"], strict=True)
        if value is not None
    ]


def battery_rows(document: dict[str, Any]) -> Rows:
    """One row per learner, metric and run."""
    return [
        {key: row[key] for key in ("task", "metric", "learner")} | {"run": name, **value}
        for row in document["batteries"]
        for name, value in zip(document["names"], row["values"], strict=True)
        if value is not None
    ]


def curves_figure(panels: Sequence[dict[str, Any]], names: Sequence[str]) -> Figure | None:
    """Means over the candidates of each generation, a line per run, a panel per task and number; None without any."""
    if not panels:
        return None
    across = 1 if len(panels) <= TALL else 2
    down = -(-len(panels) // across)
    figure = Figure(figsize=(6.8 * across, 0.8 + 2.3 * down), layout="constrained")
    axes: list[Axes] = list(figure.subplots(down, across, squeeze=False).flat)
    for each in axes[len(panels) :]:
        each.set_visible(False)
    width, cut = 1, False
    for each, panel in zip(axes, panels, strict=False):
        seen: list[float] = []
        for line in panel["lines"]:
            place, curve = line["run"], thinned(range(len(line["values"])), line["values"])
            width = max(width, curve.width)
            mark = MARKERS[place % len(MARKERS)] if len(curve.x) < 10 else ""
            each.plot(
                curve.x, [math.nan if value is None else value for value in curve.y],
                color=_colour(place), ls=_dash(place), marker=mark, ms=4, lw=1.4,
            )  # fmt: skip
            seen += [value for value in curve.y if value is not None]
        if panel["falls"] and seen and min(seen) > 0 and max(seen) > WIDE * min(seen):
            each.set_yscale("log")
            if (top := ceiling(seen)) is not None:
                each.set_ylim(top=top)
                cut = True
        each.xaxis.set_major_locator(MaxNLocator(integer=True))
        what = " (the objective: lower is better)" if panel["falls"] else ""
        each.set_title(f"{panel['title']}{what}", loc="left", fontsize="small")
        dress(each)
    for each in axes[len(panels) - across : len(panels)]:
        each.set_xlabel("generation")
    said = [f"of long ones medians of up to {width} generations"] * (width > 1)
    said += ["what is above an axis is cut off"] * cut
    more = f"\n({'; '.join(said)})" if said else ""
    figure.suptitle(
        f"Learning curves: means over a generation's candidates, where no other is named{more}",
        x=0.01,
        ha="left",
        fontsize="medium",
    )
    _legend(figure, names, sorted({line["run"] for panel in panels for line in panel["lines"]}), lines=True)
    return figure


def coefficients_figure(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Figure | None:
    """Normalised coefficients that runs share, a line per term and a mark per run, the largest of many; or None."""
    rows = shared(rows)
    if not rows:
        return None
    shown = sorted(rows, key=lambda row: -max(abs(value) for value in row["values"] if value is not None))[:LARGEST]
    shown = [row for row in rows if row in shown]
    figure = Figure(figsize=(6.8, 1.5 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0.0, color="0.6", lw=0.8, zorder=0)
    for line, row in enumerate(shown):
        for place, value in enumerate(row["values"]):
            if value is not None:
                axes.plot([value], [line + _apart(place, len(names))], **_mark(place))
    title = "Normalised coefficients" + ("" if len(shown) == len(rows) else f", the {LARGEST} largest of {len(rows)}")
    _rows(axes, [row["name"] for row in shown], title)
    _legend(figure, names, range(len(names)))
    return figure


def batteries_figure(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Figure | None:
    """Held-out means with 95 % intervals of every learner, a panel per task and metric; None without any."""
    if not rows:
        return None
    groups = list(dict.fromkeys((row["task"], row["metric"]) for row in rows))
    several = len({task for task, _ in groups}) > 1
    heights = [sum((row["task"], row["metric"]) == group for row in rows) for group in groups]
    figure = Figure(figsize=(6.8, 0.8 + 0.85 * len(groups) + 0.42 * len(rows)), layout="constrained")
    ratios = [height + 1.0 for height in heights]
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for each, (task, metric) in zip(axes, groups, strict=True):
        own = [row for row in rows if (row["task"], row["metric"]) == (task, metric)]
        here = [place for place in range(len(names)) if any(row["values"][place] for row in own)]
        for line, row in enumerate(own):
            for order, place in enumerate(here):
                value = row["values"][place]
                if value is not None and _known(value["mean"]):
                    _interval(each, value, line + _apart(order, len(here)), place)
        _fitted(each, [value for row in own for value in row["values"] if value])
        _rows(each, [row["learner"] for row in own], metric.replace("_", " ") + (f", {task}" if several else ""))
    figure.suptitle("Batteries: held-out mean and 95 % interval", x=0.01, ha="left", fontsize="medium")
    _legend(figure, names, [place for place in range(len(names)) if any(row["values"][place] for row in rows)])
    return figure


def tests_figure(rows: Sequence[dict[str, Any]]) -> Figure | None:
    """Paired differences with their 95 % intervals, a panel per metric; None without any."""
    rows = [row for row in rows if _known(row["mean"])]
    if not rows:
        return None
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    kept = {metric: [row for row in rows if row["metric"] == metric][:LARGEST] for metric in metrics}
    tall = sum(map(len, kept.values()))
    figure = Figure(figsize=(6.8, 0.8 + 0.85 * len(metrics) + 0.34 * tall), layout="constrained")
    ratios = [len(own) + 1.0 for own in kept.values()]
    axes = figure.subplots(len(metrics), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for each, (metric, own) in zip(axes, kept.items(), strict=True):
        each.axvline(0.0, color="0.6", lw=0.8, zorder=0)
        for line, row in enumerate(own):
            _interval(each, row, line, 0)
        _rows(each, [f"{row['a']} −\n{row['b']}" for row in own], metric.replace("_", " "))
    figure.suptitle("Paired differences, mean and 95 % interval", x=0.01, ha="left", fontsize="medium")
    return figure


def _interval(axes: Axes, value: dict[str, Any], height: float, place: int) -> None:
    if _known(value["low"]) and _known(value["high"]):
        axes.plot([value["low"], value["high"]], [height, height], color=_colour(place), lw=2, solid_capstyle="butt")
    axes.plot([value["mean"]], [height], **_mark(place))


def _fitted(axes: Axes, values: Sequence[dict[str, float | None]]) -> None:
    """A logarithmic axis where one learner's number dwarfs the others'."""
    means = [mean for value in values if (mean := value["mean"]) is not None and math.isfinite(mean)]
    if means and min(means) > 0 and max(means) > WIDE * min(means):
        axes.set_xscale("log")


def _rows(axes: Axes, labels: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_title(title, loc="left", fontsize="small")
    dress(axes)


def _apart(place: int, count: int) -> float:
    """How far the mark of a run is from the middle of its line."""
    return 0.56 * ((place + 0.5) / count - 0.5)


def _legend(figure: Figure, names: Sequence[str], places: Sequence[int], lines: bool = False) -> None:
    """The runs' names below the axes, the first of many."""
    looks: list[dict[str, Any]] = [
        _mark(place) | ({"marker": "", "ls": _dash(place)} if lines else {}) for place in places[:NAMED]
    ]
    handles = [Line2D([], [], label=names[place], **look) for place, look in zip(places, looks, strict=False)]
    title = f"and {len(places) - NAMED} more" if len(places) > NAMED else None
    widest = max(len(names[place]) for place in places[:NAMED])
    columns = max(1, min(len(handles), 80 // (widest + 8)))
    figure.legend(
        handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize="small", title=title
    )


def _mark(place: int) -> dict[str, Any]:
    marker = MARKERS[place % len(MARKERS)]
    return {"color": _colour(place), "marker": marker, "ls": "none", "ms": 6, "mec": "black", "mew": 0.6, "zorder": 3}


def _colour(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _dash(place: int) -> str:
    """The dash changes with the colour, so that few runs are told apart without colours too."""
    return DASHES[(place + place // len(PALETTE)) % len(DASHES)]


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
