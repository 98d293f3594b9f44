"""HTML made of pieces: what is text is always escaped, so that no name of a run or a signal can be markup."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from metarule.records import jsonable


class Html(str):
    """Text that is markup already; every other string is escaped where it is put into a page."""

    __slots__ = ()


VOID = frozenset({"meta", "link", "br", "wbr", "path", "line", "rect", "mspace", "col"})
"""Elements that hold nothing."""


def tag(name: str, /, *children: str | None, **attributes: str | int | bool | None) -> Html:
    """An element; `class_` is class, `aria_label` aria-label, an attribute None or False is left out."""
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value not in (None, False))
    if name in VOID:
        return Html(f"<{name}{written}/>" if name in ("path", "line", "rect", "mspace") else f"<{name}{written}>")
    return Html(f"<{name}{written}>{''.join(map(escaped, children))}</{name}>")


def escaped(text: str | None) -> str:
    """Markup as it is, anything else with <, >, & and quotes written out."""
    if text is None:
        return ""
    return text if isinstance(text, Html) else html.escape(text, quote=True)


def together(parts: Iterable[str | None]) -> Html:
    """Pieces one after the other."""
    return Html("".join(map(escaped, parts)))


def joined(between: str, parts: Iterable[str]) -> list[str]:
    """Pieces with something between each two."""
    found: list[str] = []
    for place, part in enumerate(parts):
        found += [between, part] if place else [part]
    return found


def embedded(identifier: str, value: Any) -> Html:
    """JSON values for a script to read; no "<" in them can end the element."""
    text = json.dumps(jsonable(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Html(f'<script type="application/json" id="{html.escape(identifier)}">{text}</script>')


def _attribute(key: str, value: str | int | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'
