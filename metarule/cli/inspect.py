"""metarule inspect RUN: what a run found, from what the search wrote down."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from metarule.cli.output import emit, say, show
from metarule.inspection import numbers


def inspect(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, as runs/first_rule.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    table: Annotated[Path | None, typer.Option("--csv", help="Write the battery's episodes to this file.")] = None,
    distil: Annotated[
        bool, typer.Option("--distil", help="Every rule as a short equation, one without a closed form by regression.")
    ] = False,
    takes: Annotated[
        list[str] | None, typer.Option(help="A signal's only values, as reward=-1,1: --distil makes use of it.")
    ] = None,
) -> None:
    """Show what a run found: equation, coefficients, learning curve, battery."""
    document = numbers.found(run)
    if distil:
        document |= {"distilled": distilled(run, few_values(takes or []))}
    if table is not None:
        write_csv(table, numbers.episodes(run))
        say(f"episodes written to {table}")
    if json:
        emit(document)
        return
    from metarule.inspection.report import report

    show(report(document, map(str, pictures(run, document))))
    for row in document.get("distilled", ()):
        show(f"{row['rule']}, by {row['by']} (held-out share {row['r2_held_out']:.3f}): {row['equation']}")


def few_values(given: list[str]) -> dict[str, tuple[float, ...]]:
    """{"reward": (-1.0, 1.0)} from ["reward=-1,1"]; raises ValueError on anything else."""
    found = {}
    for text in given:
        name, _, values = text.partition("=")
        try:
            found[name] = tuple(sorted({float(value) for value in values.split(",")}))
        except ValueError as error:
            raise ValueError(f"--takes {text} is not a signal and its values, as in reward=-1,1") from error
    return found


def distilled(run: Path, values: dict[str, tuple[float, ...]]) -> list[dict[str, Any]]:
    """The run's rules as short equations; raises ValueError where there is no rule yet."""
    import torch

    from metarule.api import Run
    from metarule.distillation import in_words

    made = Run(run)
    if not made.log:
        raise ValueError(f"{run} has no rule yet: its first generation is not finished")
    theta = [made.log[-1]["theta"][param.name] for param in made.search.family.params]
    return in_words(made.search, torch.tensor(theta, dtype=torch.float64), values)


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
