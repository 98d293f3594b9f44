"""The runs of a comparison, read from their folders without torch, and how their searches differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarule.inspection.kept import kept
from metarule.inspection.numbers import Document, episodes, found
from metarule.records import RunError, read_json, read_log, run_folder

Rows = list[dict[str, Any]]


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


def flat(table: dict[str, Any], owner: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted keys and values."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{owner}{key}.")
        else:
            yield f"{owner}{key}", value


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


def _folder(name: str) -> Path:
    path = run_folder(name)
    if path is None:
        raise RunError(f"{name} is no run: there is no spec.json in it; give the folder of a run, as runs/first_rule")
    return path


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})
