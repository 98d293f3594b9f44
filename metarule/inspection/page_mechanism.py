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
    details,
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
    """Angle to backprop, orthonormality, norms and activity per layer, over training; what each term does to them."""
    found = document.get("probes")
    if not found:
        return None
    charts = [_curve(place, probe) for place, probe in enumerate(found["curves"])]
    curl, points, contrasts = found.get("curl"), found.get("fixed_points") or [], found.get("contrasts") or []
    drawn = [probe["sentence"] for probe in found["curves"]]
    apart = [*drawn, *(point["sentence"] for point in points)]
    every = [*(found.get("sentences") or []), *([curl["sentence"]] if curl else [])]
    leading = dict.fromkeys(sentence for sentence in every if sentence and sentence not in apart)
    return section(
        "probes", "Mechanism", listed(leading), _contrasts(contrasts),
        note(f"{counted(found['episodes'], 'episode')}; bands are 95 % intervals." if found.get("episodes") else None),
        tag("div", *charts, class_="charts"),
        details("Every curve and fixed point in words", listed(dict.fromkeys(filter(None, apart)))),
    )  # fmt: skip


def _curve(place: int, probe: Document) -> Html:
    lines = [
        Line(words(layer), values["steps"], values["mean"], values.get("low") or (), values.get("high") or ())
        for layer, values in probe["layers"].items()
    ]
    unit = f" ({probe['unit']})" if probe.get("unit") not in (None, "", "1") else ""
    return chart(f"probe{place}", f"{probe['label']}{unit}", lines, "step")


ALL_LAYERS = "mean of layers"
"""What a contrast's row that sums the layers up is called."""


def _contrasts(rows: list[Row]) -> Html | None:
    """The contrasts of whole networks, then those of single layers, for whoever opens them."""
    if not rows:
        return None
    whole = [row for row in rows if row["layer"] == ALL_LAYERS]
    caption = "What each term does to the probes"
    tables = [_contrast_table(f"{caption}, {ALL_LAYERS}", whole)] if whole else []
    return details("What each term does, in numbers", *tables, _contrast_table(f"{caption}, per layer", rows))


def _contrast_table(caption: str, rows: list[Row]) -> Html:
    layers = len({row["layer"] for row in rows}) > 1
    numbers = (
        Column("with it", True),
        Column("without", True),
        Column("difference", True),
        Column("95 % interval", True),
    )
    columns = [Column("term"), Column("beside", wide=True), Column("probe")] + [Column("layer")] * layers + [*numbers]
    lines: list[list[Cell]] = [
        [
            row["term"],
            ", ".join(row.get("to") or ()),
            words(row["probe"]),
            *([words(row["layer"])] * layers),
            (number(row["with"]), row["with"]),
            (number(row["without"]), row["without"]),
            (number(row["difference"]["mean"], sign=True), row["difference"]["mean"]),
            between(row["difference"], sign=True),
        ]
        for row in rows
    ]
    return table(caption, columns, lines, sortable=True)


def surfaces(document: Document) -> Html | None:
    """dW over two signals at a time, as maps."""
    made = document.get("surfaces") or {}
    found = made.get("surfaces") or []
    said = made.get("sentences") or []
    if not found and not said:
        return None
    several = len({surface["rule"] for surface in found}) > 1
    maps = [heat_map(f"surface{at}", surface, surface["rule"] * several) for at, surface in enumerate(found)]
    where = list(dict.fromkeys(words(surface["at"]) for surface in found if surface.get("at")))
    held = f"The change of a synapse of {', '.join(where)}; all other signals are held." if where else None
    return section(
        "surfaces",
        "Response surfaces",
        note(held),
        listed(said),
        tag("div", *maps, class_="charts maps") if maps else None,
    )


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
    if document.get("model"):  # has no rule that could be computed with
        return None
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
