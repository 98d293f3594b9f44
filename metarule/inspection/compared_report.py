"""A comparison of runs as terminal text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metarule.inspection.compared import shared
from metarule.inspection.compared_runs import worded
from metarule.inspection.numbers import LARGEST
from metarule.inspection.report import plain_table

Rows = list[dict[str, Any]]

WIDTH = 98
"""Columns that a table may take; of many runs there are several tables."""

LONGEST = 28
"""Letters of a setting that are shown."""

MARKS = {True: Text("✓", style="green"), False: Text("✗", style="bold red"), None: Text("–")}

EPISODES_ONLY = (
    "The intervals are over held-out episodes, with these very rules: what the same searches would find with other "
    "seeds, only replicates tell."
)


def compared_report(document: dict[str, Any], files: Sequence[str] = ()) -> RenderableType:
    """Runs side by side: what they found, what differs in their searches, curves, coefficients, batteries, tests."""
    names = short(document["names"])
    parts: list[RenderableType] = [plain_table("Compared", list(_heads(document, names))), *_equations(document, names)]
    parts += [Text(f"! {note}", style="yellow") for note in document["notes"]]
    parts += _settings(document["settings"], names)
    parts.append(_curves(document["curves"], names))
    if document["coefficients"]:
        parts += _coefficients(document["coefficients"], names)
    for task in dict.fromkeys(row["task"] for row in document["batteries"]):
        parts += _battery(task, [row for row in document["batteries"] if row["task"] == task], names)
    if document["fresh"]:
        parts += _fresh(document["fresh"], document["names"], names)
    if document["tests"]:
        parts += _tests(document["tests"], dict(zip(document["names"], names, strict=True)))
        parts.append(Text(document["test"]))
        parts.append(Text(EPISODES_ONLY))
    parts.append(Text(document["pairing"]))
    if document["classes"] is not None:
        same = [each["sentence"] for each in document["classes"]]
        parts += map(Text, same or ["No two of these rules act the same on this task."])
    if document["stress"]:
        rows = [
            (f"{row['group']}: {row['condition']}", [MARKS[value] for value in row["values"]])
            for row in document["stress"]
        ]
        parts += side_by_side("Does it hold up? (stress batteries that are kept)", "condition", names, rows)
    if document["probes"]:
        rows = [(f"{row['label']}, {row['layer']}", list(map(_mean, row["values"]))) for row in document["probes"]]
        parts += side_by_side("Probes at the end of training", "probe, layer", names, rows)
    return Group(*parts, *(Text(f"figure: {file}") for file in files))


def short(names: Sequence[str]) -> list[str]:
    """Names without what all begin with, cut at a word: seed0, seed1 of replicates."""
    columns = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in columns)
    cut = max(shared.rfind(mark) for mark in "-_/") + 1
    return [name[cut:] or name for name in names]


def side_by_side(
    title: str, first: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[str | Text]]]
) -> list[Table]:
    """A column per run and a line per row; several tables of as many runs as fit beside one another."""
    lead = max(len(first), *(len(head) for head, _ in rows))
    tables: list[Table] = []
    place = 0
    while place < len(names):
        last, used = place, lead + 3
        while last < len(names):
            used += max(len(names[last]), *(len(cells[last]) for _, cells in rows)) + 3
            if used > WIDTH and last > place:
                break
            last += 1
        table = plain_table(title if not tables else f"{title}, continued", [])
        table.add_column(first, overflow="fold")
        for name in names[place:last]:
            table.add_column(name, justify="right", overflow="fold")
        for head, cells in rows:
            table.add_row(Text(head), *cells[place:last])
        tables.append(table)
        place = last
    return tables


def _heads(document: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for whole, name, task, run in zip(document["names"], names, document["tasks"], document["runs"], strict=True):
        done = f"{run['generations']}" if run["finished"] else f"{run['generations']} of {run['planned']}"
        called = {"here": name} if list(names) != document["names"] else {}
        learner = run.get("model") or run["credit"]
        yield {"name": whole, **called, "task": task, "learner": learner, "found by": run["outer"], "generations": done}


def _equations(document: dict[str, Any], names: Sequence[str]) -> Iterator[Text]:
    for name, run in zip(names, document["runs"], strict=True):
        structure = ", ".join(f"{key} {choice}" for key, choice in run.get("structure", {}).items())
        found = [structure] if structure else []
        found += (run["equation"] or "").splitlines()
        if found:
            yield Text.assemble((f"{name}: ", "bold"), "; ".join(found))


def _settings(rows: Rows, names: Sequence[str]) -> Iterator[RenderableType]:
    """A table of what all searches have, a line per run of what others lack."""
    if not rows:
        yield Text("Their searches do not differ.")
        return
    shared = [row for row in rows if None not in row["values"]]
    if shared:
        cells = [(row["key"], [_cut(worded(value)) for value in row["values"]]) for row in shared]
        yield from side_by_side("What differs in their searches", "setting", names, cells)
    for place, name in enumerate(names):
        own = [row for row in rows if row not in shared and row["values"][place] is not None]
        if own:
            listed = "; ".join(f"{row['key']} {_cut(worded(row['values'][place]))}" for row in own)
            yield Text.assemble((f"{name}, and not all others: ", "bold"), listed)


def _curves(rows: Rows, names: Sequence[str]) -> Table:
    same = len({(row["task"], row["objective"]) for row in rows}) == 1
    columns = {"first": "first", "last": "last", "lowest": "lowest", "best": "luckiest"}
    return plain_table(
        f"Learning curves{', ' + rows[0]['objective'] if same else ''}: mean of a generation's candidates",
        [
            {"name": name, **({} if same else {"objective": row["objective"]}), "runs a generation": row["runs"]}
            | {title: _number(row[key]) for key, title in columns.items()}
            for name, row in zip(names, rows, strict=True)
        ],
    )


def _coefficients(found: Rows, names: Sequence[str]) -> Iterator[RenderableType]:
    """Those that runs share; an equation shows a run's own."""
    rows = shared(found)
    if len(rows) < len(found):
        yield Text(f"{len(found) - len(rows)} coefficients are only one run's; --json has them.")
    if not rows:
        return

    def size(row: dict[str, Any]) -> float:
        return max(abs(value) for value in row["values"] if value is not None)

    largest = sorted(rows, key=size, reverse=True)[:LARGEST]
    few = len(largest) == len(rows)
    title = "Normalised coefficients"
    if not few:
        title += f": the {LARGEST} largest of {len(rows)}; --json has them all"
    cells = [(row["name"], [*map(_coefficient, row["values"]), _signs(row)]) for row in (rows if few else largest)]
    yield from side_by_side(title, "term", [*names, "signs"], cells)


def _coefficient(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}" if value else "0"


def _signs(row: dict[str, Any]) -> str:
    if None in row["values"]:
        return "not in all"
    if not any(row["values"]):
        return "all 0"
    if row["agree"]:
        return "agree"
    return "DIFFER" if min(row["values"]) < 0 < max(row["values"]) else "0 in some"


def _battery(task: str, rows: Rows, names: Sequence[str]) -> Iterator[Table]:
    """The batteries of one task: the runs that were tested on it."""
    tested = [place for place in range(len(names)) if any(row["values"][place] for row in rows)]
    cells = [(f"{row['metric']}, {row['learner']}", [_mean(row["values"][place]) for place in tested]) for row in rows]
    title = f"Batteries, {task}: held-out mean [95 % interval]"
    yield from side_by_side(title, "metric, learner", [names[place] for place in tested], cells)


def _fresh(rows: Rows, whole: Sequence[str], names: Sequence[str]) -> list[Table]:
    """All rules on the same fresh episodes."""
    first = rows[0]
    title = f"All rules on {first['episodes']} fresh episodes of {first['task']}: mean [95 % interval]"
    measured = {(row["metric"], row["learner"]): row for row in rows}
    metrics = dict.fromkeys(row["metric"] for row in rows)
    cells = [(metric, [_settled(measured[metric, name]) for name in whole]) for metric in metrics]
    return side_by_side(title, "metric", names, cells)


def _settled(row: dict[str, Any]) -> str:
    return f"diverged in {row['diverged']} of {row['episodes']}" if row["diverged"] else _mean(row)


def _tests(found: Rows, names: dict[str, str]) -> Iterator[RenderableType]:
    """Paired differences, of many pairs those with the smallest p-values."""
    rows = [row for row in found if _known(row["p"])]
    clearest = sorted(rows, key=lambda row: row["p"])[:LARGEST]
    few = len(clearest) == len(rows)
    tasks = {row["task"] for row in rows}
    title = "Paired tests" if few else f"Paired tests: the {LARGEST} of {len(rows)} with the smallest p; --json has all"
    lines = [
        {"metric": row["metric"], **({"task": row["task"]} if len(tasks) > 1 else {})}
        | {"difference": f"{names[row['a']]} − {names[row['b']]}", "mean [95 % interval]": _mean(row, sign=True)}
        | {"p": _chance(row["p"]), "Holm's p": _chance(row["p_holm"]), "episodes": row["episodes"]}
        for row in (rows if few else clearest)
    ]
    if lines:
        yield plain_table(title, lines)
    if len(rows) < len(found):
        yield Text(
            f"{len(found) - len(rows)} of {len(found)} pairs have no test: an episode diverged, or is the only one."
        )


def _mean(row: dict[str, Any] | None, sign: bool = False) -> str:
    if row is None:
        return "–"
    return f"{_number(row['mean'], sign)} [{_number(row['low'], sign)}, {_number(row['high'], sign)}]"


def _number(value: float | None, sign: bool = False) -> str:
    if not _known(value):
        return "–"
    plus = "+" if sign else ""
    return f"{value:{plus}.3f}" if 0.01 <= abs(value) < 1000 or not value else f"{value:{plus}.3g}"


def _chance(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
