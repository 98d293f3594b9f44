"""What a log says a search found, as pure functions of JSON values: coefficients, intervals, learning curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

TAIL = 1 / 3
"""Share of the last generations over which a coefficient's interval is taken."""

Line = dict[str, Any]
"""One generation, as in log.jsonl."""

Entry = dict[str, Any]
"""One column of theta, as in `parameters` of spec.json: its `param`, its `name` and, for a rule's, `raw` and `unit`,
and `switch` where it has one."""


def terms(entries: list[Entry], log: list[Line]) -> list[dict[str, Any]]:
    """{name, raw, normalised, low, high} per coefficient of the rule after the last logged generation.

    `low` and `high` bound the normalised coefficient over the last third of the generations (five at least).
    """
    rows = []
    for entry in entries:
        if "raw" not in entry or not log:
            continue
        values = _normalised(entry, log)
        tail = values[-_tail(len(log)) :]
        rows.append(
            {
                "name": entry["name"],
                "raw": _switched(entry, log[-1]) * entry["raw"],
                "normalised": values[-1],
                "low": min(tail),
                "high": max(tail),
            }
        )
    return rows


def trajectories(entries: list[Entry], log: list[Line]) -> dict[str, list[float]]:
    """Name of a coefficient -> its normalised value after every generation."""
    return {entry["name"]: _normalised(entry, log) for entry in entries if "raw" in entry}


def learning_curve(log: list[Line]) -> list[dict[str, Any]]:
    """{generation, loss_mean, loss_best, scores} per generation: mean and luckiest candidate, and mean metrics."""
    return [{key: line[key] for key in ("generation", "loss_mean", "loss_best", "scores")} for line in log]


def agreement(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """{name, values, agree} per coefficient: its normalised value in every run, and whether all have one sign."""
    names = dict.fromkeys(term["name"] for document in documents for term in document["terms"])
    rows = []
    for name in names:
        values = [
            next((term["normalised"] for term in document["terms"] if term["name"] == name), None)
            for document in documents
        ]
        signs = {math.copysign(1.0, value) if value else 0.0 for value in values if value is not None}
        rows.append({"name": name, "values": values, "agree": len(signs) == 1 and None not in values})
    return rows


def _normalised(entry: Entry, log: list[Line]) -> list[float]:
    factor = entry["raw"] / entry["unit"]
    return [_switched(entry, line) * factor for line in log]


def _switched(entry: Entry, line: Line) -> float:
    """The value of a coefficient, 0 where its switch is off."""
    return line["theta"][entry["param"]] * (line["theta"][entry["switch"]] if "switch" in entry else 1.0)


def _tail(generations: int) -> int:
    return max(math.ceil(generations * TAIL), min(5, generations))
