"""metarule inspect RUN: what a run found, from what the search wrote down."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from metarule.cli.output import emit, say, show
from metarule.inspection import numbers


def inspect(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, as runs/first_rule.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    table: Annotated[Path | None, typer.Option("--csv", help="Write the battery's episodes to this file.")] = None,
) -> None:
    """Show what a run found: equation, coefficients, learning curve, battery."""
    document = numbers.found(run)
    if table is not None:
        write_csv(table, numbers.episodes(run))
        say(f"episodes written to {table}")
    if json:
        emit(document)
        return
    from metarule.inspection.report import report

    show(report(document, map(str, pictures(run, document))))


def write_csv(path: Path, episodes: dict[str, dict[str, list[float]]]) -> None:
    """One line per learner, metric and held-out episode; raises ValueError where there are none or it cannot write."""
    if not episodes:
        raise ValueError("there are no held-out episodes to export: the search is not finished or battery.episodes = 0")
    try:
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(("learner", "metric", "episode", "value"))
            for learner, scores in episodes.items():
                for metric, values in scores.items():
                    writer.writerows((learner, metric, episode, value) for episode, value in enumerate(values))
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error


def pictures(run: Path, document: numbers.Document) -> list[Path]:
    """The run's figures; drawn where they are missing, or the search went on since."""
    files = sorted((run / "figures").glob("*.png"))
    newest = (run / ("result.json" if document["finished"] else "log.jsonl")).stat().st_mtime
    if files and min(file.stat().st_mtime for file in files) >= newest:
        return files
    from metarule.inspection.figures import draw

    try:
        return draw(run)
    except OSError as error:
        say(f"no figures, {run / 'figures'} cannot be written: {error.strerror or error}")
        return files
