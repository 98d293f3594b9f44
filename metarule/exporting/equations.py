"""What every export says of a rule: its equations, what their symbols mean, and where it comes from."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from typing import Any

import sympy
import torch

from metarule.glossary import MEANINGS
from metarule.inspection.provenance import provenance
from metarule.portable import Portable
from metarule.records import read_json
from metarule.results import Written, expressions, written

MEMORY = "what the synapse remembers from step to step"
"""The meaning of a symbol that is no signal."""


def equations(known: Portable, to: str) -> list[Written]:
    """Every equation of every rule; raises ValueError where there is none, `to` being what it was wanted for."""
    found = written(known, torch.zeros(0))
    if not found:
        kinds = ", ".join(f"'{rule.kind}'" for rule in known.rules.values())
        raise ValueError(
            f"{known.name}: rule {kinds} has no equation that could be written as {to}; metarule inspect --distil "
            "finds a short one of what it does, --to json keeps all of its numbers"
        )
    return found


def changes(known: Portable) -> dict[str, dict[str, sympy.Expr]]:
    """Rule key -> its equations by name, as expressions."""
    return {key: parts for key, parts in expressions(known, torch.zeros(0)).items() if parts}


def symbols(known: Portable) -> set[str]:
    """Names of all symbols of all equations."""
    parts = (part for named in changes(known).values() for part in named.values())
    return {str(symbol) for part in parts for symbol in part.free_symbols}


def meanings(symbols: Iterable[str]) -> dict[str, str]:
    """What symbols stand for, in the order of the vocabulary."""
    asked = set(symbols)
    known = {name: meaning.text for name, meaning in MEANINGS.items() if name in asked}
    return known | dict.fromkeys(sorted(asked - known.keys()), MEMORY)


def provenance_of(known: Portable) -> dict[str, Any] | None:
    """The command that finds a run's rule again, its search, seeds and versions; None for a row of the zoo."""
    if known.document is not None:
        return known.document["provenance"]
    if known.path is None or not (known.path / "spec.json").is_file():
        return None
    return provenance(known.path, read_json(known.path / "spec.json"))


def where_from(known: Portable) -> list[str]:
    """Sentences that say which learner this is and what it was written by."""
    if known.document is not None:
        return [" ".join(sentence.split()) for sentence in known.document["from"]]
    version = importlib.metadata.version("metarule")
    origin = f"found by the search in {known.path}" if known.path else f"the row '{known.name}' of the zoo"
    again = provenance_of(known)
    source = [f"After {known.source}."] if known.source else []
    rules = ", ".join(dict.fromkeys(f"'{rule.kind}' ({rule.source})" for rule in known.rules.values()))
    return [
        f"Written by metarule {version}: {origin}.",
        *([f"Search of SHA-256 {again['search_sha256'][:16]}; the same again: {again['command']}"] if again else []),
        *source,
        f"Credit assignment '{known.credit.kind}' ({known.credit.source}), rule {rules}.",
    ]
