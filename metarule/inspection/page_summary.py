"""What a report says first: one sentence of verdict, and the handful of figures that it stands on."""

from __future__ import annotations

from typing import Any

from metarule.inspection.markup import Html, tag
from metarule.inspection.page_evidence import lower_is_better
from metarule.inspection.page_parts import between, number, words

Document = dict[str, Any]


def verdict(document: Document) -> str:
    """What was found and how it stands to the best tuned baseline, in a sentence; honest where they are level."""
    if not document.get("finished", True):
        return f"Not finished: {document['generations']} of {document['planned']} generations."
    rows = document.get("battery") or []
    what = _what(document)
    if not rows:
        return f"{what}; no held-out battery was run."
    own = rows[0]
    reached = f"{what}: {_value(own)} on {own['episodes']} held-out episodes of {words(own['task'])}"
    gaps = [
        gap for gap in document.get("differences") or [] if gap["metric"] == own["metric"] and gap["mean"] is not None
    ]
    if not gaps:
        return f"{reached}."
    less = lower_is_better(own["metric"])
    gap = (max if less else min)(gaps, key=lambda each: each["mean"])
    return f"{reached}, {_against(gap, less)}."


def figures(document: Document) -> Html | None:
    """Key figures, each with what it is of."""
    shown: list[tuple[str, str, str]] = []
    rows = document.get("battery") or []
    if rows:
        shown.append((words(rows[0]["metric"]), number(rows[0]["mean"]), between(rows[0])))
        shown += [
            (f"against {words(gap['other'])}", number(gap["mean"], sign=True), between(gap, sign=True))
            for gap in (document.get("differences") or [])[:2]
            if gap["metric"] == rows[0]["metric"]
        ]
    locality = document.get("locality")
    if locality:
        shown.append(("locality", "local" if locality["local"] else "not local", locality.get("level") or ""))
    if document.get("known_as"):
        shown.append(("known as", document["known_as"], "by what it does"))
    verdicts = (document.get("stress") or {}).get("verdicts") or []
    made = [each["holds"] for each in verdicts if each["holds"] is not None]  # one that cannot be made is no failure
    if made:
        shown.append(("holds up", f"{sum(made)} of {len(made)}", "stress conditions"))
    if not shown:
        return None
    entries = (
        tag("div", tag("dt", name), tag("dd", tag("b", value, class_=_size(value)), " ", tag("span", more)))
        for name, value, more in shown
    )
    return tag("dl", *entries, class_="figures")


def _size(text: str) -> str | None:
    return "long" if len(text) > 16 else None


def _what(document: Document) -> str:
    learner = document.get("model") or document.get("credit")
    found = f"found by {document['outer'].replace('_', '-')}" if document.get("outer") else ""
    rule = "A model's settings" if document.get("model") else "A rule"
    parts = [rule, found, f"for {words(learner)}" if learner else ""]
    return " ".join(part for part in parts if part)


def _value(row: Document) -> str:
    if row["metric"] == "accuracy":
        return f"{100 * row['mean']:.1f} % accuracy"
    return f"{words(row['metric'])} {number(row['mean'])}"


def _against(gap: Document, less: bool) -> str:
    """How the rule stands to one baseline: better, worse, or not told apart."""
    other = f"tuned {words(gap['other'])}"
    if gap["low"] is None or gap["high"] is None or gap["low"] <= 0 <= gap["high"]:
        return f"not told apart from {other}"
    size = abs(gap["mean"])
    amount = f"{100 * size:.1f} points" if gap["metric"] == "accuracy" else number(size)
    return f"{amount} {'better' if (gap['mean'] < 0) == less else 'worse'} than {other}"
