"""How the rule works on a page: probes over training, contrasts between rules with and without a term, surfaces."""

from __future__ import annotations

from typing import Any

from metarule.inspection.markup import Html, tag
from metarule.inspection.mathml import formula, sides
from metarule.inspection.page_charts import Line, chart
from metarule.inspection.page_heat import heat_map
from metarule.inspection.page_parts import (
    Cell,
    Column,
    Row,
    between,
    counted,
    listed,
    missing,
    note,
    number,
    section,
    table,
    words,
)

Document = dict[str, Any]


def probes(document: Document) -> Html | None:
    """Angle to backprop, orthonormality, norms and activity per layer, over training."""
    found = document.get("probes")
    if not found:
        return None
    charts = [_curve(place, probe) for place, probe in enumerate(found["curves"])]
    curl = found.get("curl")
    said = list(found.get("sentences") or [])
    said += [curl["sentence"]] if curl and curl["sentence"] not in said else []
    said += [each["sentence"] for each in found.get("fixed_points") or [] if each["sentence"] not in said]
    size = f"{counted(found['episodes'], 'episode')}, 95 % bands." if found.get("episodes") else None
    return section(
        "probes", "Mechanism", listed(said), note(size), tag("div", *charts, class_="charts"),
        _contrasts(found.get("contrasts") or []),
    )  # fmt: skip


def _curve(place: int, probe: Document) -> Html:
    lines = [
        Line(words(layer), values["steps"], values["mean"], values.get("low") or (), values.get("high") or ())
        for layer, values in probe["layers"].items()
    ]
    unit = f" ({probe['unit']})" if probe.get("unit") else ""
    made = chart(f"probe{place}", f"{probe['label']}{unit}", lines, "step")
    said = probe.get("sentence")
    return tag("div", made, note(said)) if said else made


def _contrasts(rows: list[Row]) -> Html | None:
    if not rows:
        return None
    columns = (
        Column("term"), Column("probe"), Column("layer"), Column("with it", True), Column("without", True),
        Column("difference", True), Column("95 % interval", True),
    )  # fmt: skip
    lines: list[list[Cell]] = [
        [
            row["term"],
            words(row["probe"]),
            words(row["layer"]),
            (number(row["with"]), row["with"]),
            (number(row["without"]), row["without"]),
            (number(row["difference"]["mean"], sign=True), row["difference"]["mean"]),
            between(row["difference"], sign=True),
        ]
        for row in rows
    ]
    return table("What each term does to the probes", columns, lines, sortable=True)


def surfaces(document: Document) -> Html | None:
    """dW over two signals at a time, as maps."""
    found = (document.get("surfaces") or {}).get("surfaces")
    if not found:
        return None
    maps = [heat_map(f"surface{place}", surface) for place, surface in enumerate(found)]
    return section("surfaces", "Response surfaces", tag("div", *maps, class_="charts maps"))


def distilled(document: Document) -> Html | None:
    """Every rule as a short equation, with the share of its behaviour that is kept."""
    rows = document.get("distilled")
    if not rows:
        return None
    made = []
    for row in rows:
        parts = [formula(name, right) for _, name, right in sides(row["equation"])]
        shown = [part for part in parts if part is not None]
        equation = (
            tag("div", *shown, class_="equation") if len(shown) == len(parts) > 0 else tag("code", row["equation"])
        )
        share = f"keeps {100 * row['r2_held_out']:.1f} % of what it does on held-out signals"
        kept = f"{row['rule']}, by {row['by']}: {share}"
        made += [tag("h3", kept), equation]
    return section("distilled", "Distilled equations", *made)


def to_compute(document: Document, command: str) -> Html | None:
    """What is not on the page yet, each with the command that computes it."""
    closed = document.get("equation") or document.get("equations")  # an equation says more than its map
    lines = [
        missing(title, what, f"{command} {option}")
        for key, title, what, option in _TO_COMPUTE
        if not document.get(key) and not (closed and key in ("surfaces", "distilled"))
    ]
    return section("missing", "Not computed yet", *lines) if lines else None


_TO_COMPUTE = (
    ("stress", "Stress battery and knock-outs", "width, depth, other data, noise, order", "--stress"),
    ("probes", "Mechanism", "angle to backprop, curl, orthonormality, norms", "--probes"),
    ("surfaces", "Response surfaces", "the change over two signals at a time", "--surfaces"),
    ("distilled", "Distilled equations", "a short equation for what it does", "--distil"),
)
