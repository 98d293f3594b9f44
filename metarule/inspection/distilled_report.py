"""Distilled equations as terminal text: the equation, how it was found, the share of the behaviour that it keeps."""

from __future__ import annotations

from typing import Any

from rich.text import Text


def distilled_lines(rows: list[dict[str, Any]]) -> list[Text]:
    """A line per rule, and one of what it does on its own task where it is a black box."""
    lines = []
    for row in rows:
        if row["by"] == "itself":
            lines.append(Text(f"{row['rule']}, in its own words: {row['equation']}"))
            continue
        lines.append(Text(f"{row['rule']}, by {row['by']}: {row['equation']}; keeps {_kept(row)} on random signals"))
        there = row.get("on_task")
        if there:
            lines.append(
                Text(
                    f"  on the signals of its task, at {there['at']}, that keeps {_percent(there['share'])}; distilled "
                    f"there, by {there['by']}: {there['equation']}; keeps {_kept(there)}"
                )
            )
    return lines


def _kept(row: dict[str, Any]) -> str:
    return f"{_percent(row['r2_held_out'])} of what it does (held out)"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
