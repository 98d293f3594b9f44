"""`algorithm = "NAME"` in a search file: a row of the zoo written out as the tables that the file leaves unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarule.learner import ANY
from metarule.plugins import SpecError, plug, table_of
from metarule.zoo import Algorithm, algorithm


def written_out(table: dict[str, Any]) -> dict[str, Any]:
    """The table with its `algorithm` replaced by [credit], [rules], [synapses], [network] and [start].

    What the file says itself wins: a key of a table over the row's, a `kind` of its own over the whole part and the
    numbers that belong to it. A table without an `algorithm` is returned as it is; raises SpecError on unknown names.
    """
    if "algorithm" not in table:
        return table
    name = table["algorithm"]
    if not isinstance(name, str):
        raise SpecError(f"algorithm = {name!r} must be the name of a row of the zoo, as in algorithm = 'backprop'")
    row = algorithm(name)
    own = {key: value for key, value in table.items() if key != "algorithm"}
    credit, replaced = _part("credit", table_of(row.credit), own.pop("credit", {}))
    dropped = ["credit."] if replaced else []
    parts: dict[str, Any] = {"credit": credit}
    for one, many, default, given in (
        ("rule", "rules", "forward", row.rules),
        ("synapse", "synapses", ANY, row.synapses),
    ):
        keyed = dict(own.pop(many, {}))
        if one in own:
            if default in keyed:
                raise SpecError(f"[{one}] and [{many}.{default}] say the same thing twice; keep one")
            keyed[default] = own.pop(one)
        written = {key: table_of(part) for key, part in given.items()}
        for key, said in keyed.items():
            written[key], replaced = _part(one, written.get(key, {}), said)
            dropped += [f"{one}." if key == ANY else f"{one}.{key}."] if replaced else []
        parts[many] = written
    start = {name: value for name, value in row.values.items() if not name.startswith(tuple(dropped))}
    network = _network(row, own) | own.pop("network", {})
    return own | parts | {"network": network, "start": start | flat("start", own.get("start", {}))}


def _part(room: str, written: Mapping[str, Any], said: Any) -> tuple[dict[str, Any], bool]:
    """The row's part with what the file says of it, and whether the file puts another kind in its place."""
    if not isinstance(said, dict):
        raise SpecError(f"{room} = {said!r} must be a table, as under [{room}]")
    if said.get("kind", written.get("kind")) != written.get("kind"):
        return dict(said), True
    return {**written, **said}, False


def _network(row: Algorithm, own: Mapping[str, Any]) -> dict[str, Any]:
    """What the row's host asks of a network, where it differs from a network's own defaults."""
    host = row.host
    asked: dict[str, Any] = {"bias": True, "activation": host.activation}
    asked |= {"init": host.init, "init_scale": host.init_scale}
    if host.hidden is not None:
        asked["hidden"] = list(host.hidden)
    if host.output and isinstance(own.get("task"), dict):
        wanted = plug("task", own["task"]).output
        asked["output"] = host.output.get(wanted, wanted)
    return asked


def flat(owner: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """A table of numbers whose keys may be dotted or nested, by dotted name; raises SpecError on anything else."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= {f"{key}.{rest}": number for rest, number in flat(f"{owner}.{key}", value).items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[key] = value
        else:
            raise SpecError(f"{owner}.{key} = {value!r} must be a number")
    return found
