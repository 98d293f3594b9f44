"""Sections of an inspection that took long to compute, kept in the run's folder and dropped once its rule moved on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from metarule.records import RunError, read_json

SECTIONS = ("card", "probes", "stress", "surfaces", "distilled")
"""What may be kept, in the order in which it is shown."""

FOLDER = "inspection"

SCHEMA = 1
"""Goes up where a section gets keys that its reports cannot do without: those kept before are then computed anew."""


def rule_id(theta: dict[str, float]) -> str:
    """What the numbers of a rule are called: a section belongs to one rule."""
    return hashlib.sha256(json.dumps(theta, sort_keys=True).encode()).hexdigest()[:16]


def kept(run: Path, theta: dict[str, float]) -> dict[str, Any]:
    """Section -> what was kept of it for the rule with these numbers; a damaged or older one is as good as none."""
    found = {}
    for name in SECTIONS:
        file = run / file_of(name)
        if not file.exists():
            continue
        try:
            document = read_json(file)
        except RunError:
            continue
        own = document.get("rule") == rule_id(theta) and document.get("schema", 1) == SCHEMA
        if own and "section" in document:
            found[name] = document["section"]
    return found


def written(theta: dict[str, float], section: Any) -> dict[str, Any]:
    """The content of a section's file."""
    return {"schema": SCHEMA, "rule": rule_id(theta), "section": section}


def file_of(name: str) -> str:
    """A section's file in the run's folder."""
    return f"{FOLDER}/{name}.json"
