"""How does the speed of a population grow with its runs, and what does it cost to take more steps, events and weights?

Run-steps per second on one core of the reference engine, of the fused one and, where it is installed, of JAX in the
fastest of its orders (`metarule bench --peer jax`), by R, T, B and the width n of a network n-n-10, the rest held. The
dashed line is the roofline: what the least operations at the speed of a large matrix product, or the least traffic at
the speed of the second-level cache, allow.

    python analysis/scaling.py [FOLDER]
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metarule.bench_process import apart
from metarule.bench_work import Cell, cell
from metarule.inspection.figures import PALETTE, dress, keep

PANELS: dict[str, dict[int, Cell]] = {
    "runs R": {runs: cell("digits", runs, 16, 50) for runs in (1, 4, 16, 64, 256, 1024)},
    "inner steps T": {steps: cell("digits", 64, 4, steps) for steps in (10, 30, 100, 300, 1000)},
    "events per step B": {events: cell("digits", 64, events, 50) for events in (1, 2, 4, 16, 64)},
    "width n": {size: Cell((size, size, 10), 16, 4, 50) for size in (32, 64, 128, 256, 512, 1024)},
}
HELD = {
    "runs R": "64-32-10, B = 16, T = 50",
    "inner steps T": "64-32-10, R = 64, B = 4",
    "events per step B": "64-32-10, R = 64, T = 50",
    "width n": "n-n-10, R = 16, B = 4, T = 50",
}
ENGINES = {"fused": "fused", "jax": "JAX, its fastest order", "reference": "reference"}
REPEATS = 3


def numbers(panels: dict[str, dict[int, Cell]] = PANELS, repeats: int = REPEATS) -> dict[str, Any]:
    """Rows of the bench by panel, one list per place on its axis."""
    peer = "jax" if importlib.util.find_spec("jax") else None
    cells = list(dict.fromkeys(each for along in panels.values() for each in along.values()))
    request = {"cells": cells, "repeats": repeats, "peer": peer, "thorough": False, "written": False}
    found = dict(zip(cells, apart("bench", request), strict=True))
    return {
        title: [{"at": at, "rows": found[each], "roofline": roofline(each, found[each])} for at, each in along.items()]
        for title, along in panels.items()
    }


def roofline(of: Cell, rows: Sequence[dict[str, Any]]) -> float:
    """Run-steps per second that the peaks measured beside a cell allow."""
    seconds = of.operations / (1e9 * rows[0]["sgemm_gflops"]), of.bytes / (1e9 * rows[0]["l2_gbytes_per_second"])
    return of.runs * of.steps / max(seconds)


def figure(found: dict[str, Any]) -> Figure:
    """A panel for R, T, B and width, all on one scale of speed."""
    drawn = Figure(figsize=(9.6, 6.8), layout="constrained")
    panels = drawn.subplots(2, 2, sharey=True).flat
    for axes, (title, along) in zip(panels, found.items(), strict=True):
        at = [each["at"] for each in along]
        for place, (engine, label) in enumerate(ENGINES.items()):
            speeds = [
                [row["run_steps_per_second"] for row in each["rows"] if row["engine"] == engine] for each in along
            ]
            if all(speeds):
                axes.loglog(at, [speed[0] for speed in speeds], ".-", color=PALETTE[place], ms=7, label=label)
        axes.loglog(at, [each["roofline"] for each in along], "--", color="0.5", lw=1, label="roofline")
        axes.set_xticks(at, [f"{each:,}" for each in at])
        axes.minorticks_off()
        axes.set(xlabel=title)
        axes.set_title(HELD.get(title, ""), loc="left", fontsize="medium")
        dress(axes)
    for axes in drawn.axes[::2]:
        axes.set(ylabel="run-steps per second, one core")
    drawn.axes[0].legend(frameon=False, fontsize="small", loc="lower right")
    return drawn


def table(found: dict[str, Any]) -> str:
    """A line for every place on every axis."""
    lines = []
    for title, along in found.items():
        for each in along:
            speeds = (f"{row['engine']} {row['run_steps_per_second']:,.0f}" for row in each["rows"])
            lines.append(f"{title} {each['at']}: {', '.join(speeds)}; roofline {each['roofline']:,.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    measured = numbers()
    print(table(measured))
    for file in keep(Path(sys.argv[1] if sys.argv[1:] else "runs/analysis"), "scaling", measured, figure):
        print(file)
