"""Several runs on one page: curves over one another, coefficients and batteries side by side, paired tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
    yield _notes(document)
    yield _equations(document)
    yield _curves(document)
    yield _coefficients(document)
    yield _batteries(document)
    yield _tests(document)
    yield _classes(document)
    yield _settings(document)


def _names(document: Document) -> list[str]:
    return [str(run["name"]) for run in document["runs"]]


def _notes(document: Document) -> Html | None:
    found = document.get("notes") or []
    return section("notes", "Before comparing", listed(found)) if found else None


def _equations(document: Document) -> Html | None:
    shown = []
    for place, run in enumerate(document["runs"]):
        made = [formula(name, right) for _, name, right in sides(run.get("equation") or "")]
        equation = tag("div", *(each for each in made if each)) if made and all(made) else tag("p", "no closed form")
        shown.append(tag("div", tag("span", swatch(place), run["name"], class_="label"), equation, class_="equation"))
    return section("equations", "Equations", *shown)


def _curves(document: Document) -> Html | None:
    """A chart per panel: runs of different tasks or objectives never share one."""
    charts = []
    for place, panel in enumerate(document.get("panels") or []):
        lines = [_line(each["run"], _names(document), each["values"]) for each in panel["lines"]]
        title = panel["title"] + (" (the objective: lower is better)" if panel["falls"] else "")
        if len(lines) == 1 < len(document["runs"]):
            title += f": {lines[0].name}"
        charts.append(chart(f"curve-{place}", title, lines, "generation", log=panel["falls"] and skewed(lines)))
    if not charts:
        return None
    said = note("Means over the candidates of a generation, unless a title says otherwise.")
    return section("curves", "Learning curves", said, tag("div", *charts, class_="charts"))


def _line(run: int, names: list[str], values: list[float | None]) -> Line:
    return replace(smooth(names[run], range(len(values)), values), look=run)


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


def _fresh(document: Document) -> Iterator[Document]:
    """The fresh episodes that all rules learned, as rows of a battery."""
    rows = document.get("fresh") or []
    measured = {(row["metric"], row["learner"]): row for row in rows}
    for metric in dict.fromkeys(row["metric"] for row in rows):
        values = [measured[metric, name] for name in _names(document)]
        task = f"{values[0]['episodes']} fresh episodes of {values[0]['task']}"
        yield {"task": task, "metric": metric, "learner": "rule found", "values": values}


def _batteries(document: Document) -> Html | None:
    rows = [*(document.get("batteries") or []), *_fresh(document)]
    made = []
    several = len({row["task"] for row in rows}) > 1
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in rows):
        own = [row for row in rows if (row["task"], row["metric"]) == (task, metric)]
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
        where = f", {task}" if several else ""
        made.append(table(f"{words(metric)}{where}, {way} is better; 95 % intervals", columns, lines, sortable=True))
    return section("batteries", "Batteries", *made) if made else None


def _tests(document: Document) -> Html | None:
    rows = document.get("tests") or []
    made = [note(document[key]) for key in ("pairing", "test") if document.get(key) and (rows or key == "pairing")]
    several = len({row["task"] for row in rows}) > 1
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in rows):
        own = [row for row in rows if (row["task"], row["metric"]) == (task, metric)]
        place = frame(own, zero=True)
        columns = (
            Column("a"), Column("b"), Column("a − b", True), Column("95 % interval", True), Column("", drawn=True),
            Column("told apart"), Column("p", True), Column("Holm's p", True), Column("episodes", True),
            Column("seeds", True),
        )  # fmt: skip
        lines: list[list[Cell]] = [
            [
                row["a"],
                row["b"],
                (number(row["mean"], sign=True), row["mean"]),
                between(row, sign=True),
                whisker(row, place, zero=True),
                _winner(row),
                *((_chance(row[key]), row[key]) for key in ("p", "p_holm")),
                str(row["episodes"]),
                str(row["seeds"]),
            ]
            for row in own
        ]
        where = f", {task}" if several else ""
        made.append(table(f"{words(metric)}{where}: a minus b on the same episodes", columns, lines, sortable=True))
    return section("tests", "Paired tests", *made) if made else None


def _apart(row: Document) -> bool | None:
    """Whether a is better than b; None where the interval holds 0."""
    if row["low"] is None or row["high"] is None or row["low"] <= 0 <= row["high"]:
        return None
    return (row["mean"] < 0) == lower_is_better(row["metric"])


def _chance(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


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
    columns = [Column("setting"), *(Column(name, wide=True) for name in _names(document))]
    lines = [[row["key"], *(NONE if value is None else str(value) for value in row["values"])] for row in rows]
    return section("settings", "Settings", table("Where the searches differ", columns, lines))
