"""metarule compare: runs side by side, from what their searches wrote down and on fresh episodes where asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from metarule.cli.inspect import write_csv, write_text
from metarule.cli.output import emit, say, show
from metarule.records import jsonable

EPISODES = 100
"""Fresh episodes of each seed, where rules are to be evaluated and no number is given."""


def compare(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN... [KEY=VALUE]...", help="Run folders; KEY=VALUE changes the task of --task."),
    ],
    task: Annotated[
        str | None, typer.Option(help="Compute: evaluate all rules on the task of this search, or kind of task.")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=2, help="Compute: evaluate all rules on so many fresh episodes per seed.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Compute: on so many sets of episodes.")] = None,
    figures: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the pictures to this folder.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything as one page.")] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the rules' held-out episodes to this file.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="number of cores")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show runs side by side: settings that differ, learning curves, coefficients, batteries, paired tests.

    What the searches wrote down is compared at once; runs of the same task and seed were tested on the same held-out
    episodes, which pair them. With --task, --episodes or --seeds all rules are evaluated on the same fresh episodes,
    of the task of the first run unless --task names another.
    """
    from metarule.inspection.compared import compared
    from metarule.inspection.compared_runs import sides

    overrides = tuple(word for word in words if "=" in word)
    runs = sides([word for word in words if "=" not in word])
    document = compared(runs)
    scores = {run.name: run.scores for run in runs if run.scores}
    if task is not None or episodes or seeds:
        section, scores = _computed(runs, task, overrides, episodes or EPISODES, seeds or 1, workers)
        document |= section
    elif overrides:
        raise ValueError(f"{overrides[0]} changes the task of fresh episodes; add --episodes, or --task")
    if table is not None:
        write_csv(table, scores)
        say(f"episodes written to {table}")
    if html is not None:
        from metarule.inspection.page import comparison_page

        write_text(html, comparison_page(jsonable(document)))
        say(f"page written to {html}")
    files: list[Path] = []
    if figures is not None:
        from metarule.inspection.compared_figures import draw

        files = draw(document, figures)
    if json:
        emit(document)
        return
    from metarule.inspection.compared_report import compared_report

    show(compared_report(document, list(map(str, files))))


def _computed(
    runs: list[Any], task: str | None, overrides: tuple[str, ...], episodes: int, seeds: int, workers: int | None
) -> tuple[dict[str, Any], dict[str, dict[str, list[float]]]]:
    import torch

    from metarule.comparing import setting
    from metarule.inspection.paired import fresh, plugins
    from metarule.workers import pool

    torch.set_num_threads(1)
    search = setting([str(run.path) for run in runs], task, overrides, say)
    with pool(workers or os.cpu_count() or 1, plugins(runs, search)) as map:
        return fresh(runs, search, task or runs[0].name, episodes, seeds, map, say)
