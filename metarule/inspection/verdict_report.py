"""A verdict as terminal text: the answer in a paragraph, then what each witness said."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from metarule.inspection.report import plain_table, settings_table

SHOWN = 6
"""Probabilities and replayed rules shown; --json has all."""


def verdict_report(title: str, verdict: dict[str, Any]) -> RenderableType:
    """What `metarule classify` shows; the document is `Verdict.table()`."""
    parts: list[RenderableType] = [Text(f"{title}\n"), Text(verdict["summary"], style="bold")]
    equation = verdict["equation"]
    if equation:
        parts.append(Text(f"\n{equation['text']}"))
    if verdict["probabilities"]:
        inside = set(verdict["prediction_set"])
        rows = [
            {"class": name, "probability": f"{chance:.3f}", "in prediction set": "yes" if name in inside else ""}
            for name, chance in list(verdict["probabilities"].items())[:SHOWN]
        ]
        parts.append(plain_table("Discriminative", rows))
    if verdict["replay"]:
        shown = ("rule", "explained", "weakest", "scale", "says")
        rows = [{name: row[name] for name in shown} for row in verdict["replay"][:SHOWN]]
        parts.append(plain_table("Replay", rows))
    parts.append(settings_table("Domain", {name: _place(entry) for name, entry in verdict["domain"].items()}))
    used = verdict["used"]
    parts.append(
        Text(
            f"Used: {used['snapshots']} snapshots ({used['snapshots_for_trees']} by the trees), "
            f"{used['single_updates']} single updates; "
            f"{', '.join(used['parts'])}; missing: {', '.join(used['missing']) or 'nothing'}."
        )
    )
    reasons: dict[str, list[str]] = {}
    for name, reason in (used["switched_off"] | used["not_replayed"]).items():
        reasons.setdefault(reason, []).append(name)
    if reasons:
        parts.append(settings_table("Switched off", {reason: ", ".join(names) for reason, names in reasons.items()}))
    parts += [Text(f"warning: {sentence}", style="yellow") for sentence in verdict["warnings"]]
    parts += [Text(f"would help: {sentence}") for sentence in verdict["would_help"]]
    return Group(*parts)


def _place(entry: dict[str, Any]) -> str:
    """A covariate beside the bank's range."""
    value = entry["value"]
    said = "unknown" if value is None else value if isinstance(value, str) else f"{value:.4g}"
    allowed = ", ".join(entry["allowed"]) if "allowed" in entry else f"{entry['low']:.4g} to {entry['high']:.4g}"
    return f"{said}; bank: {allowed}{'  OUTSIDE' if entry['inside'] is False else ''}"
