"""Plug-ins by name: a table of a search file becomes an object, and a wrong name or value becomes a sentence."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import math
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pydantic

from metarule.collect import join, load_file, members, unknown
from metarule.credit import CREDIT, CreditAssignment
from metarule.models import MODELS, Model
from metarule.outer import OUTER, OuterLoop
from metarule.rules import RULES, Rule
from metarule.synapses import SYNAPSES, SynapseModel
from metarule.tasks import TASKS, Task

ROOMS: dict[str, tuple[dict[str, Any], type]] = {
    "task": (TASKS, Task),
    "credit": (CREDIT, CreditAssignment),
    "rule": (RULES, Rule),
    "synapse": (SYNAPSES, SynapseModel),
    "outer": (OUTER, OuterLoop),
    "model": (MODELS, Model),
}
"""Table of a search file -> the registry and the interface of its plug-ins."""


GROUP = "metarule.plugins"
"""Entry points under which installed packages offer modules with plug-ins."""


class SpecError(ValueError):
    """A mistake in a search file, an override or a name: the user's to mend, exit code 2."""


def load_plugin(path: str) -> list[str]:
    """Load a user's file and let its plug-ins join their rooms; returns their kinds as 'room.kind'."""
    return _joined(load_file(path), f"plug-in file {path}")


@functools.cache
def load_installed() -> tuple[str, ...]:
    """Let the plug-ins of installed packages join their rooms, once; returns their kinds as 'room.kind'."""
    points = importlib.metadata.entry_points(group=GROUP)
    return tuple(kind for point in points for kind in _joined(point.load(), f"entry point {point.name} of {GROUP}"))


def _joined(module: ModuleType, owner: str) -> list[str]:
    found = []
    for room, (registry, base) in ROOMS.items():
        classes = members(module, base)
        join(registry, classes)
        found += [f"{room}.{member.kind}" for member in classes]
    if not found:
        bases = ", ".join(base.__name__ for _, base in ROOMS.values())
        raise SpecError(f"{owner} defines no concrete {bases} with a `kind`")
    return found


def plug(room: str, table: dict[str, Any], owner: str | None = None, also: tuple[str, ...] = ()) -> Any:
    """The plug-in that a table with a `kind` describes; `also` are keys of the same table that were taken out."""
    owner = owner or room
    registry, _ = ROOMS[room]
    if not isinstance(table, dict):
        raise SpecError(f"{owner} = {table!r} must be a table with a key 'kind'")
    if "kind" not in table:
        raise SpecError(f"{owner}.kind is missing; it is one of {', '.join(sorted(registry))}")
    if not isinstance(table["kind"], str) or table["kind"] not in registry:
        raise SpecError(unknown(f"{owner}.kind", str(table["kind"]), registry))
    return build(registry[table["kind"]], {key: value for key, value in table.items() if key != "kind"}, owner, also)


def build(kind: type, table: dict[str, Any], owner: str, also: tuple[str, ...] = ()) -> Any:
    """An instance of a settings dataclass from a table, and of those in its lists.

    Unknown and missing keys, wrong types and numbers that are not finite are named.
    """
    if not isinstance(table, dict):
        raise SpecError(f"{owner} = {table!r} must be a table")
    hints = typing.get_type_hints(kind)
    names = [spec.name for spec in settings(kind)]
    values = {}
    for key, value in table.items():
        if key not in names:
            allowed = (*names, *also)
            if key in _params(kind):
                part = "rule.forward" if owner == "rule" else owner.replace("s.", ".", 1)
                raise SpecError(
                    f"{owner}.{key} is a number that searches move, not a setting; give start.{part}.{key} (where it "
                    f"starts) or fixed.{part}.{key} (where it stays)"
                )
            raise SpecError(unknown(f"a key of {owner}", key, allowed) if allowed else f"{owner} has no key '{key}'")
        values[key] = _value(hints[key], value, f"{owner}.{key}")
    for spec in settings(kind):
        if spec.name not in values and spec.default is spec.default_factory is dataclasses.MISSING:
            raise SpecError(f"{owner}.{spec.name} is missing; it must be {_spelled(hints[spec.name])}")
    return kind(**values)


def _params(kind: Any) -> set[str]:
    """Names of the parameters that a kind of plug-in has with its default settings."""
    try:
        return {param.name for param in kind().params}
    except (AttributeError, TypeError, ValueError):
        return set()


def _value(hint: Any, value: Any, owner: str) -> Any:
    inside = next(iter(typing.get_args(hint)), None)
    if dataclasses.is_dataclass(inside) and isinstance(inside, type) and isinstance(value, (list, tuple)):
        return tuple(build(inside, part, f"{owner}[{place}]") for place, part in enumerate(value))
    if dataclasses.is_dataclass(inside):
        raise SpecError(f"{owner} = {value!r} must be a list of tables")
    try:
        found = pydantic.TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        said = error.errors()[0]["msg"].lower()
        raise SpecError(f"{owner} = {value!r} does not fit {_spelled(hint)}: {said}") from error
    except (TypeError, ValueError) as error:  # a date, which TOML has and JSON has not, or an endless integer
        raise SpecError(f"{owner} = {value!r} does not fit {_spelled(hint)}") from error
    for name, number in _numbers(found, owner):
        if not math.isfinite(number):
            raise SpecError(f"{name} = {number} must be a finite number")
    return found


def _numbers(value: Any, owner: str) -> Iterator[tuple[str, float]]:
    """Every float in a value with its dotted key."""
    if isinstance(value, float):
        yield owner, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, f"{owner}.{key}")
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            yield from _numbers(part, f"{owner}[{place}]")


def settings(kind: Any) -> list[dataclasses.Field]:
    """The settings of a part: the fields its constructor takes."""
    return [spec for spec in dataclasses.fields(kind) if spec.init] if dataclasses.is_dataclass(kind) else []


def table_of(part: Any) -> dict[str, Any]:
    """A part as a table: its kind and every setting."""
    table = {"kind": part.kind} if hasattr(part, "kind") else {}
    return table | {spec.name: _written(getattr(part, spec.name)) for spec in settings(part)}


def _written(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(table_of(each) if dataclasses.is_dataclass(each) else each for each in value)
    return value


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
