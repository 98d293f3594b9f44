"""What there is: every plug-in, search file and run, as JSON values for `metarule list`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metarule.collect import unknown
from metarule.credit import CREDIT
from metarule.identification.reference import REFERENCE, family
from metarule.inner import ENGINES
from metarule.inspection.numbers import found
from metarule.models import MODELS
from metarule.outer import OUTER
from metarule.plugins import settings
from metarule.reading import shipped, simulations
from metarule.records import RunError
from metarule.rules import RULES
from metarule.synapses import SYNAPSES
from metarule.tasks import TASKS
from metarule.tasks.images import IMAGES
from metarule.terms import TERMS
from metarule.unrolled import Unrolled
from metarule.zoo import GROUPS

Member = dict[str, Any]
"""{name, source, summary, ...}: one thing that a search file, an option or a command can name."""


def catalog(kind: str | None = None, runs_dir: Path = Path("runs")) -> list[dict[str, Any]]:
    """{kind, members} per room, or of one room; raises ValueError naming the nearest where there is no such room."""
    if kind is not None and kind not in ROOMS:
        raise ValueError(unknown("list", kind, ROOMS))
    rooms = {kind: ROOMS[kind]} if kind else ROOMS
    return [{"kind": name, "members": members(runs_dir)} for name, members in rooms.items()]


def _plugins(registry: Mapping[str, Any]) -> list[Member]:
    return [_plugin(name, member) for name, member in registry.items()]


def _plugin(name: str, member: Any) -> Member:
    entry: Member = {"name": name, "source": getattr(member, "source", None), "summary": _summary(member)}
    fields = settings(member)
    entry["settings"] = [field.name for field in fields]
    if all(_has_default(field) for field in fields) and hasattr(member, "params"):
        entry["params"] = [param.name for param in member().params]
    return entry


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _summary(member: Any) -> str:
    return (inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " ")


def _images(runs_dir: Path) -> list[Member]:
    return [{"name": name, "source": None, "summary": f"images = '{name}'"} for name in IMAGES]


def _zoo(runs_dir: Path) -> list[Member]:
    return [
        {
            "name": name,
            "source": row.source,
            "summary": row.summary,
            "group": group,
            "credit": row.credit.kind,
            "rule": row.rule.kind,
            "synapse": row.synapse.kind,
        }
        for group, members in GROUPS.items()
        for name, row in members.items()
    ]


def _terms(runs_dir: Path) -> list[Member]:
    return [
        {
            "name": name,
            "source": None,
            "summary": str(term.expression).replace("**2", "²").replace("*", "·"),
            "local": term.local,
            "reads": sorted(term.reads),
        }
        for name, term in TERMS.items()
    ]


def _files(found: Mapping[str, Path]) -> list[Member]:
    return [
        {"name": name, "source": str(path), "summary": path.read_text().split("\n", 1)[0].removeprefix("#").strip()}
        for name, path in found.items()
    ]


def _searches(runs_dir: Path) -> list[Member]:
    return _files(shipped())


def _simulations(runs_dir: Path) -> list[Member]:
    return _files(simulations())


def _classes(runs_dir: Path) -> list[Member]:
    return [
        {"name": name, "source": row.source, "summary": row.summary, "family": family(name)}
        for name, row in REFERENCE.items()
    ]


def _runs(runs_dir: Path) -> list[Member]:
    return [
        {"name": path.parent.name, "source": str(path.parent), "summary": _found(path.parent)}
        for path in sorted(runs_dir.glob("*/spec.json"))
    ]


def _found(path: Path) -> str:
    """What a run found, or how far it is; that it is damaged where its files cannot be read."""
    try:
        run = found(path)
        return run["equation"] or f"not finished: {run['generations']} of {run['planned']} generations"
    except (RunError, LookupError, TypeError, AttributeError, ValueError) as error:
        return f"damaged: {error}"


def _registry(registry: Mapping[str, Any]) -> Callable[[Path], list[Member]]:
    return lambda runs_dir: _plugins(registry)


ROOMS: dict[str, Callable[[Path], list[Member]]] = {
    "tasks": _registry(TASKS),
    "images": _images,
    "credit": _registry(CREDIT),
    "rules": _registry(RULES),
    "terms": _terms,
    "synapses": _registry(SYNAPSES),
    "outer": _registry(OUTER),
    "models": _registry(MODELS),
    "engines": _registry({**ENGINES, Unrolled.name: Unrolled}),
    "zoo": _zoo,
    "searches": _searches,
    "simulations": _simulations,
    "classes": _classes,
    "runs": _runs,
}
"""Room -> its members."""
