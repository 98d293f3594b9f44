"""The look that all tables of the terminal share."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

Rows = list[dict[str, Any]]


def titled(title: str) -> Table:
    """An empty table with its title at the left."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)


def number(value: float | None, sign: bool = False) -> str:
    """Three decimals, a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:+.3f}" if sign else f"{value:.3f}"
