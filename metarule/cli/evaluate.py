"""metarule evaluate: known algorithms and discovered rules, side by side on fresh episodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from metarule.cli.inspect import write_csv
from metarule.cli.output import emit, say, show


def evaluate(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME_OR_RUN]... [KEY=VALUE]...", help="Rows of `metarule list zoo`, run folders."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="A search (its task is used) or a kind of task.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Held-out episodes per seed.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Sets of episodes.")] = 1,
    everything: Annotated[bool, typer.Option("--all", help="The whole zoo.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="number of cores")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    table: Annotated[Path | None, typer.Option("--csv", help="Write every episode to this file.")] = None,
) -> None:
    """Compare zoo rows and runs on fresh held-out episodes; free rates are tuned first.

    The first one named is compared with each of the others, paired by episode.
    """
    import torch

    from metarule import comparing
    from metarule.inspection.report import battery_table
    from metarule.workers import pool

    torch.set_num_threads(1)
    names = [word for word in words or [] if "=" not in word]
    overrides = tuple(word for word in words or [] if "=" in word)
    search = comparing.setting(names, task, overrides, say)
    with pool(workers or os.cpu_count() or 1, search.plugins) as map:
        battery = comparing.comparison(names, search, episodes, seeds, everything, map, say)
    if table is not None:
        write_csv(
            table, {name: {key: list(each) for key, each in found.items()} for name, found in battery.episodes.items()}
        )
        say(f"episodes written to {table}")
    found = battery.table()
    if json:
        emit([_row(row, found) for row in found["rows"]])
        return
    show(battery_table(found["rows"], found["differences"], found["tunings"]))
    say(f"rates were tuned on {battery.trained_on}; tested on {battery.tested_on}")


def _row(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    tuning = found["tunings"].get(row["learner"])
    extra = {"rate": tuning["best"], "bracketed": tuning["bracketed"]} if tuning else {}
    for each in found["differences"]:
        if (each["other"], each["metric"]) == (row["learner"], row["metric"]):
            extra["first_minus_it"] = {key: each[key] for key in ("learner", "mean", "low", "high")}
    return row | extra
