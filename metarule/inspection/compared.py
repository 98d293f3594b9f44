"""Runs side by side: what differs in their searches, curves, coefficients and batteries. Read without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarule.findings import agreement
from metarule.inspection import pairs
from metarule.inspection.kept import kept
from metarule.inspection.numbers import Document, episodes, found
from metarule.records import RunError, read_json, read_log, run_folder

Rows = list[dict[str, Any]]

OWN = ("network.", "model.", "inner.steps", "inner.score_every")
"""Settings under which a run's battery is its own: they may differ between runs that are paired, and it is said."""

UNPAIRED = "task, seed or batch differ, or a battery is missing"

AGAIN = "--episodes 100 evaluates all rules on the same fresh ones"
"""What to do about runs that cannot be paired."""


class Side(NamedTuple):
    """One run of a comparison: what it is called here, its folder, its document and its search's tables, flattened.

    `task` names its task among those of the others; `scores` are metric -> value per episode of its rule, {} where its
    battery is not there (yet).
    """

    name: str
    path: Path
    document: Document
    settings: dict[str, Any]
    task: str
    scores: dict[str, list[float]]

    @property
    def task_settings(self) -> dict[str, Any]:
        """The settings of its task."""
        return of_task(self.settings)


def sides(names: Sequence[str]) -> list[Side]:
    """The runs with these paths, or names in runs/.

    Raises RunError where they are fewer than two, where one is named twice, is no run or is damaged.
    """
    paths = [_folder(name) for name in names]
    if len(paths) < 2:
        raise RunError(f"{len(paths)} run is nothing to compare; name two or more, as in runs/first_rule runs/oja")
    for place, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:place]]:
            raise RunError(f"{path} is given twice; compare it with another run")
    documents = [found(path) for path in paths]
    settings = [
        {**dict(flat(read_json(path / "spec.json")["search"])), "search.objective": document["objectives"]}
        for path, document in zip(paths, documents, strict=True)
    ]
    tasks = task_names(settings)
    whole = []
    for name, path, document, values, task in zip(called(paths), paths, documents, settings, tasks, strict=True):
        log = read_log(path / "log.jsonl")
        known = kept(path, log[-1]["theta"]) if log else {}
        scores = episodes(path).get("discovered", {}) if document["battery"] else {}
        whole.append(Side(name, path, {**document, **known, "name": name}, values, task, scores))
    return whole


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


def flat(table: dict[str, Any], owner: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted keys and values."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{owner}{key}.")
        else:
            yield f"{owner}{key}", value


def differing(settings: Sequence[dict[str, Any]]) -> Rows:
    """{key, values} per setting that is not the same everywhere.

    What one search lacks and others leave empty (off, none, no entries) is the same: an older version did not write it.
    """
    rows = []
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [each.get(key) for each in settings]
        if all(key in each for each in settings):
            differ = any(value != values[0] for value in values)
        else:
            differ = not all(map(_empty, values))
        if differ:
            rows.append({"key": key, "values": values})
    return sorted(rows, key=lambda row: row["key"])


def of_task(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a task alone."""
    return {key: value for key, value in settings.items() if key.startswith("task.")}


def task_names(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The task of every search: its kind, and where others have the same kind and are not the same, how it differs."""
    tasks = list(map(of_task, settings))
    found = []
    for task in tasks:
        kind = task["task.kind"]
        rows = differing([other for other in tasks if other["task.kind"] == kind])
        given = {row["key"].removeprefix("task."): task.get(row["key"]) for row in rows}
        own = [f"{key} {worded(value)}" for key, value in given.items() if value is not None]
        found.append(f"{kind} ({', '.join(own)})" if own else kind)
    return found


def worded(value: Any) -> str:
    """A setting as a reader sees it."""
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(worded, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {worded(each)}" for key, each in value.items()) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def called(paths: Sequence[Path]) -> list[str]:
    """What runs are called: by their folders' names, by their paths where two have the same."""
    names = [path.resolve().name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


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
        leading = objective(run)
        own = {leading: [line["loss_mean"] for line in lines]}
        if run.settings["outer.candidates"] > 1:
            own[f"{leading} of the luckiest candidate"] = [line["loss_best"] for line in lines]
        metrics = sorted({name for line in lines for name in line["scores"]} - set(run.document["objectives"][:1]))
        own |= {name: [line["scores"].get(name) for line in lines] for name in metrics}
        for number, values in own.items() if lines else ():
            title = number.replace("_", " ") + (f", {run.task}" if several else "")
            empty = {
                "task": run.task,
                "number": number,
                "title": title,
                "falls": number.startswith(leading),
                "lines": [],
            }
            found.setdefault((run.task, number), empty)["lines"].append({"run": place, "values": values})
    return list(found.values())


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


def _folder(name: str) -> Path:
    path = run_folder(name)
    if path is None:
        raise RunError(f"{name} is no run: there is no spec.json in it; give the folder of a run, as runs/first_rule")
    return path


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})
