"""The contracts of the six kinds of plug-ins, as plain functions: `metarule check` and the tests run the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metarule.contracts.base import Check
from metarule.contracts.credit import check_credit
from metarule.contracts.models import check_model
from metarule.contracts.outer import check_outer
from metarule.contracts.rules import check_rule
from metarule.contracts.synapses import check_synapse
from metarule.contracts.tasks import check_task
from metarule.plugins import ROOMS, load_plugin

__all__ = [
    "CHECKS",
    "Check",
    "check_credit",
    "check_model",
    "check_outer",
    "check_rule",
    "check_synapse",
    "check_task",
    "checked",
]

CHECKS: dict[str, Callable[[Any], Iterator[Check]]] = {
    "task": check_task,
    "credit": check_credit,
    "rule": check_rule,
    "synapse": check_synapse,
    "outer": check_outer,
    "model": check_model,
}
"""Room of a search file -> the contract of its plug-ins."""


def checked(path: Path) -> list[Check]:
    """Every property of every plug-in of a user's file, each built with its default settings.

    Raises ValueError where the file cannot be loaded or defines no plug-in.
    """
    found: list[Check] = []
    for name in load_plugin(str(path)):
        room, _, kind = name.partition(".")
        try:
            plugin = ROOMS[room][0][kind]()
        except (TypeError, ValueError) as error:
            found.append(Check(name, "can be built with its default settings", False, str(error)))
            continue
        found += CHECKS[room](plugin)
    return found
