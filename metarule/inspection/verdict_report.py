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
            {"class": name, "probability": chance, "in prediction set": "yes" if name in inside else ""}
            for name, chance in list(verdict["probabilities"].items())[:SHOWN]
        ]
        parts.append(plain_table("Discriminative", rows))
    if verdict["replay"]:
        rows = [
            {name: row[name] for name in ("rule", "explained", "weakest", "scale")} for row in verdict["replay"][:SHOWN]
        ]
        parts.append(plain_table("Replay", rows))
    domain = {
        name: f"{_short(entry['value'])}, bank {_short(entry['low'])} to {_short(entry['high'])}"
        f"{'' if entry['inside'] else '  OUTSIDE'}"
        for name, entry in verdict["domain"].items()
    }
    parts.append(settings_table("Domain", domain))
    used = verdict["used"]
    parts.append(f"Used: {used['snapshots']} snapshots, {used['single_updates']} single updates,")
    parts.append(f"  {', '.join(used['present'])}; missing: {', '.join(used['missing']) or 'nothing'}.")
    reasons: dict[str, list[str]] = {}
    for name, reason in used["switched_off"].items():
        reasons.setdefault(reason, []).append(name)
    if reasons:
        parts.append(settings_table("Switched off", {reason: ", ".join(names) for reason, names in reasons.items()}))
    parts += [Text(f"warning: {sentence}", style="yellow") for sentence in verdict["warnings"]]
    parts += [Text(f"would help: {sentence}") for sentence in verdict["would_help"]]
    return Group(*parts)


def _short(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4g}"
