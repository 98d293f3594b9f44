"""A search over structure: choices for keys of a search file, and the plain tables that their combinations are."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.family import Family, Structure
from metarule.learner import ANY, READOUT
from metarule.named_row import flat, keyed, written_out
from metarule.params import Param
from metarule.plugins import ROOMS, SpecError, settings
from metarule.zoo import algorithm

HEADS = ("algorithm", "network", "credit", "rule", "rules", "synapse", "synapses")
"""What a key of [structure] may begin with: the tables that make a learner."""

MOST = 512
"""Structures of one search at most: a learner of each is built."""

Table = dict[str, Any]


class Structural(NamedTuple):
    """A categorical parameter per key of [structure], and the plain table of every combination of their choices."""

    choices: tuple[Param, ...]
    tables: dict[Structure, Table]


def structural(table: Table) -> Structural:
    """Every combination of the values under [structure], each with `algorithm` written out.

    What another structure's kind of credit, rule or synapse model has a setting for and this one's has not is left
    out, and so are the rules and synapse models of projections that only another's kind of credit makes.
    Raises SpecError on keys and values that cannot vary.
    """
    varied = _varied(table)
    given = dict(flattened({key: part for key, part in table.items() if key in HEADS}))
    for key in varied:
        for other in given:
            if _overlap(key, other):
                raise SpecError(f"{other} is given twice, by itself and as structure.'{key}'; keep one")
    named = {key: {spelled(value): value for value in values} for key, values in varied.items()}
    choices = tuple(Param(key, choices=tuple(values)) for key, values in named.items())
    tables = {
        structure: _plain(table, {key: named[key][name] for key, name in zip(named, structure, strict=True)})
        for structure in itertools.product(*named.values())
    }
    return Structural(choices, _fitting(tables))


def spelled(value: Any) -> str:
    """A value as the name of a choice."""
    return value if isinstance(value, str) else json.dumps(value)


def flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested tables by its dotted key."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _varied(table: Table) -> dict[str, list[Any]]:
    varied = dict(flattened(table["structure"]))
    if not varied:
        raise SpecError("[structure] is empty; give keys of this file with lists of values, or leave it out")
    for key, values in varied.items():
        if key.partition(".")[0] not in HEADS:
            raise SpecError(f"structure.'{key}' cannot vary: a key begins with one of {', '.join(HEADS)}")
        if not isinstance(values, list) or not values:
            raise SpecError(f"structure.'{key}' = {values!r} must be a list of values to choose from")
        if key in HEADS and key != "algorithm" and not all(isinstance(value, dict) for value in values):
            raise SpecError(f"structure.{key} = {values!r} must be a list of tables, as under [{key}]")
        if len({spelled(value) for value in values}) < len(values):
            raise SpecError(f"structure.'{key}' = {values!r} names a value twice")
    for key, other in itertools.combinations(varied, 2):
        if _overlap(key, other):
            raise SpecError(f"structure.'{key}' and structure.'{other}' say the same thing twice; keep one")
    count = math.prod(len(values) for values in varied.values())
    if count > MOST:
        raise SpecError(f"[structure] has {count} combinations, and {MOST} are allowed; give fewer values")
    return varied


def _overlap(key: str, other: str) -> bool:
    """Whether one dotted key is the other, or a table that holds it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _plain(table: Table, chosen: Mapping[str, Any]) -> Table:
    """The table with its choices made, its rules and synapse models by key."""
    plain = copy.deepcopy({key: part for key, part in table.items() if key not in ("structure", "known")})
    for key, value in chosen.items():
        *parents, last = key.split(".")
        place = plain
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    plain = written_out(plain)
    for one, many, default in (("rule", "rules", "forward"), ("synapse", "synapses", ANY)):
        found = keyed(plain, one, many, default)
        plain.pop(one, None)
        plain[many] = found
    return plain


def _fitting(tables: dict[Structure, Table]) -> dict[Structure, Table]:
    """The tables without what only others of them have a place for."""
    roles = {role for plain in tables.values() for role in _roles(plain)}
    for plain in tables.values():
        for many in ("rules", "synapses"):
            plain[many] = {k: part for k, part in plain[many].items() if k not in roles or k in _roles(plain)}
    anywhere: dict[str, set[str]] = {}
    for plain in tables.values():
        for owner, room, part in _parts(plain):
            anywhere.setdefault(owner, set()).update(_settings(room, part))
    for plain in tables.values():
        for owner, room, part in _parts(plain):
            for key in anywhere[owner] - _settings(room, part):
                part.pop(key, None)
    return tables


def _parts(plain: Table) -> Iterator[tuple[str, str, Table]]:
    """(dotted place, room, table) of every part that has a kind."""
    if isinstance(plain.get("credit"), dict):
        yield "credit", "credit", plain["credit"]
    for room in ("rule", "synapse"):
        for key, part in plain[f"{room}s"].items():
            if isinstance(part, dict):
                yield f"{room}s.{key}", room, part


def _settings(room: str, part: Table) -> set[str]:
    kind = part.get("kind")
    registry = ROOMS[room][0]
    if not isinstance(kind, str) or kind not in registry:
        raise SpecError(unknown(f"{room}.kind", str(kind), registry))
    return {"kind", *(spec.name for spec in settings(registry[kind]))}


def _roles(plain: Table) -> frozenset[str]:
    """The roles of projections that its kind of credit makes plastic."""
    kind = plain.get("credit", {}).get("kind", "backprop")
    registry = ROOMS["credit"][0]
    return registry[kind].plastic_roles if kind in registry else frozenset()


def fitted(structure: Structure, built: Callable[..., Any], plain: Table, *more: Any) -> Any:
    """The plain search of a structure, each rule without what its kind of credit does not serve.

    `fixed` and `start` keep what the structure has. Raises SpecError that names the structure where it cannot be.
    """
    search = built(plain, *more)
    try:
        network = search.network.build(search.task)
        projections = network.projections + search.credit.projections(network)
        rules = {}
        for key, rule in search.rules.items():
            own = "forward" if key == READOUT else key
            served = [projection for projection in projections if own in (projection.name, projection.role, ANY)]
            given = [search.credit.gives_at(network, projection) for projection in served]
            rules[key] = rule.fitted(frozenset.intersection(*given)) if given else rule
        search = replace(search, rules=rules, fixed={}, start={})
        names = {param.name for param in search.learner.all_params}
        numbers = {owner: flat(owner, plain.get(owner, {})) for owner in ("fixed", "start")}
        kept = {owner: {n: float(v) for n, v in each.items() if n in names} for owner, each in numbers.items()}
        search = replace(search, **kept)
        _ = search.learner.params  # refused here, where the structure is known
        return search
    except ValueError as error:
        raise SpecError(f"structure '{', '.join(structure)}': {error}") from error


def known_somewhere(table: Table, searches: Iterable[Any]) -> None:
    """Raises SpecError on a number under [fixed] or [start] that no structure has."""
    names = {param.name for search in searches for param in search.learner.all_params}
    for owner in ("fixed", "start"):
        for name in flat(owner, table.get(owner, {})):
            if name not in names:
                raise SpecError(unknown(owner, name, names))


def known_row(family: Family, place: int, written: Table) -> Float[Tensor, "P"]:
    """A known rule as a row of theta: its structure by the keys of [structure], its numbers by parameter.

    What it does not say is at its first choice and at its start. `algorithm`, where it does not vary, gives those
    numbers of a row of the zoo that the learner has too.
    """
    said = dict(flattened(written))
    owner = f"known[{place}]"
    structure = []
    for param in family.choices:
        name = spelled(said.pop(param.name, param.choices[0]))
        if name not in param.choices:
            raise SpecError(unknown(f"{owner}.'{param.name}'", name, param.choices))
        structure.append(name)
    params = {param.name: param for param in family.build[tuple(structure)].params}
    values: dict[str, float] = {}
    if "algorithm" in said:
        row = algorithm(said.pop("algorithm"))
        values = {name: number for name, number in row.values.items() if name in params}
        if not values:
            raise SpecError(f"{owner}.algorithm: no number of that row is a parameter of this search")
    for name, value in said.items():
        if name not in params:
            allowed = {"algorithm", *(param.name for param in family.choices), *params}
            raise SpecError(unknown(f"a key of {owner}", name, allowed))
        values[name] = _value(f"{owner}.{name}", params[name], value)
    return family.row(tuple(structure), values)


def _value(owner: str, param: Param, value: Any) -> float:
    if param.choices:
        if value not in param.choices:
            raise SpecError(unknown(owner, str(value), param.choices))
        return float(param.choices.index(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError(f"{owner} = {value!r} must be a number")
    if not math.isfinite(value):
        raise SpecError(f"{owner} = {value} must be a finite number")
    if not param.low <= value <= param.high:
        raise SpecError(f"{owner} = {value} lies outside [{param.low}, {param.high}]")
    return float(value)
