"""A search written down: TOML becomes frozen dataclasses, and mistakes become sentences before anything computes."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic

from metarule.collect import join, load_file, members, unknown
from metarule.credit import CREDIT, CreditAssignment
from metarule.inner import ENGINES
from metarule.learner import ANY, Learner
from metarule.network import Network, Population, Projection
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
}
"""Table of a search file -> the registry and the interface of its plug-ins."""


class SpecError(ValueError):
    """A mistake in a search file, an override or a name: the user's to mend, exit code 2."""


@dataclass(frozen=True)
class NetworkSpec:
    """The network a search trains; input and output sizes come from the task.

    A chain of `hidden` layers with optional `skips` [[from layer, to layer], ...], or any directed graph by
    `populations` [{ name, size, activation }] (hidden ones, in feedforward order) and `projections`
    [{ source, target, bias }] between them, "input" and "output".
    """

    hidden: tuple[int, ...] = (64, 32)
    activation: str = "tanh"
    softplus_beta: float = 10.0
    bias: bool = False
    skips: tuple[tuple[int, int], ...] = ()
    populations: tuple[dict[str, str | int], ...] = ()
    projections: tuple[dict[str, str | bool], ...] = ()

    def build(self, task: Task) -> Network:
        """The network for a task; raises ValueError where the graph is not one."""
        beta = self.softplus_beta if self.activation == "softplus" else 1.0
        if not self.populations:
            sizes = (task.inputs, *self.hidden, task.outputs)
            return Network.chain(sizes, self.activation, task.output, beta, self.bias, self.skips)
        hidden = [Population(**{"activation": self.activation, **table}) for table in self.populations]
        ends = Population("input", task.inputs, self.activation), Population("output", task.outputs)
        projections = [
            Projection(f"{table['source']}->{table['target']}", **{"bias": self.bias, **table})
            for table in self.projections
        ]
        return Network((ends[0], *hidden, ends[1]), tuple(projections), task.output, beta)


@dataclass(frozen=True)
class InnerSpec:
    """How one candidate is tried: `steps` inner steps (default the task's own pass) on `episodes` episodes.

    `block_runs` runs are computed together and `segments` > 1 trades time for memory in meta-gradients; both are part
    of the spec, so that results never depend on the number of workers.
    """

    steps: int | None = None
    batch: int = 1
    episodes: int = 4
    engine: str = "auto"
    precision: str = "float32"
    block_runs: int = 36
    segments: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "episodes", "block_runs", "segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"inner.{name} = {getattr(self, name)} must be at least 1")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"inner.steps = {self.steps} must be at least 1")
        if self.precision not in ("float32", "float64"):
            raise ValueError(unknown("inner.precision", self.precision, ("float32", "float64")))
        if self.engine not in ("auto", *ENGINES):
            raise ValueError(unknown("inner.engine", self.engine, ("auto", *ENGINES)))


@dataclass(frozen=True)
class SearchSpec:
    """What counts as better, and for how long to look: `generations` of `candidates` rows of theta."""

    objective: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class BatterySpec:
    """The held-out battery at the end: `episodes` fresh paired episodes; 0 leaves it out. `baselines` "default" or
    "all"."""

    episodes: int = 200
    baselines: str = "default"

    def __post_init__(self) -> None:
        if self.episodes < 0:
            raise ValueError(f"battery.episodes = {self.episodes} must not be negative")
        if self.baselines not in ("default", "all"):
            raise ValueError(unknown("battery.baselines", self.baselines, ("default", "all")))


@dataclass(frozen=True)
class Budget:
    """How long an outer loop runs: the one thing about a finished search that may grow."""

    candidates: int = 12
    generations: int = 30

    def __post_init__(self) -> None:
        for name in ("candidates", "generations"):
            if getattr(self, name) < 1:
                raise ValueError(f"outer.{name} = {getattr(self, name)} must be at least 1")


@dataclass(frozen=True, eq=False)
class Search:
    """A search, built and checked: every part is an object, every default is filled in."""

    task: Task
    network: NetworkSpec
    credit: CreditAssignment
    rules: dict[str, Rule]
    synapses: dict[str, SynapseModel]
    inner: InnerSpec
    outer: OuterLoop
    budget: Budget
    search: SearchSpec
    battery: BatterySpec
    fixed: dict[str, float] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    @property
    def learner(self) -> Learner:
        """The learner that the outer loop searches over."""
        return Learner(self.network.build(self.task), self.credit, self.rules, self.synapses, fixed=self.fixed)

    @property
    def steps(self) -> int:
        """Inner steps per run; raises SpecError where neither the file nor the task says."""
        own = self.task.steps(self.inner.batch)
        if self.inner.steps is None:
            if own is None:
                raise SpecError(f"inner.steps is missing, and task.kind = '{self.task.kind}' has no length of its own")
            return own
        if own is not None and self.inner.steps > own:
            raise SpecError(
                f"inner.steps = {self.inner.steps} is more than the task's one online pass of {own} steps; "
                "lower it or give the task more data"
            )
        return self.inner.steps

    @property
    def objectives(self) -> tuple[str, ...]:
        """The metrics that the outer loop hears, the first one leading."""
        return self.search.objective or (next(iter(self.task.metrics)),)

    def table(self) -> dict[str, Any]:
        """The whole search as nested tables with every default written out; `from_table` of it is this search."""
        rules = {key: _table(rule) for key, rule in self.rules.items()}
        synapses = {key: _table(synapse) for key, synapse in self.synapses.items()}
        return {
            "plugins": list(self.plugins),
            "task": _table(self.task),
            "network": _table(self.network),
            "credit": _table(self.credit),
            "rules": rules,
            "synapses": synapses,
            "inner": _table(self.inner),
            "outer": {**_table(self.outer), **_table(self.budget)},
            "search": _table(self.search),
            "battery": _table(self.battery),
            "fixed": dict(self.fixed),
        }


TABLES = (
    *("task", "network", "credit", "rule", "rules", "synapse", "synapses", "inner", "outer", "search", "battery"),
    *("fixed", "plugins"),
)


def from_table(table: dict[str, Any], folder: Path | None = None) -> Search:
    """Build and check a search; raises SpecError naming the key, what is allowed and the nearest valid name.

    `folder` is where relative plug-in paths start.
    """
    try:
        return _from_table(table, folder or Path.cwd())
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(str(error)) from error


def _from_table(table: dict[str, Any], folder: Path) -> Search:
    for name in table:
        if name not in TABLES:
            raise SpecError(unknown("a table of the search file", name, TABLES))
    plugins = tuple(str((folder / path).resolve()) for path in table.get("plugins", ()))
    for path in plugins:
        load_plugin(path)
    for name in ("task", "outer"):
        if name not in table:
            raise SpecError(f"the search file has no [{name}]; it needs at least [task], [rule] and [outer]")
    rules = _keyed(table, "rule", "rules", "forward")
    synapses = _keyed(table, "synapse", "synapses", ANY) or {ANY: {"kind": "sgd"}}
    if not rules:
        raise SpecError("the search file has no [rule]; it needs at least [task], [rule] and [outer]")
    outer = dict(table["outer"])
    budget = {name: outer.pop(name) for name in ("candidates", "generations") if name in outer}
    search = Search(
        task=plug("task", table["task"]),
        network=build(NetworkSpec, table.get("network", {}), "network"),
        credit=plug("credit", table.get("credit", {"kind": "backprop"})),
        rules={key: plug("rule", part, owner) for key, (part, owner) in _owned(rules, "rule").items()},
        synapses={key: plug("synapse", part, owner) for key, (part, owner) in _owned(synapses, "synapse").items()},
        inner=build(InnerSpec, table.get("inner", {}), "inner"),
        outer=plug("outer", outer, also=tuple(spec.name for spec in _fields(Budget))),
        budget=build(Budget, budget, "outer"),
        search=build(SearchSpec, table.get("search", {}), "search"),
        battery=build(BatterySpec, table.get("battery", {}), "battery"),
        fixed={name: float(value) for name, value in _flat(table.get("fixed", {})).items()},
        plugins=plugins,
    )
    _check(search)
    return search


def _check(search: Search) -> None:
    learner = search.learner
    search.task.held_out()
    assert search.steps > 0
    for name in search.objectives:
        if name not in search.task.metrics:
            raise SpecError(unknown("search.objective", name, search.task.metrics))
    if not learner.params:
        raise SpecError("nothing to search over: every parameter is fixed")
    if len(search.objectives) > 1 and "objectives" not in search.outer.accepts:
        raise SpecError(f"outer.kind = '{search.outer.kind}' takes one objective; {len(search.objectives)} given")
    if any(param.choices for param in learner.params) and "categorical" not in search.outer.accepts:
        raise SpecError(f"outer.kind = '{search.outer.kind}' does not take categorical parameters; use 'optuna'")
    type(search.outer)(**{f.name: getattr(search.outer, f.name) for f in _fields(search.outer)}).start(learner.params)


def load_plugin(path: str) -> list[str]:
    """Load a user's file and let its plug-ins join their rooms; returns their kinds as 'room.kind'."""
    module = load_file(path)
    found = []
    for room, (registry, base) in ROOMS.items():
        classes = members(module, base)
        join(registry, classes)
        found += [f"{room}.{member.kind}" for member in classes]
    if not found:
        bases = ", ".join(base.__name__ for _, base in ROOMS.values())
        raise SpecError(f"plug-in file {path} defines no concrete {bases} with a `kind`")
    return found


def plug(room: str, table: dict[str, Any], owner: str | None = None, also: tuple[str, ...] = ()) -> Any:
    """The plug-in that a table with a `kind` describes; `also` are keys of the same table that were taken out."""
    owner = owner or room
    registry, _ = ROOMS[room]
    if not isinstance(table, dict):
        raise SpecError(f"{owner} = {table!r} must be a table with a key 'kind'")
    if "kind" not in table:
        raise SpecError(f"{owner}.kind is missing; it is one of {', '.join(sorted(registry))}")
    if table["kind"] not in registry:
        raise SpecError(unknown(f"{owner}.kind", str(table["kind"]), registry))
    return build(registry[table["kind"]], {key: value for key, value in table.items() if key != "kind"}, owner, also)


def build(kind: type, table: dict[str, Any], owner: str, also: tuple[str, ...] = ()) -> Any:
    """An instance of a settings dataclass from a table; unknown keys and wrong types are named."""
    if not isinstance(table, dict):
        raise SpecError(f"{owner} = {table!r} must be a table")
    hints = typing.get_type_hints(kind)
    names = [spec.name for spec in _fields(kind)]
    values = {}
    for key, value in table.items():
        if key not in names:
            allowed = (*names, *also)
            raise SpecError(unknown(f"a key of {owner}", key, allowed) if allowed else f"{owner} has no key '{key}'")
        try:
            values[key] = pydantic.TypeAdapter(hints[key]).validate_json(json.dumps(value), strict=True)
        except pydantic.ValidationError as error:
            said = error.errors()[0]["msg"].lower()
            raise SpecError(f"{owner}.{key} = {value!r} does not fit {_spelled(hints[key])}: {said}") from error
    return kind(**values)


def read(path: Path, overrides: tuple[str, ...] = ()) -> tuple[Search, str]:
    """A search from a TOML file and overrides 'outer.generations=50'; returns it with the file's text."""
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from error
    return from_table(overridden(table, overrides), path.parent), text


def overridden(table: dict[str, Any], overrides: tuple[str, ...]) -> dict[str, Any]:
    """The table with dotted overrides applied; values are read as TOML, bare words as strings."""
    table = json.loads(json.dumps(table))
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise SpecError(f"override '{override}' must read key=value, as in outer.generations=50")
        *parents, key = dotted.strip().split(".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise SpecError(f"override '{override}': '{parent}' is a value, not a table")
        try:
            place[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            place[key] = text
    return table


def shipped() -> dict[str, Path]:
    """The search files that come with metarule, by name."""
    package = Path(__file__).parent
    folder = package / "searches" if (package / "searches").is_dir() else package.parent / "searches"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name: str) -> Path:
    """A search file by path, or one that comes with metarule by name."""
    path = Path(name)
    if path.is_file():
        return path
    files = shipped()
    if name in files:
        return files[name]
    raise SpecError(f"{unknown('search', name, files)} (or give the path of a TOML file)")


def _keyed(table: dict[str, Any], one: str, many: str, default: str) -> dict[str, Any]:
    found = {default: table[one]} if one in table else {}
    for key, part in table.get(many, {}).items():
        if key in found:
            raise SpecError(f"[{one}] and [{many}.{key}] say the same thing twice; keep one")
        found[key] = part
    return found


def _owned(parts: dict[str, Any], one: str) -> dict[str, tuple[Any, str]]:
    return {key: (part, one if key in (ANY, "forward") else f"{one}s.{key}") for key, part in parts.items()}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[f"{prefix}{key}"] = value
        else:
            raise SpecError(f"fixed.{prefix}{key} = {value!r} must be a number")
    return flat


def _fields(kind: Any) -> list[dataclasses.Field]:
    return [spec for spec in dataclasses.fields(kind) if spec.init] if dataclasses.is_dataclass(kind) else []


def _table(part: Any) -> dict[str, Any]:
    table = {"kind": part.kind} if hasattr(part, "kind") else {}
    return table | {spec.name: getattr(part, spec.name) for spec in _fields(part)}


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
