"""A bank's model card as terminal text: what it is made of, and every figure that it was tested with."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from metarule.inspection.report import document_report, settings_table


def card_report(card: dict[str, Any]) -> RenderableType:
    """What `metarule bank info` shows; one line per figure, 95 % intervals in brackets."""
    parts: list[RenderableType] = [document_report("bank", {k: v for k, v in card.items() if k != "figures"})]
    for name, figures in card.get("figures", {}).items():
        found = {"command": figures} if not isinstance(figures, dict) else figures
        parts.append(settings_table(f"Figures: {name}", _flat(found)))
    return Group(*parts)


def _flat(values: dict[str, Any], owner: str = "") -> dict[str, Any]:
    """Nested figures as one line each: "held out, width 64, accuracy" -> "0.974 [0.954, 0.990]"."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{owner}, {name}" if owner else name
        found |= _flat(value, where) if isinstance(value, dict) else {where: Text(_shown(value))}
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) == 3 and all(isinstance(each, float) for each in value):
        return f"{value[0]:.3g} [{value[1]:.3g}, {value[2]:.3g}]"
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
