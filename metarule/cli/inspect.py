"""metarule inspect: what a run found, from what the search wrote down and what is asked for."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import Annotated

import typer

from metarule.cli.output import emit, say, show
from metarule.inspection import numbers
from metarule.records import run_folder


def inspect(
    name: Annotated[str, typer.Argument(metavar="RUN_OR_ROW", help="A run's folder, or a row of `metarule list zoo`.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of --task.")] = None,
    probes: Annotated[bool, typer.Option("--probes", help="Compute: angles, curl, norms, fixed points.")] = False,
    stress: Annotated[bool, typer.Option("--stress", help="Compute: does it hold up elsewhere? (minutes)")] = False,
    surfaces: Annotated[bool, typer.Option("--surfaces", help="Compute: the change against two signals.")] = False,
    distil: Annotated[
        bool, typer.Option("--distil", help="Every rule as a short equation, one without a closed form by regression.")
    ] = False,
    takes: Annotated[
        list[str] | None, typer.Option(help="A signal's only values, as reward=-1,1: --distil makes use of it.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Look at it on the task of this search, or kind of task.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything as one page.")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Write the battery's episodes to this file.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="number of cores")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show what a run found, or what a row of the zoo is: equation, coefficients, locality, nearest rules, battery.

    What was written down is shown at once; what has to be computed is asked for, and kept in the run's folder.
    """
    asked = {"probes": probes, "stress": stress, "surfaces": surfaces, "distilled": distil}
    sections = tuple(section for section, wanted in asked.items() if wanted)
    if takes and not distil:
        raise ValueError("--takes tells --distil what is known of a signal; add --distil")
    for file in (html, table):
        if file is not None and not file.absolute().parent.is_dir():  # said before minutes of computing, not after
            raise ValueError(f"cannot write {file}: there is no folder {file.parent}")
    run = run_folder(name)
    if run is not None and not sections and task is None and html is None and not overrides:
        document = numbers.found(run)
    else:
        document = _computed(name, sections, task, tuple(overrides or ()), few_values(takes or []), workers)
    episodes = numbers.episodes(run) if run is not None else {}
    if table is not None:
        write_csv(table, episodes)
        say(f"episodes written to {table}")
    if html is not None:
        from metarule.inspection.page import page

        write_text(html, page(document, episodes))
        say(f"page written to {html}")
    if json:
        emit(document)
        return
    from metarule.inspection.whole_report import whole_report

    show(whole_report(document, [] if run is None else map(str, sorted((run / "figures").glob("*.png")))))


def _computed(
    name: str,
    sections: tuple[str, ...],
    task: str | None,
    overrides: tuple[str, ...],
    values: dict[str, tuple[float, ...]],
    workers: int | None,
) -> numbers.Document:
    if run_folder(name) is None and Path(name).is_dir():
        numbers.found(Path(name))  # says what is missing in it
    import torch

    from metarule.inspecting import Asked, inspected

    torch.set_num_threads(1)
    return inspected(Asked(name, sections, task, overrides, values), workers or os.cpu_count() or 1, say)


def few_values(given: list[str]) -> dict[str, tuple[float, ...]]:
    """{"reward": (-1.0, 1.0)} from ["reward=-1,1"]; raises ValueError on anything else."""
    found = {}
    for text in given:
        name, _, values = text.partition("=")
        try:
            found[name] = tuple(sorted({float(value) for value in values.split(",")}))
        except ValueError as error:
            raise ValueError(f"--takes {text} is not a signal and its values, as in reward=-1,1") from error
        if not all(map(math.isfinite, found[name])):
            raise ValueError(f"--takes {text}: a signal's values are finite numbers, as in reward=-1,1")
    return found


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


def write_text(path: Path, text: str) -> None:
    """Write a file; raises ValueError where it cannot."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error
