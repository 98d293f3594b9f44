"""A search written down: TOML becomes frozen dataclasses, and mistakes become sentences before anything computes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarule.collect import unknown
from metarule.credit import CreditAssignment
from metarule.inner import ENGINES
from metarule.learner import ANY, Learner
from metarule.named_row import flat, keyed, written_out
from metarule.network import Network, Population, Projection
from metarule.outer import OuterLoop
from metarule.plugins import SpecError, build, load_installed, load_plugin, plug, settings, table_of
from metarule.rng import noise_for
from metarule.rules import Rule
from metarule.synapses import SynapseModel
from metarule.tasks import Task

COMPLEXITY = "complexity"
"""The objective that is about the rule itself: `Rule.complexity`."""

PROBE = 1000
"""Candidates asked for at most to see whether an outer loop takes a search."""


@dataclass(frozen=True)
class PopulationSpec:
    """A hidden population of a network; `activation` is the network's where it is left out."""

    name: str
    size: int
    activation: str | None = None


@dataclass(frozen=True)
class ProjectionSpec:
    """A projection of a network, named by its ends; `bias` is the network's where it is left out."""

    source: str
    target: str
    bias: bool | None = None


@dataclass(frozen=True)
class NetworkSpec:
    """The network a search trains; input and output sizes come from the task.

    A chain of `hidden` layers with optional `skips` [[from layer, to layer], ...], or any directed graph by
    `populations` [{ name, size, activation }] (hidden ones, in feedforward order) and `projections`
    [{ source, target, bias }] between them, "input" and "output". `output` is the task's where it is left out;
    `init` and `init_scale` are those of `Network.draw`.
    """

    hidden: tuple[int, ...] = (64, 32)
    activation: str = "tanh"
    softplus_beta: float = 10.0
    bias: bool = False
    skips: tuple[tuple[int, int], ...] = ()
    populations: tuple[PopulationSpec, ...] = ()
    projections: tuple[ProjectionSpec, ...] = ()
    output: str | None = None
    init: str = "glorot"
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.softplus_beta <= 0:
            raise ValueError(f"network.softplus_beta = {self.softplus_beta} must be positive")
        if self.projections and not self.populations:
            raise ValueError(
                "network.projections are given without network.populations; name the populations that they join, or "
                "use network.hidden and network.skips"
            )

    def build(self, task: Task) -> Network:
        """The network for a task; raises ValueError where the graph is not one."""
        beta = self.softplus_beta if self.activation == "softplus" else 1.0
        options = {"output": self.output or task.output, "beta": beta, "init": self.init, "init_scale": self.init_scale}
        if not self.populations:
            sizes = (task.inputs, *self.hidden, task.outputs)
            return Network.chain(sizes, self.activation, bias=self.bias, skips=self.skips, **options)
        hidden = [Population(each.name, each.size, each.activation or self.activation) for each in self.populations]
        ends = Population("input", task.inputs, self.activation), Population("output", task.outputs)
        projections = [
            Projection(
                f"{each.source}->{each.target}",
                each.source,
                each.target,
                bias=self.bias if each.bias is None else each.bias,
            )
            for each in self.projections
        ]
        return Network((ends[0], *hidden, ends[1]), tuple(projections), **options)


@dataclass(frozen=True)
class InnerSpec:
    """How one candidate is tried: `steps` inner steps (default the task's own pass) on `episodes` episodes.

    The loss is that at the end, or the mean of those after every `score_every` steps. Every generation sees fresh
    episodes, or always the same with `fixed_episodes`. `block_runs` runs are computed together and `segments` > 1
    trades time for memory in meta-gradients (left out: the root of the steps); both are part of the spec, so that
    results never depend on the number of workers.
    """

    steps: int | None = None
    batch: int = 1
    episodes: int = 4
    engine: str = "auto"
    precision: str = "float32"
    block_runs: int = 36
    segments: int | None = None
    score_every: int | None = None
    fixed_episodes: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "episodes", "block_runs", "segments", "steps", "score_every"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"inner.{name} = {number} must be at least 1")
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
    start: dict[str, float] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    @property
    def learner(self) -> Learner:
        """The learner that the outer loop searches over."""
        network = self.network.build(self.task)
        return Learner(network, self.credit, self.rules, self.synapses, fixed=self.fixed, start=self.start)

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
    def segments(self) -> int:
        """Segments of an inner run between which a meta-gradient stores the state."""
        return self.inner.segments or round(math.sqrt(self.steps))

    def score_at(self, steps: range) -> tuple[int, ...]:
        """Numbers of steps done, within `steps`, after which a run is scored; at the end where nothing else is said."""
        every = self.inner.score_every
        return tuple(step for step in range(steps.start + 1, steps.stop + 1) if every and step % every == 0)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the outer loop hears, the first one leading: metrics of the task, and COMPLEXITY."""
        return self.search.objective or (next(iter(self.task.metrics)),)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The objectives that the task measures."""
        return tuple(name for name in self.objectives if name != COMPLEXITY)

    def table(self) -> dict[str, Any]:
        """The whole search as nested tables with every default written out; `from_table` of it is this search."""
        rules = {key: table_of(rule) for key, rule in self.rules.items()}
        synapses = {key: table_of(synapse) for key, synapse in self.synapses.items()}
        return {
            "plugins": list(self.plugins),
            "task": table_of(self.task),
            "network": table_of(self.network),
            "credit": table_of(self.credit),
            "rules": rules,
            "synapses": synapses,
            "inner": table_of(self.inner),
            "outer": {**table_of(self.outer), **table_of(self.budget)},
            "search": table_of(self.search),
            "battery": table_of(self.battery),
            "fixed": dict(self.fixed),
            "start": dict(self.start),
        }


TABLES = (
    *(
        "algorithm",
        "task",
        "network",
        "credit",
        "rule",
        "rules",
        "synapse",
        "synapses",
        "inner",
        "outer",
        "search",
        "battery",
    ),
    *("fixed", "start", "plugins"),
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
    for name, part in table.items():
        if name not in TABLES:
            raise SpecError(unknown("a table of the search file", name, TABLES))
        if name not in ("algorithm", "plugins") and not isinstance(part, dict):
            raise SpecError(f"{name} = {part!r} must be a table, as under [{name}]")
    plugins = joined(table, folder)
    table = written_out(table)
    for name in ("task", "outer"):
        if name not in table:
            raise SpecError(f"the search file has no [{name}]; it needs at least [task], [rule] and [outer]")
    rules = keyed(table, "rule", "rules", "forward")
    synapses = {ANY: {"kind": "sgd"}, **keyed(table, "synapse", "synapses", ANY)}
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
        outer=plug("outer", outer, also=tuple(spec.name for spec in settings(Budget))),
        budget=build(Budget, budget, "outer"),
        search=build(SearchSpec, table.get("search", {}), "search"),
        battery=build(BatterySpec, table.get("battery", {}), "battery"),
        fixed=_numbers(table, "fixed"),
        start=_numbers(table, "start"),
        plugins=plugins,
    )
    _check(search)
    return search


def joined(table: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """Load the plug-ins of installed packages and those that a table names; returns the latter's paths."""
    paths = table.get("plugins", [])
    if not isinstance(paths, (list, tuple)) or not all(isinstance(path, str) for path in paths):
        raise SpecError(f"plugins = {paths!r} must be a list of paths, as in plugins = ['my_rule.py']")
    load_installed()
    plugins = tuple(str((folder / path).resolve()) for path in paths)
    for path in plugins:
        load_plugin(path)
    return plugins


def _check(search: Search) -> None:
    learner = search.learner
    search.task.held_out()
    assert search.steps > 0
    for name in search.metrics:
        if name not in search.task.metrics:
            raise SpecError(unknown("search.objective", name, (*search.task.metrics, COMPLEXITY)))
    if search.objectives[0] == COMPLEXITY:
        raise SpecError(f"search.objective = {list(search.objectives)} cannot be led by '{COMPLEXITY}'; put it last")
    if search.inner.score_every and search.steps % search.inner.score_every:
        raise SpecError(
            f"inner.score_every = {search.inner.score_every} does not divide the {search.steps} inner steps"
        )
    if "grad" in search.outer.wants and search.outer.rungs(search.steps):
        raise SpecError(f"outer.kind = '{search.outer.kind}' follows gradients and cannot drop candidates on the way")
    if not learner.params:
        raise SpecError("nothing to search over: every parameter is fixed")
    if len(search.objectives) > 1 and "objectives" not in search.outer.accepts:
        raise SpecError(f"outer.kind = '{search.outer.kind}' takes one objective; {len(search.objectives)} given")
    if any(param.choices for param in learner.params) and "categorical" not in search.outer.accepts:
        raise SpecError(f"outer.kind = '{search.outer.kind}' does not take categorical parameters; use 'optuna'")
    trial = copy.copy(search.outer)
    trial.start(learner.params, len(search.objectives))
    trial.ask(min(search.budget.candidates, PROBE), noise_for([("check",)]))


def _owned(parts: dict[str, Any], one: str) -> dict[str, tuple[Any, str]]:
    return {key: (part, one if key in (ANY, "forward") else f"{one}s.{key}") for key, part in parts.items()}


def _numbers(table: dict[str, Any], owner: str) -> dict[str, float]:
    return {name: _finite(f"{owner}.{name}", value) for name, value in flat(owner, table.get(owner, {})).items()}


def _finite(name: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"{name} = {number} must be a finite number")
    return number
