"""The pictures of mechanism probes and response surfaces, drawn from their sections of an inspection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarule.inspection.figures import DASHES, PALETTE, dress
from metarule.inspection.probe_words import number

GROUPS: dict[str, tuple[str, ...]] = {
    "angles": ("error_angle", "angle_to_backprop"),
    "orthonormality": ("orthonormality",),
    "weights": ("weight_norm", "step_size", "drift"),
    "activity": ("activity", "saturated", "silent"),
}
"""Picture -> the curves that it shows, from top to bottom."""

DIVERGING = "PuOr"
"""Orange to purple: told apart by colour-blind readers, white where nothing changes."""

LEVELS = 9
ACROSS = 2

CLIFF = 0.25
"""A change from one cell to the next, as a share of a map's range, at which there is a cliff."""


def draw(document: Mapping[str, Any]) -> dict[str, Figure]:
    """Name -> picture of what the sections "probes" and "surfaces" of a document hold; {} where there is neither."""
    drawn: dict[str, Figure] = {}
    title = str(document.get("name", ""))
    probed = document.get("probes")
    if probed:
        curves = {curve["name"]: curve for curve in probed["curves"]}
        for name, members in GROUPS.items():
            shown = [curves[member] for member in members if member in curves]
            if shown:
                drawn[name] = curves_figure(shown, f"{title}: {name}, mean and 95 % of {probed['episodes']} episodes")
        if any(row["layer"] == "mean of layers" for row in probed["contrasts"]):
            drawn["contrasts"] = contrasts_figure(probed["contrasts"], f"{title}: what each term does")
    surfaced = document.get("surfaces")
    if surfaced and surfaced["surfaces"]:
        drawn["surfaces"] = surfaces_figure(surfaced["surfaces"], f"{title}: the change of a synapse")
    return drawn


def curves_figure(curves: list[dict[str, Any]], title: str) -> Figure:
    """Curves over training below one another, a colour and a dash per layer, bands for 95 % intervals."""
    figure = Figure(figsize=(7.2, 0.6 + 2.5 * len(curves)), layout="constrained")
    axes: list[Axes] = list(figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0])
    named: list[str] = []
    for each, curve in zip(axes, curves, strict=True):
        for place, (layer, series) in enumerate(curve["layers"].items()):
            color, dash = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
            steps, mean, low, high = (_numbers(series[key]) for key in ("steps", "mean", "low", "high"))
            each.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)
            each.plot(steps, mean, color=color, ls=dash, marker="o", ms=3, label=layer)
        unit = "" if curve["unit"] == "1" else f" ({curve['unit']})"
        each.set_ylabel(_wrapped(f"{curve['label']}{unit}"), fontsize="small")
        if curve["unit"] == "degrees":
            each.axhline(90.0, color="0.6", lw=0.8, zorder=0)
        if list(curve["layers"]) != named:  # one legend for axes that show the same layers
            each.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
        named = list(curve["layers"])
        dress(each)
    axes[-1].set_xlabel("steps of training")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_title(title, loc="left", fontsize="medium")
    return figure


def contrasts_figure(rows: list[dict[str, Any]], title: str) -> Figure:
    """Per probe, the difference that each term makes, filled where it is taken from the whole rule, hollow where it is
    added to the leading term alone."""
    shown = [row for row in rows if row["layer"] == "mean of layers" and row["difference"]["mean"] is not None]
    named = list(dict.fromkeys(row["probe"] for row in shown))
    terms = list(dict.fromkeys(row["term"] for row in shown))
    figure = Figure(figsize=(3.0 + 2.4 * len(named), 1.5 + 0.45 * len(terms)), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, len(named), sharey=True, squeeze=False)[0])
    what = {
        "error_angle": "angle of errors to backprop's,\ndegrees (left: better aligned)",
        "angle_to_backprop": "angle of updates to backprop's,\ndegrees (left: better aligned)",
        "orthonormality": "E of rows\n(left: nearer to orthonormal)",
    }
    for each, probe in zip(axes, named, strict=True):
        each.axvline(0.0, color="0.4", lw=1.0, zorder=1)
        for kind, offset, color in (("knock-out", -0.13, PALETTE[0]), ("knock-in", 0.13, PALETTE[1])):
            label = "in the whole rule" if kind == "knock-out" else "added to the leading term"
            for row in (row for row in shown if row["probe"] == probe and row["kind"] == kind):
                gap, place = row["difference"], terms.index(row["term"]) + offset
                if gap["low"] is not None:
                    each.plot([gap["low"], gap["high"]], [place, place], color=color, lw=2, solid_capstyle="butt")
                face = color if kind == "knock-out" else "white"
                each.plot(
                    [gap["mean"]], [place], "o" if kind == "knock-out" else "s", color=color, mfc=face, label=label
                )
                label = "_"
        each.set_xlabel(what[probe], fontsize="small")
        each.set_yticks(range(len(terms)), terms)
        each.set_ylim(len(terms) - 0.5, -0.5)
        each.xaxis.set_major_locator(MaxNLocator(4))
        dress(each)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=2, fontsize="small")
    figure.suptitle(f"{title}: with it − without it", x=0.01, ha="left", fontsize="medium")
    return figure


def surfaces_figure(surfaces: list[dict[str, Any]], title: str) -> Figure:
    """Maps of dW over two signals each, symmetric about white, contour lines beside the colours."""
    across = min(ACROSS, len(surfaces))
    down = math.ceil(len(surfaces) / across)
    figure = Figure(figsize=(0.4 + 3.7 * across, 0.7 + 3.0 * down), layout="constrained")
    axes: list[Axes] = list(np.ravel(figure.subplots(down, across, squeeze=False)))
    for each, surface in zip(axes, surfaces, strict=False):
        change = np.array([_numbers(row) for row in surface["change"]])
        largest = float(np.nanmax(np.abs(change))) or 1.0
        x, y = np.array(surface["x_values"]), np.array(surface["y_values"])
        mesh = each.pcolormesh(x, y, change, cmap=DIVERGING, vmin=-largest, vmax=largest, shading="nearest")
        if min(change.shape) > 2 and np.isfinite(change).all():
            _contours(each, x, y, change)
        bar = figure.colorbar(mesh, ax=each, shrink=0.85)
        bar.set_label("ΔW of a step", fontsize="small")
        bar.ax.tick_params(labelsize="small")
        bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
        each.set_xlabel(surface["x"])
        each.set_ylabel(surface["y"])
        held = ", ".join(f"{name} = {value:.2g}" for name, value in surface["held"].items())
        where = f"{surface['rule']} at {surface['at']}" + (f"; held: {held}" if held else "")
        each.set_title(_wrapped(where, 46), loc="left", fontsize="x-small")
    for each in axes[len(surfaces) :]:
        each.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def _contours(axes: Axes, x: np.ndarray, y: np.ndarray, change: np.ndarray) -> None:
    """Lines of equal change with their numbers; of a map with cliffs only the line of none, numbers would hide it."""
    steepest = max(float(np.abs(np.diff(change, axis=axis)).max()) for axis in (0, 1))
    if steepest > CLIFF * (change.max() - change.min()):
        if change.min() < 0 < change.max():
            axes.contour(x, y, change, levels=[0.0], colors="0.25", linewidths=0.8)
    elif change.min() < change.max():
        lines = axes.contour(x, y, change, levels=LEVELS, colors="0.25", linewidths=0.6)
        axes.clabel(lines, fontsize=6, fmt=number)


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _wrapped(text: str, width: int = 24) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
