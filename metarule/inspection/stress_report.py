"""The stress battery for the terminal: a line per condition, a line per knocked term, and what it comes to."""

from __future__ import annotations

import math
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Rows = list[dict[str, Any]]

MARKS = {True: Text("✓", style="green"), False: Text("✗", style="bold red"), None: Text("–", style="dim")}
"""A condition that holds, one that does not, one that could not be made."""

SIGNS = {"knock-out": "without", "sign flip": "flipped", "knock-in": "added"}
"""What is done to a term, in a word."""

SHOWN_ADDED = 6
"""Knock-ins shown, the best ones."""


def stress_report(section: dict[str, Any]) -> RenderableType:
    """The section that `stress.stress` made: a table per group of conditions, the terms, a closing sentence."""
    parts: list[RenderableType] = []
    for group in dict.fromkeys(verdict["group"] for verdict in section["verdicts"]):
        parts.append(conditions_table(section, group))
    refused = [verdict["sentence"] for verdict in section["verdicts"] if verdict["holds"] is None]
    parts += [Text(f"– {sentence}", style="dim") for sentence in refused]
    if section["knockouts"]:
        parts.append(terms_table(section))
    parts += [Text(note, style="dim") for note in section["notes"]]
    return Group(*parts, Text(""), Text(closing(section)))


def conditions_table(section: dict[str, Any], group: str) -> Table:
    """The rule and its baselines under the conditions of a group, below its own task."""
    home = section["rows"][0]["condition"] if section["rows"] else None
    metric = section["rows"][0]["metric"] if section["rows"] else ""
    rows = {(row["condition"], row["learner"]): row for row in section["rows"] if row["metric"] == metric}
    others = list(dict.fromkeys(learner for _, learner in rows))[1:]
    first = next(iter(rows.values()), {"learner": "rule"})["learner"]
    title = f"Does it hold? {group}: {_directed(metric, section)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("condition", overflow="fold")
    table.add_column(f"{first} [95 %]", justify="right", no_wrap=True)
    for other in others:
        table.add_column(f"minus {other}", justify="right")
    verdicts = {each["condition"]: each["holds"] for each in section["verdicts"] if each["group"] == group}
    for condition in (home, *verdicts):
        own = rows.get((condition, first))
        if own is None:
            continue
        mark = MARKS[verdicts[condition]] if condition in verdicts else Text("")
        cells = [_paired(rows.get((condition, other)), own) for other in others]
        table.add_row(mark, str(condition), _interval(own), *cells, end_section=condition == home)
    if any(not row.get("bracketed", True) for (condition, _), row in rows.items() if condition in verdicts):
        table.caption = "* its best rate was the last one tried"
    return table


def terms_table(section: dict[str, Any]) -> Table:
    """Every knock-out, and the best knock-ins, with the change that they make."""
    knockouts: Rows = section["knockouts"]
    metric = knockouts[0]["metric"]
    title = f"Which terms does it need? {_directed(metric, section)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("term", overflow="fold")
    table.add_column(metric, justify="right")
    table.add_column("change [95 %]", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    added = [each for each in knockouts if each["kind"] == "knock-in"]
    best = added[:SHOWN_ADDED]
    changed = [each for each in knockouts if each["kind"] != "knock-in"]
    for each in (*changed, *best):
        table.add_row(
            SIGNS[each["kind"]], each["term"], _interval(each), _interval(each["change"], sign=True),
            each["sentence"].rpartition(": ")[2], end_section=bool(changed) and each is changed[-1],
        )  # fmt: skip
    if len(added) > len(best):
        table.caption = f"the best {len(best)} of {len(added)} knock-ins; --json has them all"
    return table


def closing(section: dict[str, Any]) -> str:
    """What the battery comes to, in a sentence or two."""
    made = [verdict for verdict in section["verdicts"] if verdict["holds"] is not None]
    lost = [verdict["condition"] for verdict in made if not verdict["holds"]]
    text = f"Holds under {len(made) - len(lost)} of {len(made)} conditions" if made else "No condition could be made"
    text += f"; not under: {', '.join(lost)}." if lost else "."
    left_out = [each for each in section["knockouts"] if each["kind"] == "knock-out"]
    if left_out:
        needed = [each["term"] for each in left_out if each["necessary"]]
        text += f" Necessary terms: {', '.join(needed) or 'none shown'}."
    return f"{text} {section['how']}"


def _directed(metric: str, section: dict[str, Any]) -> str:
    return metric if section["better"] == "max" else f"{metric}, less is better"


def _paired(row: dict[str, Any] | None, own: dict[str, Any]) -> str:
    """The paired difference to a baseline, or why there is none."""
    if row is None:
        return "–"
    gap = row.get("first_minus_it")
    if gap is None:
        return "it diverged" if own["mean"] is not None else "–"
    return _interval(gap, sign=True) + ("" if row.get("bracketed", True) else "*")


def _interval(row: dict[str, Any], sign: bool = False) -> str:
    form = "+.2f" if sign else ".2f"
    mean, low, high = (row[key] for key in ("mean", "low", "high"))
    if mean is None or not math.isfinite(mean):
        return "diverged"
    if low is None or not math.isfinite(low):
        return f"{mean:{form}}"
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"
