"""Mechanism probes as terminal text: every curve's start and end, rests, terms, and in sentences what they mean."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metarule.inspection.probe_words import between, number
from metarule.inspection.report import plain_table


def probes_report(section: dict[str, Any]) -> RenderableType:
    """What `metarule inspect --probes` shows."""
    parts: list[RenderableType] = [curves_table(section)]
    for found, table in ((section["fixed_points"], rests_table), (section["contrasts"], contrasts_table)):
        if found:
            parts.append(table(found))
    tabulated = {each["sentence"] for each in (*section["curves"], *section["fixed_points"])}
    parts += [Text(f"• {sentence}") for sentence in section["sentences"] if sentence not in tabulated]
    return Group(*parts)


def curves_table(section: dict[str, Any]) -> Table:
    """One line per curve and layer: before learning, half way, at the end with its interval."""
    rows = []
    for curve in section["curves"]:
        for place, (layer, series) in enumerate(curve["layers"].items()):
            unit = "" if curve["unit"] == "1" else f", {curve['unit']}"
            last = {key: series[key][-1] for key in ("mean", "low", "high")}
            rows.append(
                {
                    "probe": "" if place else f"{curve['label']}{unit}",
                    "layer": layer,
                    "before": number(series["mean"][0]),
                    "on the way": number(series["mean"][len(series["mean"]) // 2]),
                    "at the end": between(last),
                }
            )
    return plain_table(f"Probes over {section['steps']} steps, mean [95 %] of {section['episodes']} episodes", rows)


def rests_table(found: list[dict[str, Any]]) -> Table:
    """Where the weights of each layer would come to rest."""
    rows = [
        {
            "layer": each["layer"],
            "mean change per step": between(each["drift"]),
            f"of that at step {each['since']}": between(each["drift_ratio"]),
            "|w|": between(each["norm"]),
            "|w| at rest": between(each["rest"]),
        }
        for each in found
    ]
    return plain_table("Fixed points: the drift that is left, and the length at which it would not change", rows)


def contrasts_table(found: list[dict[str, Any]]) -> Table:
    """One line per term, kind and probe, means of the hidden layers; single layers are in the document."""
    rows = [
        {
            "term": row["term"],
            "kind": row["kind"],
            "probe": row["probe"].replace("_", " "),
            "with it": number(row["with"]),
            "without": number(row["without"]),
            "difference": between(row["difference"], sign=True),
        }
        for row in found
        if row["layer"] == "mean of layers"
    ]
    return plain_table("Terms: with and without, paired on the same episodes, mean of layers", rows)
