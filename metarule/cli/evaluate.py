"""metarule evaluate: known algorithms and discovered rules, side by side on fresh episodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from metarule.cli.inspect import write_csv
from metarule.cli.output import emit, say, show
from metarule.cli.starting import importing


def evaluate(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME_OR_RUN]... [KEY=VALUE]...", help="Rows of `metarule list zoo`, run folders."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="A search (its task is used) or a kind of task.")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=2, help="Held-out episodes per seed.", show_default="100 where a task is named")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Sets of episodes.", show_default="1; 4 on the zoo's own tasks")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole zoo.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="number of cores")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    table: Annotated[Path | None, typer.Option("--csv", help="Write every episode to this file.")] = None,
) -> None:
    """Compare zoo rows, or zoo rows and runs, on held-out data.

    Rows alone are trained with their own fixed numbers on the zoo's three tasks: digits, digits behind a frozen
    readout, and an autoencoder. With --task, or with runs, all learn one task: free rates are tuned first, and the
    first one named is compared with each of the others on fresh episodes, paired.
    """
    with importing():
        import torch

        from metarule import acceptance, comparing
        from metarule.evaluation import printed
        from metarule.inspection.report import acceptance_table, battery_table
        from metarule.workers import pool

    torch.set_num_threads(1)
    names = [word for word in words or [] if "=" not in word]
    overrides = tuple(word for word in words or [] if "=" in word)
    if task is None and not comparing.runs_among(names):
        names = comparing.rows(names, everything)
        if overrides or episodes:
            raise ValueError(f"{(*overrides, '--episodes')[0]} goes with --task; rows have numbers of their own here")
        with pool(workers or os.cpu_count() or 1) as map:
            measured = [each.row() for each in acceptance.trained(names, seeds or acceptance.SEEDS, map, say)]
        if table is not None:
            seen = {each["learner"]: {} for each in measured}
            for each in measured:
                seen[each["learner"]][each["task"]] = each["values"]
            write_csv(table, seen)
            say(f"every seed written to {table}")
        if json:
            emit(measured)
        else:
            show(acceptance_table(measured))
        return
    search = comparing.setting(names, task, overrides, say)
    with pool(workers or os.cpu_count() or 1, search.plugins) as map:
        battery = comparing.comparison(names, search, episodes or 100, seeds or 1, everything, map, say)
    if table is not None:
        write_csv(
            table, {name: {key: list(each) for key, each in found.items()} for name, found in battery.episodes.items()}
        )
        say(f"episodes written to {table}")
    found = battery.table()
    if json:
        emit([printed(row, found) for row in found["rows"]])
        return
    show(battery_table(found["rows"], found["differences"], found["tunings"]))
    say(f"rates were tuned on {battery.trained_on}; tested on {battery.tested_on}")
