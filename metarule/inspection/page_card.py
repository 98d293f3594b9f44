"""The rule itself on a page: its equation, what it is known as, its coefficients, where its signals come from."""

from __future__ import annotations

from typing import Any

from metarule.inspection.markup import Html, tag, together
from metarule.inspection.mathml import formula, sides
from metarule.inspection.page_parts import (
    NONE,
    Cell,
    Column,
    bar,
    between,
    copied,
    details,
    fact,
    fixed,
    frame,
    listed,
    mark,
    note,
    number,
    section,
    table,
    whisker,
)

Document = dict[str, Any]

SHOWN = 24
"""Coefficients in the table at most; of more, the largest."""

NEAREST = 10
"""Known rules that are shown, of several rules as many for each."""

DIRECTIONS = 10
"""Directions of a spectrum that are shown before anybody asks."""


def equation(document: Document) -> Html | None:
    """The equation as mathematics, and to copy as text, LaTeX and sympy."""
    shown = [tag("div", _key(rule), made, class_="equation") for rule, made in _formulas(document)]
    if not shown:
        if document.get("model") or (not document.get("learning_curve") and not document.get("theta")):
            return None
        text = "This rule has no closed form: its surfaces and its distilled equations say what it does."
        if not document.get("finished", True):
            text = "The equation is written when the search ends."
        return section("equation", "Equation", note(text), _structure(document))
    return section("equation", "Equation", _structure(document), *shown, _to_copy(document))


def _formulas(document: Document) -> list[tuple[str, Html]]:
    parts = document.get("equations") or []
    if parts:
        several = len({part["rule"] for part in parts}) > 1
        made = [(part["rule"] if several else "", part["name"], part["sympy"], part["text"]) for part in parts]
    else:
        made = [(rule, name, right, f"{name} = {right}") for rule, name, right in sides(document.get("equation") or "")]
    return [(rule, formula(name, right) or tag("code", text)) for rule, name, right, text in made]


def _structure(document: Document) -> Html | None:
    chosen = [f"{key} = {value}" for key, value in document.get("structure", {}).items()]
    return tag("p", *(tag("span", text, class_="chip") for text in chosen), class_="chips") if chosen else None


def _key(rule: str) -> Html | None:
    return tag("span", rule, class_="label") if rule else None


def _to_copy(document: Document) -> Html | None:
    text = document.get("equation") or "\n".join(part["text"] for part in document.get("equations") or [])
    copies = [copied("text", text)]
    if document.get("latex"):
        copies.append(copied("LaTeX", "\n".join(document["latex"])))
    parts = document.get("equations") or []
    if parts:
        copies.append(copied("sympy", "\n".join(f"{part['name']} = {part['sympy']}" for part in parts)))
    return details("As text, LaTeX and sympy", *copies)


def known(document: Document) -> Html | None:
    """The literature name, and the nearest known rules by what they do."""
    rows = document.get("nearest")
    if not rows:
        return None
    name = document.get("known_as")
    said = f"Equivalent to {name}." if name else "Not equivalent to any single rule of the zoo."
    keys = list(dict.fromkeys(row.get("rule") for row in rows))
    several = len(keys) > 1
    most = max(NEAREST // len(keys), 1)
    rows = [row for key in keys for row in [each for each in rows if each.get("rule") == key][:most]]
    columns = (
        *[Column("for")] * several,
        Column("rule"),
        Column("distance", True),
        Column("", drawn=True),
        Column("cosine", True),
        Column("source", wide=True),
    )
    largest = max((row["distance"] for row in rows if row["distance"] is not None), default=1.0) or 1.0
    lines: list[list[Cell]] = [
        [
            *[row.get("rule") or NONE] * several,
            together(
                [row["name"], " ", tag("span", "equivalent", class_="chip good") if row.get("equivalent") else None]
            ),
            (fixed(row["distance"]), row["distance"]),
            bar(row["distance"] / largest) if row["distance"] is not None else "",
            (fixed(row["cosine"]), row["cosine"]),
            together([row.get("source") or NONE]),
        ]
        for row in rows
    ]
    caption = "Nearest known rules, by what they do on the same signals"
    return section("known", "Known as", tag("p", said, class_="lead"), table(caption, columns, lines, sortable=True))


def terms(document: Document) -> Html | None:
    """Coefficients, raw and normalised, with what they ranged over."""
    rows = document.get("terms") or []
    if not rows:
        return _numbers(document)
    shown = sorted(rows, key=lambda row: -abs(row["normalised"]))[:SHOWN]
    over_seeds = any(map(_over_seeds, rows))
    intervals = [_interval(row) for row in shown]
    place = frame(intervals, zero=True)
    known_as = any(row.get("known_as") for row in rows)
    local = any(row.get("local") is not None for row in rows)
    columns = [
        Column("term"),
        Column("raw", True),
        Column("normalised", True),
        Column("interval", True),
        Column("", drawn=True),
    ]
    columns += [Column("local")] * local + [Column("known as")] * known_as
    lines: list[list[Cell]] = []
    for row, interval in zip(shown, intervals, strict=True):
        line: list[Cell] = [
            row["name"],
            (number(row["raw"], sign=True, digits=4), row["raw"]),
            (number(row["normalised"], sign=True), row["normalised"]),
            between(interval, sign=True),
            whisker(interval, place, zero=True),
        ]
        line += [mark(row.get("local"), "local", "not local", "unknown")] * local
        line += [row.get("known_as") or NONE] * known_as
        lines.append(line)
    which = "Coefficients" if len(shown) == len(rows) else f"The {len(shown)} largest of {len(rows)} coefficients"
    what = "95 % interval over seeds" if over_seeds else "range over the last third of the search"
    return section("terms", "Terms", table(f"{which}; interval: {what}", columns, lines, sortable=True))


def _interval(row: Document) -> Document:
    """Over seeds where there are several, else over the last third of the search."""
    over = row["seeds"] if _over_seeds(row) else row
    return {"mean": row["normalised"], "low": over.get("low"), "high": over.get("high")}


def _over_seeds(row: Document) -> bool:
    return (row.get("seeds") or {}).get("low") is not None


def _numbers(document: Document) -> Html | None:
    """What a rule without coefficients was given: its numbers, or its program."""
    values = document.get("theta") or {}
    if not values:
        return None
    lines = [[name, value if isinstance(value, str) else number(value)] for name, value in values.items()]
    made = table("Every number and choice", (Column("parameter"), Column("value", True)), lines, sortable=True)
    few = len(lines) <= 12
    return section("terms", "Parameters", made if few else details(f"{len(lines)} numbers and choices", made))


def locality(document: Document) -> Html | None:
    """Which signals the rule reads, and which of them a synapse has."""
    found = document.get("locality")
    if not found:
        return None
    credit = found.get("credit") or {}
    columns = (Column("signal"), Column("where"), Column("at the synapse"), Column("meaning", wide=True))
    lines = [[signal["name"], signal["side"], _where(signal), signal["meaning"]] for signal in found["signals"]]
    return section(
        "locality", "Locality",
        tag("p", mark(found["local"], "local", "not local"), f": {found['sentence']}", class_="lead"),
        note(credit.get("sentence")), table("Signals that the rule reads", columns, lines),
    )  # fmt: skip


def _where(signal: Document) -> Html:
    """Whether a synapse has a signal of itself, or it is brought there by the credit assignment."""
    if signal.get("delivered"):
        return fact(False, "", "delivered")
    return mark(signal["local"], "local", "not local")


def identifiability(document: Document) -> Html | None:
    """Which directions of the coefficients the task determines, and which of them it leaves open."""
    found = document.get("identifiability")
    if not found and not document.get("nearest"):  # the card has not been computed
        return None
    if not found:
        return section(
            "identifiability", "Identifiability", note("This rule has no terms whose weights could be told apart.")
        )
    rows = found["spectrum"]
    caption = f"Spectrum of the loss, by {found['method']}"
    shown = _spectrum(caption if len(rows) <= DIRECTIONS else f"{caption}: the {DIRECTIONS} largest", rows[:DIRECTIONS])
    rest = details(f"All {len(rows)} directions", _spectrum(caption, rows)) if len(rows) > DIRECTIONS else None
    null = [each["sentence"] for each in found.get("null_terms") or []]
    merged = [each["sentence"] for each in found.get("classes") or []]
    reduced = found.get("reduced_equation")
    return section(
        "identifiability", "Identifiability", tag("p", found["sentence"], class_="lead"),
shown if rows else None, rest,
        *(_headed("Null terms", null) + _headed("Rules that act the same", merged)),
        together([tag("h3", "Without its null terms"), *_reduced(reduced)]) if reduced else None,
    )  # fmt: skip


def _spectrum(caption: str, rows: list[Document]) -> Html:
    """Directions with the bend of the loss along them, the steepest first."""
    largest = max((abs(row["share"] or 0.0) for row in rows), default=1.0) or 1.0
    numbers = Column("eigenvalue", True), Column("share", True), Column("", drawn=True)
    lines: list[list[Cell]] = [
        [
            _direction(row["direction"]),
            (number(row["eigenvalue"]), row["eigenvalue"]),
            (number(row["share"]), row["share"]),
            bar(abs(row["share"] or 0.0) / largest, 0 if row["determined"] else 7),
            fact(row["determined"], "determined", "undetermined"),
        ]
        for row in rows
    ]
    return table(caption, (Column("direction", wide=True), *numbers, Column("determined")), lines)


def _headed(title: str, sentences: list[str]) -> list[Html | None]:
    return [tag("h3", title), listed(sentences)] if sentences else []


def _reduced(text: str) -> list[Html]:
    made = [formula(name, right) for _, name, right in sides(text)]
    shown = [each for each in made if each is not None]
    return (
        [tag("div", each, class_="equation") for each in shown] if len(shown) == len(made) > 0 else [tag("code", text)]
    )


def _direction(weights: dict[str, float]) -> str:
    """A direction by its terms, the heaviest first; what is below a twentieth is not said."""
    heavy = sorted(
        ((name, weight) for name, weight in weights.items() if abs(weight) >= 0.05), key=lambda it: -abs(it[1])
    )
    text = " ".join(f"{'−' if weight < 0 else '+'} {abs(weight):.2f} {name}" for name, weight in heavy[:4])
    more = f" … {len(heavy) - 4} more" if len(heavy) > 4 else ""
    return text.removeprefix("+ ") + more
