"""Runs side by side: what differs in their searches, curves, coefficients and batteries. Read without torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from metarule.findings import agreement
from metarule.inspection import pairs
from metarule.inspection.compared_runs import Side, differing
from metarule.inspection.numbers import Document

Rows = list[dict[str, Any]]

OWN = ("network.", "model.", "inner.steps", "inner.score_every")
"""Settings under which a run's battery is its own: they may differ between runs that are paired, and it is said."""

UNPAIRED = "task, seed or batch differ, or a battery is missing"

AGAIN = "--episodes 100 evaluates all rules on the same fresh ones"
"""What to do about runs that cannot be paired."""


def compared(runs: Sequence[Side]) -> Document:
    """Everything about runs side by side that their folders say, nothing computed but the paired tests.

    {names, tasks, runs, notes, settings, curves, panels, coefficients, batteries, fresh, tests, test, paired_by,
    pairing, classes, stress, probes}: lists of values follow the order of `runs`, None where a run has none. `fresh`
    and `classes` are what has to be computed.
    """
    tests, pairing = battery_tests(runs)
    return {
        "names": [run.name for run in runs],
        "tasks": [run.task for run in runs],
        "runs": [run.document for run in runs],
        "notes": list(notes(runs)),
        "settings": differing([run.settings for run in runs]),
        "curves": [curve(run) for run in runs],
        "panels": panels(runs),
        "coefficients": agreement([run.document for run in runs]),
        "batteries": batteries(runs),
        "fresh": [],
        "tests": tests,
        "test": pairs.TEST,
        "paired_by": "battery episodes" if tests else None,
        "pairing": pairing,
        "classes": None,
        "stress": verdicts([run.document for run in runs]),
        "probes": probed([run.document for run in runs]),
    }


def curve(run: Side) -> Document:
    """{name, task, objective, generations, runs, first, last, lowest, best}: the objective's mean over candidates.

    `runs` are the inner runs of a generation, `best` the loss of the luckiest candidate of all; numbers are None where
    every candidate diverged, or none was tried.
    """
    lines = run.document["learning_curve"]
    means = [line["loss_mean"] for line in lines]
    seen = [value for value in means if value is not None]
    return {
        "name": run.name,
        "task": run.task,
        "objective": objective(run),
        "generations": len(means),
        "runs": run.settings["outer.candidates"] * run.settings["inner.episodes"],
        "first": means[0] if means else None,
        "last": means[-1] if means else None,
        "lowest": min(seen, default=None),
        "best": min((line["loss_best"] for line in lines if line["loss_best"] is not None), default=None),
    }


def panels(runs: Sequence[Side]) -> Rows:
    """{task, number, title, falls, lines} per task and objective or metric: what may share an axis, objective first.

    `lines` are {run, values}: the place of a run, and its mean over the candidates of every generation, None where all
    diverged; `falls` says that it is the objective, of which less is better.
    """
    found: dict[tuple[str, str], Document] = {}
    several = len({run.task for run in runs}) > 1
    for place, run in enumerate(runs):
        lines = run.document["learning_curve"]
        objectives = _losses(run) if lines else {}
        metrics = sorted({name for line in lines for name in line["scores"]} - set(run.document["objectives"][:1]))
        own = objectives | {name: [line["scores"].get(name) for line in lines] for name in metrics}
        for number, values in own.items():
            title = number.replace("_", " ") + (f", {run.task}" if several else "")
            empty = {"task": run.task, "number": number, "title": title, "falls": number in objectives, "lines": []}
            found.setdefault((run.task, number), empty)["lines"].append({"run": place, "values": values})
    return list(found.values())


def _losses(run: Side) -> dict[str, list[float | None]]:
    """The objective's mean over candidates and, where there are several, that of the best of them.

    Where all generations have the same episodes, the lowest loss so far is no luck, and it is what the search keeps.
    """
    lines, name = run.document["learning_curve"], objective(run)
    means = [line["loss_mean"] for line in lines]
    if run.settings["outer.candidates"] == 1:
        return {name: means}
    best = [line["loss_best"] for line in lines]
    if not run.settings.get("inner.fixed_episodes"):
        return {name: means, f"{name}, of the luckiest candidate": best}
    finite = itertools.accumulate((math.inf if value is None else value for value in best), min)
    return {name: means, f"{name}, lowest so far": [value if math.isfinite(value) else None for value in finite]}


def shared(coefficients: Sequence[dict[str, Any]]) -> Rows:
    """The coefficients that two runs or more have: what can be compared."""
    return [row for row in coefficients if sum(value is not None for value in row["values"]) > 1]


def objective(run: Side) -> str:
    """What a search made small; that of a whole training is another number than that of its end."""
    every = run.settings.get("inner.score_every")
    return run.document["objectives"][0] + (", mean over the training" if every else "")


def batteries(runs: Sequence[Side]) -> Rows:
    """{task, metric, learner, values} per row of the batteries: a {mean, low, high} or None per run.

    Runs whose tasks differ have rows of their own.
    """
    cells: dict[tuple[str, str, str], list[Document | None]] = {}
    for place, run in enumerate(runs):
        for row in run.document["battery"]:
            values = cells.setdefault((run.task, row["metric"], row["learner"]), [None] * len(runs))
            values[place] = {key: row[key] for key in ("mean", "low", "high")}
    order = list(dict.fromkeys((task, metric) for task, metric, _ in cells))
    return [
        {"task": task, "metric": metric, "learner": learner, "values": values}
        for (task, metric, learner), values in sorted(cells.items(), key=lambda cell: order.index(cell[0][:2]))
    ]


def battery_tests(runs: Sequence[Side]) -> tuple[Rows, str]:
    """Paired tests of the runs whose batteries used the same episodes, and a sentence on who was paired and why.

    Held-out episodes have their addresses from the search's seed, and their content from the task and the batch.
    """

    addresses = [(run.task, run.settings["search.seed"], run.settings["inner.batch"]) for run in runs]
    tests = pairs.paired_tests(
        [run.name for run in runs],
        [run.task for run in runs],
        [run.scores for run in runs],
        fair=lambda one, other: addresses[one] == addresses[other],
    )
    if not tests:
        return [], f"No two of these runs were tested on the same held-out episodes ({UNPAIRED}); {AGAIN}."
    among = list(dict.fromkeys(name for row in tests for name in (row["a"], row["b"])))
    left = [run.name for run in runs if run.name not in among]
    own = [
        row["key"] for row in differing([run.settings for run in runs if run.name in among])
        if row["key"].startswith(OWN)
    ]  # fmt: skip
    sentence = "Runs of the same task and seed were tested on the same held-out episodes, which pair them"
    if own:
        sentence += f"; each learned under its own conditions ({', '.join(own)} differ)"
    if left:
        sentence += f"; not paired: {', '.join(left)} ({AGAIN})"
    return tests, f"{sentence}."


def verdicts(documents: Sequence[Document]) -> Rows:
    """{condition, group, values} per condition of the stress batteries that two runs or more have: holds, or None."""
    sections = [document.get("stress") for document in documents]
    rows: dict[tuple[str, str], list[bool | None]] = {}
    if sum(section is not None for section in sections) < 2:
        return []
    for place, section in enumerate(sections):
        for verdict in section["verdicts"] if section else ():
            values = rows.setdefault((verdict["group"], verdict["condition"]), [None] * len(documents))
            values[place] = verdict["holds"]
    return [{"condition": condition, "group": group, "values": values} for (group, condition), values in rows.items()]


def probed(documents: Sequence[Document]) -> Rows:
    """{name, label, unit, layer, values} per probed curve that two runs or more have: its last {mean, low, high}."""
    sections = [document.get("probes") for document in documents]
    rows: dict[tuple[str, str], Document] = {}
    for place, section in enumerate(sections):
        for probe in section["curves"] if section else ():
            for layer, points in probe["layers"].items():
                empty = {key: probe.get(key) for key in ("name", "label", "unit")} | {"layer": layer}
                row = rows.setdefault((probe["name"], layer), empty | {"values": [None] * len(documents)})
                row["values"][place] = {key: points[key][-1] for key in ("mean", "low", "high")}
    return [row for row in rows.values() if sum(value is not None for value in row["values"]) > 1]


def notes(runs: Sequence[Side]) -> Iterator[str]:
    """What a reader must know before comparing: which runs are not finished, have no battery, or are models."""
    for run in runs:
        document = run.document
        if not document["finished"]:
            done = f"{document['generations']} of {document['planned']} generations"
            yield f"{run.name} is not finished ({done}): it is compared as it stands, without a battery"
        if document.get("model"):
            yield f"{run.name} trained a [model] by descent: it has no rule"
    if bare := [run.name for run in runs if run.document["finished"] and not run.document["battery"]]:
        yield f"without a battery (battery.episodes was 0): {', '.join(bare)}"
    if len({(run.task, objective(run)) for run in runs}) > 1:
        yield "the runs' tasks or objectives differ: their losses are not on one scale"
