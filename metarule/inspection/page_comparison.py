"""Several runs on one page: curves over one another, coefficients and batteries side by side, paired tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metarule.inspection.markup import Html, tag
from metarule.inspection.mathml import formula, sides
from metarule.inspection.page_charts import Line, chart, skewed, smooth, swatch
from metarule.inspection.page_evidence import lower_is_better
from metarule.inspection.page_parts import (
    NONE,
    Cell,
    Column,
    between,
    frame,
    listed,
    mark,
    note,
    number,
    section,
    table,
    whisker,
    words,
)

Document = dict[str, Any]


def verdict(document: Document) -> str:
    """How many of the paired tests tell two runs apart, and which act the same."""
    tests = document.get("tests") or []
    apart = sum(_apart(test) is not None for test in tests)
    count = len(document["runs"])
    said = f"{count} runs side by side"
    if tests:
        said += f"; {apart} of {len(tests)} paired tests tell two of them apart"
    same = [each["members"] for each in document.get("classes") or [] if len(each["members"]) > 1]
    return said + "".join(f"; {', '.join(members)} act the same" for members in same) + "."


def parts(document: Document) -> Iterator[Html | None]:
    """The sections, in the order of the page."""
    yield _equations(document)
    yield _curves(document)
    yield _coefficients(document)
    yield _batteries(document)
    yield _tests(document)
    yield _classes(document)
    yield _settings(document)


def _names(document: Document) -> list[str]:
    return [str(run["name"]) for run in document["runs"]]


def _equations(document: Document) -> Html | None:
    shown = []
    for place, run in enumerate(document["runs"]):
        made = [formula(name, right) for _, name, right in sides(run.get("equation") or "")]
        equation = tag("div", *(each for each in made if each)) if made and all(made) else tag("p", "no closed form")
        shown.append(tag("div", tag("span", swatch(place), run["name"], class_="label"), equation, class_="equation"))
    return section("equations", "Equations", *shown)


def _curves(document: Document) -> Html | None:
    runs = [run for run in document["runs"] if run.get("learning_curve")]
    if not runs:
        return None
    metrics = sorted({name for run in runs for line in run["learning_curve"] for name in line["scores"]})
    leading = [_line(run, lambda line: line["loss_mean"]) for run in runs]
    charts = [
        chart("curve", "objective, mean of candidates (lower is better)", leading, "generation", log=skewed(leading))
    ]
    objectives = {name for run in runs for name in (run.get("objectives") or [])[:1]}
    for metric in metrics:
        if {metric} != objectives:
            lines = [_line(run, lambda line, metric=metric: line["scores"].get(metric)) for run in runs]
            charts.append(chart(f"curve-{metric}", f"{words(metric)}, mean of candidates", lines, "generation"))
    return section("curves", "Learning curves", tag("div", *charts, class_="charts"))


def _line(run: Document, value: Any) -> Line:
    lines = run["learning_curve"]
    return smooth(str(run["name"]), [line["generation"] for line in lines], [value(line) for line in lines])


def _coefficients(document: Document) -> Html | None:
    rows = document.get("coefficients") or []
    if not rows:
        return None
    columns = [Column("term"), *(Column(name, True) for name in _names(document)), Column("signs")]
    lines: list[list[Cell]] = []
    for row in rows:
        signs = {value > 0 for value in row["values"] if value}
        lines.append(
            [
                row["name"],
                *((number(value, sign=True), value) for value in row["values"]),
                mark(len(signs) == 1, "agree", "differ") if sum(map(bool, row["values"])) > 1 else NONE,
            ]
        )
    return section("coefficients", "Coefficients", table("Normalised coefficients", columns, lines, sortable=True))


def _batteries(document: Document) -> Html | None:
    rows = document.get("batteries") or []
    made = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == metric]
        columns = [Column("learner")]
        place = frame(value for row in own for value in row["values"] if value)
        for name in _names(document):
            columns += [Column(name, True), Column("", drawn=True)]
        lines: list[list[Cell]] = []
        for row in own:
            line: list[Cell] = [row["learner"]]
            for at, value in enumerate(row["values"]):
                line += [(f"{number(value['mean'])} {between(value)}", value["mean"]) if value else NONE]
                line += [whisker(value, place, at % 8) if value else ""]
            lines.append(line)
        way = "lower" if lower_is_better(metric) else "higher"
        made.append(table(f"{words(metric)}, {way} is better; 95 % intervals", columns, lines, sortable=True))
    return section("batteries", "Batteries", *made) if made else None


def _tests(document: Document) -> Html | None:
    rows = document.get("tests") or []
    if not rows:
        return None
    made = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == metric]
        place = frame(own, zero=True)
        columns = (
            Column("a"), Column("b"), Column("task"), Column("a − b", True), Column("95 % interval", True),
            Column("", drawn=True), Column("told apart"), Column("episodes", True), Column("seeds", True),
        )  # fmt: skip
        lines: list[list[Cell]] = [
            [
                row["a"],
                row["b"],
                words(row["task"]),
                (number(row["mean"], sign=True), row["mean"]),
                between(row, sign=True),
                whisker(row, place, zero=True),
                _winner(row),
                str(row["episodes"]),
                str(row["seeds"]),
            ]
            for row in own
        ]
        made.append(table(f"{words(metric)}: a minus b on the same episodes", columns, lines, sortable=True))
    return section("tests", "Paired tests", *made)


def _apart(row: Document) -> bool | None:
    """Whether a is better than b; None where the interval holds 0."""
    if row["low"] is None or row["high"] is None or row["low"] <= 0 <= row["high"]:
        return None
    return (row["mean"] < 0) == lower_is_better(row["metric"])


def _winner(row: Document) -> str:
    better = _apart(row)
    return "not told apart" if better is None else f"{row['a'] if better else row['b']} is better"


def _classes(document: Document) -> Html | None:
    found = document.get("classes") or []
    return section("classes", "Act the same", listed(each["sentence"] for each in found)) if found else None


def _settings(document: Document) -> Html | None:
    rows = document.get("settings") or []
    if not rows:
        return section("settings", "Settings", note("The searches have the same settings."))
    columns = [Column("setting"), *(Column(name) for name in _names(document))]
    lines = [[row["key"], *(NONE if value is None else str(value) for value in row["values"])] for row in rows]
    return section("settings", "Settings", table("Where the searches differ", columns, lines))
