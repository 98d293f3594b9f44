"""A picture as files: its numbers as CSV, then the same drawing as PNG and as SVG, byte for byte the same each time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from metarule.inspection.numbers import Coefficients, Comparison, Front, LearningCurve

DOTS = 160
"""Dots per inch of a PNG."""

Rows = list[dict[str, Any]]


def saved(figure: Figure, picture: Path) -> None:
    """Write `picture`, a PNG, and the SVG beside it; neither says when it was made."""
    figure.savefig(picture, dpi=DOTS)
    with rc_context({"svg.hashsalt": "metarule"}):
        figure.savefig(picture.with_suffix(".svg"), metadata={"Date": None})


def removed(picture: Path) -> None:
    """A picture that is no longer true goes with its numbers."""
    for suffix in (".png", ".svg", ".csv"):
        picture.with_suffix(suffix).unlink(missing_ok=True)


def written(rows: Rows, file: Path) -> None:
    """The numbers of a picture, one row per mark in it."""
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def curve_rows(numbers: LearningCurve) -> Rows:
    """One row per generation."""
    columns = {"generation": numbers.generations, "mean": numbers.mean, "best": numbers.best, **numbers.metrics}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def coefficient_rows(numbers: Coefficients, names: Sequence[str]) -> Rows:
    """One row per generation of each of these coefficients, with its range over the last third."""
    rows = []
    for name in names:
        low, high = numbers.intervals.get(name, ("", ""))
        for generation, value in zip(numbers.generations, numbers.values[name], strict=True):
            rows.append(
                {
                    "coefficient": name,
                    "generation": generation,
                    "normalised": value,
                    "range_low": low,
                    "range_high": high,
                }
            )
    return rows


def battery_rows(numbers: Comparison) -> Rows:
    """One row per learner and episode; one without an episode where those are not known."""
    rows = []
    for place, learner in enumerate(numbers.learners):
        known = {"learner": learner, "metric": numbers.metric, "mean": numbers.means[place]}
        known |= {"low": numbers.lows[place], "high": numbers.highs[place]}
        values = numbers.episodes[place] or ("",)
        rows += [known | {"episode": number, "value": value} for number, value in enumerate(values)]
    return rows


def front_rows(numbers: Front) -> Rows:
    """One row per rule of the front, then one per rule that was tried."""
    one, two = numbers.objectives
    leading = zip(numbers.first, numbers.second, numbers.labels, strict=True)
    rows = [{one: first, two: second, "front": True, "rule": label} for first, second, label in leading]
    return rows + [{one: first, two: second, "front": False, "rule": ""} for first, second in numbers.tried]
