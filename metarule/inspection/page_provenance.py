"""Where a result comes from, on a page: the command that gives it again, versions, seeds, the whole search."""

from __future__ import annotations

import json
from typing import Any

from metarule.inspection.markup import Html, tag, together
from metarule.inspection.page_parts import copied, details, facts, section


def provenance(document: dict[str, Any]) -> Html | None:
    """Command to copy, versions, seeds, and the search as text that TOML readers take."""
    found = document.get("provenance")
    if not found:
        return None
    versions, seeds = (
        [(name, str(value)) for name, value in (found.get(key) or {}).items()] for key in ("versions", "seeds")
    )
    digest = found.get("search_sha256")
    return section(
        "provenance", "Provenance",
        copied("command", found["command"]) if found.get("command") else None,
        together([tag("h3", "Versions"), facts(versions)]) if versions else None,
        together([tag("h3", "Seeds"), facts(seeds)]) if seeds else None,
        details("The whole search", copied("search.toml", toml(found["search"]))) if found.get("search") else None,
        copied("sha256 of the search", digest) if digest else None,
    )  # fmt: skip


def toml(values: dict[str, Any], owner: str = "") -> str:
    """Nested settings as TOML; what is None is left out, as in a search file."""
    plain = {key: value for key, value in values.items() if value is not None and not isinstance(value, dict)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    text = "\n".join(([f"[{owner}]"] if owner and lines else []) + lines)
    parts = [text] if text else []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            parts.append(toml(value, f"{owner}.{_key(key)}" if owner else _key(key)))
    return "\n\n".join(part for part in parts if part)


def _key(key: str) -> str:
    return key if key.replace("_", "a").replace("-", "a").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_value(part)}" for key, part in value.items() if part is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(part) for part in value if part is not None)}]"
    return json.dumps(value, ensure_ascii=False)
