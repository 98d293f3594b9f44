"""How well the rule does on a page: learning curves, the battery, the stress battery, knock-outs, the front."""

from __future__ import annotations

from typing import Any

from metarule.inspection.markup import Html, tag, together
from metarule.inspection.page_charts import Line, chart, skewed, smooth, smoothed
from metarule.inspection.page_parts import (
    NONE,
    Cell,
    Column,
    Row,
    between,
    details,
    fact,
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
Scores = dict[str, dict[str, list[float]]]

DRAWN = 24
"""Trajectories of coefficients that a page holds at most."""

FIRST = 8
"""Those of them that are shown before anybody asks: one colour each."""

KNOCKED = {
    "knock-out": "Knock-out: the rule without one of its terms",
    "sign flip": "Sign flip: the rule with the sign of one of its terms turned",
    "knock-in": "Knock-in: the rule with one more term",
}
"""Kind of change -> what it is called above its table."""


def search(document: Document) -> Html | None:
    """Objective, metrics and coefficients over the generations."""
    lines = document.get("learning_curve") or []
    if not lines:
        return None
    steps = [line["generation"] for line in lines]
    objectives = document.get("objectives") or []
    mean = smooth("mean of candidates", steps, [line["loss_mean"] for line in lines])
    best = smooth("luckiest candidate", steps, [line["loss_best"] for line in lines])
    leading = [mean] if mean.y == best.y else [mean, best]
    name = f"{words(objectives[0])} (lower is better)" if objectives else "objective (lower is better)"
    charts = [chart("curve", name, leading, "generation", log=skewed(leading))]
    for metric in sorted({name for line in lines for name in line["scores"]} - {*objectives[:1]}):
        values = smooth(metric, steps, [line["scores"].get(metric) for line in lines])
        charts.append(chart(f"curve-{metric}", f"{words(metric)}, mean of candidates", [values], "generation"))
    gap = "Gaps are generations in which every candidate diverged." if None in mean.y else None
    return section(
        "search", "Search", note(smoothed(steps, "generations")), note(gap), tag("div", *charts, class_="charts"),
        _trajectories(document, steps),
    )  # fmt: skip


def _trajectories(document: Document, steps: list[int]) -> Html | None:
    values = document.get("coefficients") or {}
    if not values:
        return None
    order = sorted(values, key=lambda name: -abs(values[name][-1] or 0.0))[:DRAWN]
    lines = [smooth(name, steps, values[name], place < FIRST) for place, name in enumerate(order)]
    title = "normalised coefficients"
    if len(values) > FIRST:
        title += f", the {FIRST} largest of {len(values)}"
    return chart("trajectories", title, lines, "generation")


def battery(document: Document, episodes: Scores) -> Html | None:
    """Means with intervals per learner and metric, the paired difference to each tuned baseline."""
    rows: list[Row] = document.get("battery") or []
    if not rows:
        if not document.get("learning_curve"):
            return None
        return section("battery", "Held-out battery", note("No battery was run: the search has battery.episodes = 0."))
    first, made = rows[0], []
    tunings = document.get("tunings") or {}
    gaps = {(gap["other"], gap["metric"]): gap for gap in document.get("differences") or []}
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == metric]
        values = {row["learner"]: episodes.get(row["learner"], {}).get(metric, []) for row in own}
        place = frame(own, around=(value for each in values.values() for value in each))
        columns = (
            Column("learner"), Column(words(metric), True), Column("95 % interval", True), Column("", drawn=True),
            Column(f"{first['learner']} − it", True), Column("tuned rate", True),
        )  # fmt: skip
        lines: list[list[Cell]] = []
        for at, row in enumerate(own):
            gap = gaps.get((row["learner"], metric))
            lines.append(
                [
                    row["learner"],
                    (number(row["mean"]), row["mean"]),
                    between(row),
                    whisker(row, place, at % 8, dots=values[row["learner"]]),
                    (f"{number(gap['mean'], sign=True)} {between(gap, sign=True)}", gap["mean"]) if gap else "",
                    _rate(tunings.get(row["learner"])),
                ]
            )
        made.append(table(f"{words(metric)}, {_better(metric)} is better", columns, lines, sortable=True))
    size = f"{first['episodes'] // max(first['seeds'], 1)} fresh, paired episodes of {words(first['task'])}"
    seeds = f", {first['seeds']} seeds" if first["seeds"] > 1 else ""
    seen = [f"The search saw {document['trained_on']}."] if document.get("trained_on") else []
    used = [f"The battery used {document['tested_on']}."] if document.get("tested_on") else []
    return section(
        "battery", "Held-out battery", note(f"{size}{seeds}; dots are episodes."), *made, note(" ".join(seen + used))
    )


def lower_is_better(metric: str) -> bool:
    """Tasks call what they want small a loss or an error."""
    return metric.endswith(("loss", "error", "complexity"))


def _better(metric: str) -> str:
    return "lower" if lower_is_better(metric) else "higher"


def _rate(tuning: Document | None) -> Cell:
    if tuning is None:
        return ""
    return number(tuning["best"]) + ("" if tuning["bracketed"] else " (not bracketed)"), tuning["best"]


def stress(document: Document) -> Html | None:
    """The rule where it was not searched: per condition its mean, the tuned baselines', and whether it holds."""
    found = document.get("stress")
    if not found:
        return None
    verdicts = found["verdicts"]
    leading: dict[str, str] = {}
    for row in found["rows"]:
        leading.setdefault(row["condition"], row["metric"])
    cells = {
        (row["condition"], row["learner"]): row for row in found["rows"] if row["metric"] == leading[row["condition"]]
    }
    learners = list(dict.fromkeys(learner for _, learner in cells))
    gaps = [gap for gap in found["differences"] if gap["metric"] == leading.get(gap["condition"])]
    order = list(dict.fromkeys([*leading, *(each["condition"] for each in verdicts)]))
    rivals = {condition: _rival(condition, gaps) for condition in order}
    place = frame((gap for gap in rivals.values() if gap), zero=True)
    columns = [
        Column("condition"),
        Column("group"),
        Column("verdict"),
        *(Column(words(name), True) for name in learners),
    ]
    columns += [Column("over the best baseline", True), Column("", drawn=True)]
    told = {each["condition"]: each for each in verdicts}
    lines: list[list[Cell]] = []
    for condition in order:
        gap = rivals[condition]
        line: list[Cell] = [words(condition)]
        line += [words(told[condition]["group"]), mark(told[condition]["holds"])] if condition in told else ["", NONE]
        line += [_mean(cells.get((condition, learner))) for learner in learners]
        line += [(f"{number(gap['mean'], sign=True)} {between(gap, sign=True)}", gap["mean"]) if gap else ""]
        lines.append([*line, whisker(gap, place, zero=True) if gap else ""])
    held = [each["holds"] for each in verdicts]
    counts = held.count(True), held.count(False), held.count(None)
    said = f"Of {len(held)} conditions it holds in {counts[0]}, fails in {counts[1]}, and {counts[2]} stay open."
    return section(
        "stress", "Stress battery", tag("p", said, class_="lead"), note(found.get("how")),
        listed(found.get("notes") or []),
        table(", ".join(map(words, dict.fromkeys(leading.values()))), columns, lines, sortable=True),
        details("Every verdict as a sentence", listed(each["sentence"] for each in verdicts)),
    )  # fmt: skip


def _rival(condition: str, gaps: list[Row]) -> Row | None:
    """The difference to the baseline that does best there: the smallest in the rule's favour."""
    own = [gap for gap in gaps if gap["condition"] == condition and gap["mean"] is not None]
    if not own:
        return None
    return (max if lower_is_better(own[0]["metric"]) else min)(own, key=lambda gap: gap["mean"])


def _mean(row: Row | None) -> Cell:
    return (number(row["mean"]), row["mean"]) if row else ""


def knockouts(document: Document) -> Html | None:
    """What the loss of each term or of its sign costs, and what one more term would bring."""
    rows: list[Row] = (document.get("stress") or {}).get("knockouts") or []
    kinds = dict.fromkeys(row["kind"] for row in rows)
    made = [_knocked(kind, [row for row in rows if row["kind"] == kind]) for kind in kinds]
    return section("knockouts", "Knock-outs", *made) if made else None


def _knocked(kind: str, rows: list[Row]) -> Html:
    out = kind == "knock-out"
    place = frame((row["change"] for row in rows), zero=True)
    columns = (
        Column("term"), Column(words(rows[0]["metric"]), True), Column("change", True), Column("95 % interval", True),
        Column("", drawn=True), Column("necessary" if out else "what it does"),
    )  # fmt: skip
    lines: list[list[Cell]] = [
        [
            row["term"],
            (number(row["mean"]), row["mean"]),
            (number(row["change"]["mean"], sign=True), row["change"]["mean"]),
            between(row["change"], sign=True),
            whisker(row["change"], place, zero=True),
            # a sentence ends in its conclusion
            fact(row["necessary"], "necessary", "not necessary") if out else row["sentence"].rpartition(": ")[2],
        ]
        for row in rows
    ]
    said = details(f"Every {kind} as a sentence", listed(row["sentence"] for row in rows))
    return together([table(KNOCKED.get(kind, kind), columns, lines, sortable=True), said])


def front(document: Document) -> Html | None:
    """The rules that no other beats in one objective without losing in another."""
    rules = document.get("front") or []
    objectives = document.get("objectives") or []
    if not rules or len(objectives) < 2:
        return None
    one, two = objectives[:2]
    order = sorted(rules, key=lambda rule: rule["losses"][two])
    across, up = ([rule["losses"][name] for rule in order] for name in (two, one))
    stairs = Line("front", across, up, stairs=True)
    keys = list(rules[0]["structure"])
    columns = [Column(words(name), True) for name in objectives]
    columns += [*(Column(key) for key in keys), Column("rule", wide=True)]
    lines: list[list[Cell]] = [
        [
            *((number(rule["losses"][name], trim=True), rule["losses"][name]) for name in objectives),
            *(rule["structure"][key] for key in keys),
            rule["equation"] or "no closed form",
        ]
        for rule in order
    ]
    return section(
        "front", "Pareto front", note("Losses as in the search, lower is better; no other rule tried beats these."),
        chart("front-chart", f"{words(one)} over {words(two)}", [stairs], words(two), log=skewed([stairs])),
        table("Rules of the front", columns, lines, sortable=True),
    )  # fmt: skip
