"""`algorithm = "NAME"` in a search file: a row of the zoo written out as the tables that the file leaves unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarule.learner import ANY, owner_of
from metarule.plugins import SpecError, plug, table_of
from metarule.zoo import Algorithm, algorithm


def written_out(table: dict[str, Any]) -> dict[str, Any]:
    """The table with its `algorithm` replaced by [credit], [rules], [synapses], [network] and [start].

    What the file says itself wins: a key of a table over the row's, a `kind` of its own over the whole part. The row's
    numbers stay where the part still has them; with another kind of credit, the rules of projections that only the
    row's made fall away. A table without an `algorithm` is returned as it is; raises SpecError on unknown names.
    """
    if "algorithm" not in table:
        return table
    name = table["algorithm"]
    if not isinstance(name, str):
        raise SpecError(f"algorithm = {name!r} must be the name of a row of the zoo, as in algorithm = 'backprop'")
    row = algorithm(name)
    own = {key: value for key, value in table.items() if key != "algorithm"}
    credit = _merged("credit", table_of(row.credit), own.pop("credit", {}))
    made = set(row.credit.plastic_roles) if credit["kind"] != row.credit.kind else set()
    rules = _keyed(own, "rule", "rules", "forward", {k: rule for k, rule in row.rules.items() if k not in made})
    default = ANY if ANY in row.synapses else "forward"
    models = {k: model for k, model in row.synapses.items() if k not in made}
    synapses = _keyed(own, "synapse", "synapses", default, models)
    start = _kept(row, {"credit": credit}, rules, synapses) | flat("start", own.pop("start", {}))
    network = _network(row, own) | own.pop("network", {})
    return own | {"credit": credit, "rules": rules, "synapses": synapses, "network": network, "start": start}


def _keyed(
    own: dict[str, Any], one: str, many: str, default: str, given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The row's rules or synapse models by key, with what the file says of them taken out of `own`."""
    said = keyed(own, one, many, default)
    own.pop(one, None)
    own.pop(many, None)
    written = {key: table_of(part) for key, part in given.items()}
    return written | {key: _merged(one, written.get(key, {}), part) for key, part in said.items()}


def keyed(table: Mapping[str, Any], one: str, many: str, default: str) -> dict[str, Any]:
    """What a table says under [one], as its `default` key, and under [many.KEY]; SpecError where it says both."""
    found = {default: table[one]} if one in table else {}
    for key, part in table.get(many, {}).items():
        if key in found:
            raise SpecError(f"[{one}] and [{many}.{key}] say the same thing twice; keep one")
        found[key] = part
    return found


def _merged(room: str, written: Mapping[str, Any], said: Any) -> dict[str, Any]:
    """The row's part with what the file says of it; another kind stands alone."""
    if not isinstance(said, dict):
        raise SpecError(f"{room} = {said!r} must be a table, as under [{room}]")
    return dict(said) if said.get("kind", written.get("kind")) != written.get("kind") else {**written, **said}


def _kept(row: Algorithm, credit: Mapping[str, Any], rules: Mapping[str, Any], synapses: Mapping[str, Any]) -> Any:
    """The row's numbers whose part still has them: the same kind, and a parameter of that name."""
    before: dict[str, Any] = {"credit": row.credit}
    before |= {owner_of("rule", key): part for key, part in row.rules.items()}
    before |= {owner_of("synapse", key): part for key, part in row.synapses.items()}
    after = dict(credit) | {owner_of("rule", key): part for key, part in rules.items()}
    after |= {owner_of("synapse", key): part for key, part in synapses.items()}
    names = set()
    for owner, part in after.items():
        if owner in before and part.get("kind") == before[owner].kind:
            built = plug(owner.partition(".")[0], part, owner)
            names |= {f"{owner}.{param.name}" for param in built.params}
    return {name: value for name, value in row.values.items() if name in names}


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
