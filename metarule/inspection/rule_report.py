"""A rule card as terminal text: what a rule is called, how far it sees, what the task determines of it."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from metarule.inspection.numbers import LARGEST
from metarule.inspection.tabular import Rows, titled

NEAREST = 5
"""Known rules printed, beside those that are equivalent."""

PARTS = 4
"""Terms of a direction printed, the largest."""

ENDS = 5
"""Directions printed of many, so many of the strongest and of the weakest."""

FEW = 3
"""Null terms of which the reason is printed."""

PLACES = 2
"""Rows of the zoo named with a rule."""

Document = dict[str, Any]


def terms_table(terms: Rows) -> Table:
    """Coefficients, raw and normalised, what they are called, and the interval of the normalised ones over seeds.

    Where there are no other seeds it is the range over the last third of the generations; a row of the zoo has neither.
    """
    largest = sorted(terms, key=lambda term: -abs(term["normalised"]))[:LARGEST]
    few = len(largest) == len(terms)
    shown = terms if few else largest
    seeds = max((len(term["seeds"]["values"]) for term in terms if term.get("seeds")), default=0)
    table = titled(
        "Coefficients" if few else f"The {LARGEST} largest of {len(terms)} coefficients; --json has them all"
    )
    table.add_column("term", overflow="fold")
    named = any(term.get("known_as") for term in shown)
    if named:
        table.add_column("known as")
    for name in ("raw", "normalised"):
        table.add_column(name, justify="right", no_wrap=True)
    ranged = any("low" in term for term in shown)
    if seeds or ranged:
        title = f"mean over {seeds} seeds [95 %]" if seeds else "range over last third"
        table.add_column(title, justify="right", no_wrap=True)
    for term in shown:
        called = [term.get("known_as") or ""] if named else []
        between = [_over_seeds(term["seeds"]) if seeds else _range(term)] if seeds or ranged else []
        table.add_row(term["name"], *called, f"{term['raw']:+.4g}", f"{term['normalised']:+.4f}", *between)
    return table


def card_parts(document: Document) -> list[RenderableType]:
    """Name, locality, nearest rules and identifiability; one line where none of it was computed."""
    if not document.get("locality"):
        return ["Locality, nearest known rules and identifiability have not been computed: add --probes."]
    parts: list[RenderableType] = [*_locality(document["locality"])]
    if document["nearest"]:
        parts.append(_nearest_table(document["nearest"]))
    if document["identifiability"]:
        parts += _identifiability(document["identifiability"])
    return parts


def known_line(document: Document) -> list[RenderableType]:
    """The literature's name of the rule, where there is one."""
    if not document.get("known_as"):
        return []
    return [Text.assemble("Known as ", (document["known_as"], "bold"))]


def provenance_lines(document: Document) -> list[RenderableType]:
    """How to find the rule again, and with what it was found."""
    found = document.get("provenance")
    if not found:
        return []
    names = ("metarule", "torch", "python")
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in names if name in found["versions"])
    seeds = ", ".join(map(str, found["seeds"].values()))
    said = f" ({versions}{f'; seeds {seeds}' if len(found['seeds']) > 1 else ''})" if versions else ""
    aim = "To find it again" if found["search"] else "To see it learn"
    return [f"{aim}: {found['command']}{said}"]


def _over_seeds(found: Document | None) -> str:
    if found is None:
        return ""
    return f"{found['mean']:+.4f} [{found['low']:+.4f} to {found['high']:+.4f}]"


def _range(term: Document) -> str:
    return f"{term['low']:+.4f} to {term['high']:+.4f}" if "low" in term else ""


def _locality(found: Document) -> list[RenderableType]:
    table = titled("Locality: what the rule reads")
    for name in ("signal", "side", "at the synapse", "meaning"):
        table.add_column(name)
    for each in found["signals"]:
        where = "delivered" if each.get("delivered") else "yes"
        mark = Text(where) if each["local"] else Text("no", style="bold")
        table.add_row(each["name"], each["side"], mark, each["meaning"])
    level = Text.assemble((found["level"][0].upper() + found["level"][1:], "bold"), f". {found['sentence']}")
    return [table, level, Padding(Text(found["credit"]["sentence"]), (0, 0, 1, 0))]


def _nearest_table(found: Rows) -> Table:
    several = len({entry.get("rule") for entry in found}) > 1
    table = titled("Nearest known rules, by their changes on one battery of probes (0: equivalent, 1: unrelated)")
    for name in (("for",) if several else ()) + ("rule",):
        table.add_column(name, overflow="fold")
    table.add_column("distance", justify="right")
    table.add_column("in the zoo", overflow="fold")
    table.add_column("source", overflow="fold")
    shown: dict[str, int] = {}
    for entry in found:
        key = entry.get("rule", "")
        shown[key] = shown.get(key, 0) + (not entry["equivalent"])
        if shown[key] > NEAREST and not entry["equivalent"]:
            continue
        rows = entry.get("rows", [])
        places = ", ".join(rows[:PLACES]) + (f" and {len(rows) - PLACES} more" if len(rows) > PLACES else "")
        apart = Text("equivalent", style="bold") if entry["equivalent"] else Text(f"{entry['distance']:.3f}")
        table.add_row(
            *([key] if several else []), entry["name"], apart, places or "–", entry["source"].partition(" (")[0]
        )
    return table


def _identifiability(found: Document) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if found["spectrum"]:
        table = titled(f"Identifiability: {found['method']}")
        table.add_column("direction", overflow="fold")
        table.add_column("curvature", justify="right")
        table.add_column("share", justify="right")
        table.add_column("a unit changes the loss by", justify="right", no_wrap=True)
        table.add_column("determined")
        rows = found["spectrum"]
        for row in rows if len(rows) <= 2 * ENDS else [*rows[:ENDS], None, *rows[-ENDS:]]:
            if row is None:
                table.add_row(f"{len(rows) - 2 * ENDS} more in between; --json has them all")
                continue
            mark = Text("yes") if row["determined"] else Text("no", style="bold")
            change = _change(row.get("change"))
            table.add_row(_direction(row["direction"]), f"{row['eigenvalue']:.3g}", _share(row["share"]), change, mark)
        parts.append(table)
    sentences = [Text(found["sentence"])]
    nulls = found["null_terms"]
    sentences += [Text(f"Null term. {each['sentence']}") for each in nulls[:FEW]]
    if len(nulls) > FEW:
        sentences.append(Text(f"Null terms as well: {', '.join(each['name'] for each in nulls[FEW:])}."))
    if found["reduced_equation"]:
        sentences.append(Text.assemble("Without what adds nothing: ", (found["reduced_equation"], "bold")))
    sentences += [Text(f"One class. {each['sentence']}") for each in found["classes"]]
    return [*parts, Padding(Group(*sentences), (0, 0, 1, 0))]


def _direction(weights: dict[str, float]) -> str:
    largest = sorted(weights.items(), key=lambda item: -abs(item[1]))[:PARTS]
    said = " ".join(f"{'+' if weight > 0 else '−'}{abs(weight):.2f} {name}" for name, weight in largest)
    return said + (" …" if len(weights) > PARTS else "")


def _change(change: Document | None) -> str:
    if change is None or change["mean"] is None or not math.isfinite(change["mean"]):
        return "diverges"
    return f"{change['mean']:+.3g} [{change['low']:+.2g} to {change['high']:+.2g}]"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
