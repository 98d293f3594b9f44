"""What did this run find? All that `metarule inspect` shows; what takes time is computed where it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarule.collect import unknown
from metarule.distillation import in_words
from metarule.evaluation import Progress
from metarule.inner import Map
from metarule.inspection import probe_figures
from metarule.inspection.card import card
from metarule.inspection.figure_files import saved
from metarule.inspection.figures import draw
from metarule.inspection.kept import SECTIONS
from metarule.inspection.numbers import Document, blank, found, merged
from metarule.inspection.observed import observed
from metarule.inspection.probes import probes
from metarule.inspection.stress import stress
from metarule.inspection.subject import Subject, keep, subject
from metarule.inspection.surfaces import surfaces
from metarule.records import read_json, run_folder
from metarule.symbolic import Values
from metarule.terms import FACTORS
from metarule.workers import pool
from metarule.zoo import ZOO


class Asked(NamedTuple):
    """What is to be inspected: `sections` to compute, on another `task` where one is named."""

    name: str
    sections: tuple[str, ...] = ()
    task: str | None = None
    overrides: tuple[str, ...] = ()
    values: Values | None = None


def _distilled(subject: Subject, asked: Asked, map: Map, progress: Progress) -> Any:
    progress("a short equation for every rule")
    return in_words(subject, subject.theta[0], asked.values, lambda key: observed(subject, key))


COMPUTED: Mapping[str, Callable[[Subject, Asked, Map, Progress], Any]] = {
    "card": lambda subject, asked, map, progress: card(subject, map, progress),
    "probes": lambda subject, asked, map, progress: probes(subject, map, progress),
    "stress": lambda subject, asked, map, progress: stress(subject, map, progress),
    "surfaces": lambda subject, asked, map, progress: surfaces(subject),
    "distilled": _distilled,
}
"""Section -> what computes it."""


def inspected(asked: Asked, workers: int = 1, progress: Progress = lambda text: None) -> Document:
    """The document of a run or of a row of the zoo, with the sections that were asked for computed anew.

    A run's sections are kept in its folder, unless they were computed on another task: then `elsewhere` says so, the
    card is of that task too, and what was kept of its own is left out. A rule that has no card yet is given one. Raises
    ValueError where the name, a section, a signal, the task or a key is unknown, RunError where a run has no rule yet.
    """
    for name in asked.sections:
        if name not in COMPUTED:
            raise ValueError(unknown("section", name, SECTIONS))
    for name in asked.values or {}:
        if name not in FACTORS:
            raise ValueError(unknown("signal", name, FACTORS))
    path = run_folder(asked.name)
    document: Document = found(path) if path else {}
    if asked.task is not None:
        document = {key: value for key, value in document.items() if key not in SECTIONS}
    carded = asked.task is not None or not path or _lacks_card(document)
    wanted = [name for name in SECTIONS if name in asked.sections or (name == "card" and carded)]
    if not wanted and not asked.overrides:
        return document
    plugins: Sequence[str] = read_json(path / "spec.json")["search"].get("plugins", ()) if path else ()
    with pool(workers, tuple(plugins), progress) as map:
        # runs/oja is a run, although oja is a row of the zoo too
        called = os.path.join(os.curdir, path) if path else asked.name  # noqa: PTH118
        made = subject(called, asked.task, asked.overrides, map, progress)
        document = document or _of_row(made)
        if path and asked.task is not None:
            document["elsewhere"] = (
                f"Inspected on the task of {' '.join((asked.task, *asked.overrides))}: the card and what was computed "
                "are of it; coefficients and battery are of the run's own task."
            )
        for name in wanted:
            section = COMPUTED[name](made, asked, map, progress)
            document = merged(document, section) if name == "card" else document | {name: section}
            if asked.task is None:
                keep(made, name, section)
    if path and wanted and asked.task is None:
        for name, figure in probe_figures.draw(document).items():
            saved(figure, path / "figures" / f"{name}.png")
    return document


def _lacks_card(document: Document) -> bool:
    """Whether a run has a rule whose card was not computed."""
    return bool(document["theta"]) and not document.get("model") and not document["locality"]


def _of_row(row: Subject) -> Document:
    said = blank(row.name, row.task.kind, row.learner.credit.kind)
    return said | {"finished": True, "summary": ZOO[row.name].summary, "source": ZOO[row.name].source}


def finished(path: Path, workers: int = 1, progress: Progress = lambda text: None) -> list[Path]:
    """What every search ends with: its figures drawn and, of a rule, its card written; returns the figures."""
    document = found(path)
    try:
        if _lacks_card(document):
            inspected(Asked(str(path)), workers, progress)
        return draw(path)
    except OSError as error:
        progress(f"no figures, {path / 'figures'} cannot be written: {error.strerror or error}")
        return []
