"""JSON: all parts of a learner and their numbers, enough to build it again."""

from __future__ import annotations

import json
from typing import Any

import torch

from metarule.exporting.equations import meanings, provenance_of, where_from
from metarule.plugins import table_of
from metarule.portable import SCHEMA, Portable
from metarule.records import jsonable
from metarule.results import written


def as_json(known: Portable) -> str:
    """One document: `schema`, `equations`, all parts and their `numbers`, `plugins`, `provenance`, see `document`."""
    return json.dumps(jsonable(document(known)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def document(known: Portable) -> dict[str, Any]:
    """The learner as JSON values; `portable.rebuilt` makes it again."""
    found = written(known, torch.zeros(0))
    reads = {name for rule in known.rules.values() for name in rule.reads}
    return {
        "schema": SCHEMA,
        "name": known.name,
        "from": where_from(known),
        "source": known.source,
        "summary": known.summary,
        "equations": [each._asdict() for each in found],
        "signals": meanings(reads),
        "credit": table_of(known.credit),
        "rules": {key: table_of(rule) for key, rule in known.rules.items()},
        "synapses": {key: table_of(synapse) for key, synapse in known.synapses.items()},
        "numbers": dict(known.numbers),
        "network": {
            "populations": [population._asdict() for population in known.network.populations],
            "projections": [projection._asdict() for projection in known.network.projections],
            **{name: getattr(known.network, name) for name in ("output", "beta", "init", "init_scale")},
        },
        "plugins": list(known.plugins),
        "provenance": provenance_of(known),
    }
