"""The recipe of the reference bank: what it is made of, how it is checked, how a rule of one's own joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarule.identification import bank as banks
from metarule.identification.bank import Bank, compared, made, rows_of
from metarule.identification.recording import RecordingError
from metarule.identification.reference import UNKNOWN
from metarule.identification.simulation import Job, read
from metarule.inner import Map
from metarule.jobs import recorded, resumed, versions
from metarule.reading import simulations
from metarule.runs import RunFolder
from metarule.workers import pool
from metarule.zoo import Algorithm

RECIPE = ("bank", "wide")
"""Names of the simulations that the bank is made of, in order."""

CHUNK = 32
"""Blocks handed to the workers between two messages."""

AGREES = 0.99
"""Share of a rebuilt sample's observables that have to agree with the bank's: trajectories of rules that sample may
part by rounding on another machine."""

Say = Callable[[str], None]


def jobs() -> list[Job]:
    """Every block of networks of the recipe."""
    return [job for name in RECIPE for job in read(simulations()[name]).jobs()]


def built(workers: int = 1, share: float = 1.0, say: Say = lambda text: None) -> Bank:
    """The bank by its recipe, or the bank of a share of its blocks."""
    with pool(workers) as map:
        rows = _computed(_every(jobs(), share), map, say)
    say(f"{len(rows)} rows; cross-fitting")
    recipe = {name: simulations()[name].read_text() for name in RECIPE}
    return made(rows, {"name": "reference", "recipe": recipe, "share": share, "versions": versions(), "figures": {}})


def _every(all_jobs: Sequence[Job], share: float) -> list[Job]:
    """Evenly chosen blocks, `share` of them."""
    if not 0 < share <= 1:
        raise ValueError(f"share = {share} must lie above 0 and be at most 1")
    return list(all_jobs)[:: max(1, round(1 / share))]


def _computed(chosen: list[Job], map: Map, say: Say, row: Algorithm | None = None) -> list[banks.Row]:
    rows = []
    for first in range(0, len(chosen), CHUNK):
        rows += rows_of(chosen[first : first + CHUNK], map, row)
        say(f"{min(first + CHUNK, len(chosen))} of {len(chosen)} blocks simulated")
    return rows


def card(path: Path | None = None) -> dict[str, Any]:
    """A bank's model card: recipe, versions, classes, rows per view, figures."""
    opened = banks.load(path or banks.DEFAULT)
    size = {name: len(view.labels) for name, view in opened.views.items()}
    return {**opened.card, "classes": list(opened.classes), "rows": size, "observables": len(opened.names)}


def rebuilt(path: Path | None = None, share: float = 0.05, workers: int = 1) -> dict[str, Any]:
    """A share of the recipe's blocks simulated again and compared with the bank's rows."""
    opened = banks.load(path or banks.DEFAULT)
    with pool(workers) as map:
        rows = rows_of(_every(_every(jobs(), float(opened.card.get("share", 1.0))), share), map)
    found, agreement = compared(opened, rows)
    same = found == len(rows) and agreement >= AGREES
    return {"rows": len(rows), "found": found, "agreement": agreement, "needed": AGREES, "same": same}


def extended(path: Path | None, run: Path, workers: int = 1, say: Say = lambda text: None) -> Bank:
    """The bank with a discovered rule as a class, named after its run.

    Raises RunError where the folder is no run, RecordingError where the name is taken or the rule cannot be simulated.
    """
    opened = banks.load(path or banks.DEFAULT)
    label, row = run.resolve().name, discovered(run)
    if label == UNKNOWN:
        raise RecordingError(f"'{UNKNOWN}' is what rows of no class are called; rename the run's folder")
    if label in opened.classes:
        raise RecordingError(f"the bank already has a class '{label}'; rename the run's folder")
    own = {(job.task, job.hidden, job.block): job._replace(rule=label) for job in jobs()}
    with pool(workers) as map:
        rows = _computed(list(own.values()), map, say, row)
    if not rows:
        raise RecordingError(f"{run}: every network that learned by its rule diverged; nothing was added")
    say("cross-fitting")
    card = {**opened.card, "name": f"{opened.card.get('name')} + {label}", "figures": {}}
    return made([*held(opened), *rows], card)


def held(bank: Bank) -> list[banks.Row]:
    """The rows of a bank as they were measured."""
    return [
        banks.Row(
            name, str(view.labels[k]), int(view.networks[k]), str(view.quality[k]),
            tuple(view.covariates[k].tolist()),
            dict(zip(bank.names, view.table[k].astype(float).tolist(), strict=True)),
        )
        for name, view in bank.views.items()
        for k in range(len(view.labels))
    ]  # fmt: skip


def discovered(run: Path) -> Algorithm:
    """A run's rule as a row: its coefficients keep their proportions, their common size is drawn per network."""
    folder = RunFolder(run)
    search = resumed(folder, recorded(folder))
    log = folder.log()
    if not log:
        raise RecordingError(f"{run} has found nothing yet; let the search finish")
    values = {name: float(value) for name, value in log[-1]["theta"].items()}
    carried = tuple(name for name in values if name.startswith("rule."))
    if carried and not any(values[name] for name in carried):
        raise RecordingError(f"{run} found coefficients of 0 alone: a rule that changes nothing can be told by nothing")
    row = Algorithm(
        f"run {folder.name}", "found by a search", search.credit, search.rules, search.synapses, values,
        free=carried or tuple(name for name in values if name.endswith("rate")),
    )  # fmt: skip
    return replace(row, values={**row.values, **dict(search.fixed)})
