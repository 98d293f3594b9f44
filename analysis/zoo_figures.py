"""Pictures of the zoo's table: every row at a glance, and learning curves per group."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from metarule.acceptance import TRIALS
from metarule.inspection.figures import DASHES, PALETTE, dress
from metarule.zoo import GROUPS

Rows = list[dict[str, Any]]

LABELS = {
    "digits": "digits: test error",
    "frozen": "behind a frozen readout: test error",
    "autoencoder": "autoencoder: NMSE",
}
LIMITS = {"digits": (0.012, 1.0), "frozen": (0.012, 1.0), "autoencoder": (0.03, 1.3)}
TICKS = {
    "digits": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "frozen": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "autoencoder": (0.05, 0.1, 0.2, 0.5, 1.0),
}


def error(row: dict[str, Any], value: float) -> float:
    """What is better when smaller: 1 - accuracy, or the error itself, never below the axis."""
    return max(1 - value if row["metric"] == "accuracy" else value, LIMITS[row["task"]][0])


def overview_figure(rows: Rows) -> Figure:
    """Mean and 95 % interval of every row on the three tasks, groups apart."""
    shown = {row["learner"] for row in rows}
    places: dict[str, float] = {}
    bands: list[tuple[str, float]] = []
    place = 0.0
    for group, members in GROUPS.items():
        bands.append((group, place))
        place += 1.0
        for name in (name for name in members if name in shown):
            places[name] = place
            place += 1.0
    figure = Figure(figsize=(10.5, 1.0 + 0.19 * place), layout="constrained")
    panels = figure.subplots(1, len(TRIALS), sharey=True)
    colors = {name: PALETTE[rank % len(PALETTE)] for rank, members in enumerate(GROUPS.values()) for name in members}
    for panel, task in zip(panels, TRIALS, strict=True):
        for row in rows:
            if row["task"] == task and row["mean"] is not None:
                where, color = places[row["learner"]], colors[row["learner"]]
                if row["low"] is not None:
                    panel.plot(
                        [error(row, row["low"]), error(row, row["high"])],
                        [where, where],
                        color=color,
                        lw=1.6,
                        solid_capstyle="butt",
                    )
                panel.plot([error(row, row["mean"])], [where], "o", color=color, ms=4.5)
        for reference, dash in (("backprop", "-"), ("readout_only", ":")):
            for row in rows:
                if (row["learner"], row["task"]) == (reference, task):
                    panel.axvline(error(row, row["mean"]), color="0.55", lw=0.9, ls=dash, zorder=0)
        panel.set_xscale("log")
        panel.set_xlim(*LIMITS[task])
        panel.set_xticks(TICKS[task], [f"{tick:g}" for tick in TICKS[task]])
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel(LABELS[task])
        dress(panel)
        panel.grid(axis="y", color="0.93", lw=0.6)
    panels[0].set_yticks(list(places.values()), list(places), fontsize="small")
    panels[0].set_ylim(place - 0.3, -0.7)
    across = panels[0].get_yaxis_transform()  # x in parts of the panel, y in its data
    for group, where in bands:
        panels[0].text(0.02, where, group, fontsize="small", fontweight="bold", va="center", transform=across)
    title = "The zoo: mean and 95 % interval; lines: backprop (solid), readout alone (dotted)"
    figure.suptitle(title, fontsize="medium")
    return figure


def curves_figure(rows: Rows, title: str) -> Figure:
    """Learning curves of a group's rows on the three tasks, over the events that were seen."""
    names = list(dict.fromkeys(row["learner"] for row in rows))
    figure = Figure(figsize=(10.5, 3.4 + 0.07 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(TRIALS))
    for panel, task in zip(panels, TRIALS, strict=True):
        for row in rows:
            if row["task"] != task:
                continue
            rank = names.index(row["learner"])
            seen = [step * row["batch"] for step, _ in row["curve"]]
            values = [error(row, value) for _, value in row["curve"] if value is not None]
            color, dash = PALETTE[rank % len(PALETTE)], DASHES[rank // len(PALETTE) % len(DASHES)]
            panel.plot(seen[: len(values)], values, color=color, ls=dash, marker=".", ms=4, label=row["learner"])
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylim(*LIMITS[task])
        panel.set_yticks(TICKS[task], [f"{tick:g}" for tick in TICKS[task]])
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_minor_formatter(NullFormatter())
        panel.set_xlabel("images seen")
        panel.set_ylabel(LABELS[task])
        dress(panel)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(f"{title}: learning curves, mean over seeds", fontsize="medium")
    return figure
