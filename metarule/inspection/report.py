"""A run's or a comparison's numbers as terminal text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metarule.inspection.rule_report import card_parts, known_line, provenance_lines, terms_table
from metarule.inspection.tabular import Rows, number, titled


def report(document: dict[str, Any], figures: Iterable[str]) -> RenderableType:
    """What a run found: equation, terms, battery, data seen, pictures."""
    parts: list[RenderableType] = [_headline(document)]
    parts += [f"{key} = {choice}" for key, choice in document.get("structure", {}).items()]
    if document["equation"]:
        parts.append(Text(document["equation"], style="bold"))
        parts += known_line(document)
    elif not document["finished"]:
        parts.append("The equation and the battery are written when the search ends.")
    if document["terms"]:
        parts.append(terms_table(document["terms"]))
    else:
        # of a program whose equation is written above, not how its parts are wired
        left = {k: v for k, v in document["theta"].items() if not (document["equation"] and isinstance(v, str))}
        parts += [f"{name} = {_plain(value)}" for name, value in left.items()]
    if document.get("elsewhere"):
        parts.append(Text(document["elsewhere"], style="bold"))
    if document.get("locality") or (document["theta"] and not document.get("model")):
        parts += card_parts(document)
    if document.get("front"):
        parts.append(front_table(document["front"], document["objectives"]))
    if document["battery"]:
        parts.append(battery_table(document["battery"], document["differences"], document["tunings"]))
    if document["trained_on"]:
        parts.append(f"The search saw {document['trained_on']}.")
    if document["tested_on"]:
        parts.append(f"The battery used {document['tested_on']}.")
    parts += provenance_lines(document)
    parts += [f"figure: {path}" for path in figures]
    return Group(*parts)


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _headline(document: dict[str, Any]) -> str:
    if document["outer"] is None:
        return f"{document['name']}: {document['summary']}; on {document['task']}, {document['credit']}"
    done = f"{document['generations']} of {document['planned']} generations"
    state = "finished" if document["finished"] else "NOT FINISHED"
    learner = document.get("model") or document["credit"]
    return f"{document['name']}: {document['task']}, {learner}, {document['outer']}; {state}, {done}"


def front_table(rules: Rows, objectives: list[str]) -> Table:
    """One line per rule that no other beats: its losses in the search, its structure, its equation."""
    table = titled("Front: what no other rule beats, losses as in the search")
    for name in objectives:
        table.add_column(name, justify="right")
    keys = list(rules[0]["structure"])
    for key in keys:
        table.add_column(key, overflow="fold")
    table.add_column("rule", overflow="fold")
    for rule in rules:
        losses = [f"{rule['losses'][name]:.4g}" for name in objectives]
        table.add_row(*losses, *(rule["structure"][key] for key in keys), Text(rule["equation"] or "no closed form"))
    return table


def battery_table(rows: Rows, differences: Rows, tunings: dict[str, Any]) -> Table:
    """One line per learner: every metric's mean, the interval of the leading one, its rate, the paired difference."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    first = rows[0]
    seeds = f" × {first['seeds']} seeds" if first["seeds"] > 1 else ""
    table = titled(f"Held-out battery: {first['task']}, {first['episodes'] // first['seeds']} fresh episodes{seeds}")
    table.add_column("learner")
    table.add_column(metrics[0], justify="right")
    table.add_column("95 % interval", justify="right")
    for metric in metrics[1:]:
        table.add_column(metric, justify="right")
    table.add_column("tuned rate", justify="right")
    table.add_column(f"{first['learner']} − it", justify="right")
    cells = {(row["learner"], row["metric"]): row for row in rows}
    paired = {each["other"]: each for each in differences if each["metric"] == metrics[0]}
    for learner in dict.fromkeys(row["learner"] for row in rows):
        lead = cells[learner, metrics[0]]
        others = [number(cells[learner, metric]["mean"]) for metric in metrics[1:]]
        gap = paired.get(learner)
        table.add_row(
            learner,
            number(lead["mean"]),
            _between(lead),
            *others,
            _rate(tunings.get(learner)),
            f"{number(gap['mean'], sign=True)} [{_between(gap, sign=True)}]" if gap else "",
        )
    return table


def acceptance_table(rows: Rows) -> Table:
    """One line per row of the zoo: its three tasks with half-intervals, angle to backprop before and after, cost."""
    tasks = {row["task"]: row["metric"] for row in rows}
    table = titled(f"The zoo on its three tasks: {rows[0]['seeds']} seeds, 95 % intervals, fixed numbers")
    for name in ("learner", "credit", "synapse"):
        table.add_column(name)
    for task, metric in tasks.items():
        table.add_column(f"{task}, {'NMSE' if metric == 'held_out_loss' else metric}", justify="right")
    table.add_column("angle to backprop", justify="right")
    table.add_column("cost", justify="right")
    cells = {(row["learner"], row["task"]): row for row in rows}
    for learner in dict.fromkeys(row["learner"] for row in rows):
        own = [cells.get((learner, task)) for task in tasks]
        first = next(row for row in own if row)
        table.add_row(
            learner,
            first["credit"],
            first["synapse"],
            *(_half(row) for row in own),
            _angles(first["angle"]),
            f"{first['cost']:.1f}",
        )
    return table


def _half(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    return f"{number(row['mean'])} ± {number(row['high'] - row['mean'])}"


def _angles(angle: dict[str, float | None]) -> str:
    if angle["start"] is None or angle["end"] is None:
        return "–"
    return f"{angle['start']:.0f}° → {angle['end']:.0f}°"


def _rate(tuning: dict[str, Any] | None) -> str:
    if tuning is None:
        return ""
    return f"{tuning['best']:.3g}" + ("" if tuning["bracketed"] else " (not bracketed)")


def _between(row: dict[str, Any], sign: bool = False) -> str:
    return f"{number(row['low'], sign)} to {number(row['high'], sign)}"


def plain_table(title: str, rows: Rows) -> Table:
    """Any list of flat dicts: keys are columns."""
    table = titled(title)
    for name in dict.fromkeys(key for row in rows for key in row):
        numeric = all(isinstance(row.get(name), (int, float)) for row in rows)
        justify = "right" if numeric else "left"
        # a name is there to be copied: it is neither cut nor broken
        table.add_column(name.replace("_", " "), justify=justify, no_wrap=name == "name", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in dict.fromkeys(key for each in rows for key in each)))
    return table


def _cell(value: Any) -> Text:
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, (list, tuple)):
        return Text(", ".join(map(str, value)))
    return Text("" if value is None else str(value))


def settings_table(title: str, values: dict[str, Any]) -> Table:
    """A flat dict, one line per key."""
    table = titled(title)
    table.show_header = False
    table.add_column("what", max_width=60)
    table.add_column("value")
    for name, value in values.items():
        table.add_row(name, _cell(value))
    return table


def document_report(title: str, document: dict[str, Any]) -> RenderableType:
    """Any JSON document: plain values first, then a table per list of dicts and per dict."""
    plain = {name: value for name, value in document.items() if not _nested(value)}
    parts: list[RenderableType] = [settings_table(title, plain)] if plain else []
    for name, value in document.items():
        if _nested(value):
            title = name.replace("_", " ")
            parts.append(settings_table(title, value) if isinstance(value, dict) else plain_table(title, value))
    return Group(*parts)


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, dict) for each in value)
    )


def replicates_report(documents: Rows, agreement: Rows) -> RenderableType:
    """Replicate searches: every coefficient side by side, and every battery's means."""
    coefficients = titled("Replicates: normalised coefficients")
    coefficients.add_column("term")
    for document in documents:
        coefficients.add_column(document["name"], justify="right")
    coefficients.add_column("signs")
    for row in agreement:
        values = ["–" if value is None else f"{value:+.4f}" for value in row["values"]]
        coefficients.add_row(row["name"], *values, "agree" if row["agree"] else "DIFFER")
    tested = [document for document in documents if document["battery"]]
    if not tested:
        return coefficients
    metric = tested[0]["battery"][0]["metric"]
    means = titled(f"Replicates: held-out {metric}")
    means.add_column("learner")
    for document in tested:
        means.add_column(document["name"], justify="right")
    for learner in dict.fromkeys(row["learner"] for row in tested[0]["battery"]):
        cells = [
            next(
                number(row["mean"])
                for row in document["battery"]
                if (row["learner"], row["metric"]) == (learner, metric)
            )
            for document in tested
        ]
        means.add_row(learner, *cells)
    return Group(coefficients, means)


def checks_table(checks: Rows) -> Table:
    """Contract checks, ✓ or ✗ and what was seen."""
    table = titled("Contract")
    for name in ("", "plug-in", "property", "seen"):
        table.add_column(name)
    for check in checks:
        mark = Text("✓", style="green") if check["ok"] else Text("✗", style="bold red")
        table.add_row(mark, check["subject"], check["name"], Text(check["detail"]))
    return table
