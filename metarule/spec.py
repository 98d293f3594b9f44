"""A search written down: TOML becomes frozen dataclasses, and mistakes become sentences before anything computes."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.credit import CreditAssignment
from metarule.family import Family, Structure
from metarule.learner import ANY, Learner
from metarule.models import Model
from metarule.module_learner import Descent, ModuleLearner
from metarule.named_row import flat, keyed, written_out
from metarule.outer import OuterLoop
from metarule.params import Param
from metarule.plugins import SpecError, build, load_installed, load_plugin, plug, settings, table_of
from metarule.rng import noise_for
from metarule.rules import Rule
from metarule.structural import fitted, known_row, known_somewhere, structural
from metarule.synapses import SynapseModel
from metarule.tables import BatterySpec, Budget, InnerSpec, NetworkSpec, SearchSpec
from metarule.tasks import Task
from metarule.unrolled import Unrolled

COMPLEXITY = "complexity"
"""The objective that is about the rule itself: `Rule.complexity`."""

PROBE = 1000
"""Candidates asked for at most to see whether an outer loop takes a search."""


@dataclass(frozen=True, eq=False)
class Search:
    """A search, built and checked: every part is an object, every default is filled in.

    One over structure has `choices` and a `plain` search for every combination of them; its own parts are those of the
    first. `known` rules are tried first.
    """

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
    model: Model | None = None
    descent: Descent = field(default_factory=Descent)
    known: tuple[dict[str, Any], ...] = ()
    choices: tuple[Param, ...] = ()
    plain: dict[Structure, Search] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def family(self) -> Family:
        """All learners that the outer loop searches over, one per structure; one where none is searched."""
        plain = self.plain or {(): self}
        return Family(self.choices, {structure: search.learner for structure, search in plain.items()})

    @property
    def structures(self) -> tuple[Search, ...]:
        """The search without choices of every structure; itself where there is one."""
        return tuple(self.plain.values()) or (self,)

    def found(self, row: Float[Tensor, "P"]) -> tuple[Search, Float[Tensor, "p"]]:
        """The search without choices that a row of theta names, and the row as its learner reads it."""
        if not self.choices:
            return self, row
        return self.plain[self.family.structure(row)], self.family.learner(row)[1]

    @property
    def known_rows(self) -> Float[Tensor, "N P"]:
        """The known rules as rows of theta."""
        rows = [known_row(self.family, place, each) for place, each in enumerate(self.known)]
        return torch.stack(rows) if rows else torch.zeros(0, len(self.family.params), dtype=torch.float64)

    @property
    def learner(self) -> Any:
        """What the outer loop searches over: a Learner, or a ModuleLearner where a [model] is trained."""
        if self.model is not None:
            task = self.task
            return ModuleLearner(
                self.model, task.inputs, task.outputs, task.output, self.descent, self.fixed, self.start
            )
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
        """Segments of an inner run between which autograd stores the state."""
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
        whole = {
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
        } | ({} if self.model is None else {"model": table_of(self.model), "descent": table_of(self.descent)})
        if self.choices:  # what varies stays as it was written: no structure's defaults are all structures'
            whole = {key: part for key, part in whole.items() if key not in LEARNERS} | self.written
        return whole | ({"known": list(self.known)} if self.known else {})


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
        "model",
        "descent",
    ),
    *("fixed", "start", "plugins", "structure", "known"),
)

LEARNERS = ("network", "credit", "rules", "synapses", "fixed", "start")
"""Tables of a written search that say what its learners are."""

SHARED = ("task", "inner", "outer", "search", "battery", "plugins", "known")
"""Tables of a search over structure that are the same for all structures."""


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
        if name not in ("algorithm", "plugins", "known") and not isinstance(part, dict):
            raise SpecError(f"{name} = {part!r} must be a table, as under [{name}]")
    plugins = joined(table, folder)
    known = _known(table)
    if "structure" in table and "model" in table:
        raise SpecError("[structure] varies what learns by a rule, and a [model] does not; take out one of them")
    for name in ("task", "outer"):
        if name not in table:
            raise SpecError(f"the search file has no [{name}]; it needs at least [task], [rule] and [outer]")
    if "structure" in table:
        search = replace(_of_structures(table, plugins), known=known)
    else:
        search = replace(_plain(written_out(table), plugins), known=known)
    _check(search)
    return search


def _known(table: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    known = table.get("known", [])
    if not isinstance(known, (list, tuple)) or not all(isinstance(each, dict) for each in known):
        raise SpecError(f"known = {known!r} must be a list of tables, each under [[known]]")
    return tuple(known)


def _of_structures(table: dict[str, Any], plugins: tuple[str, ...]) -> Search:
    """A search over every combination of the choices under [structure], each of them checked as a plain one."""
    found = structural(table)
    plain = {structure: fitted(structure, _plain, each, plugins) for structure, each in found.tables.items()}
    known_somewhere(table, plain.values())
    written = {key: part for key, part in table.items() if key not in SHARED}
    return replace(next(iter(plain.values())), choices=found.choices, plain=plain, written=written)


def _plain(table: dict[str, Any], plugins: tuple[str, ...]) -> Search:
    rules = keyed(table, "rule", "rules", "forward")
    synapses = {ANY: {"kind": "sgd"}, **keyed(table, "synapse", "synapses", ANY)}
    _check_model(table, rules)
    model = plug("model", table["model"]) if "model" in table else None
    outer = dict(table["outer"])
    budget = {name: outer.pop(name) for name in ("candidates", "generations") if name in outer}
    return Search(
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
        model=model,
        descent=build(Descent, table.get("descent", {}), "descent"),
    )


def _check_model(table: dict[str, Any], rules: dict[str, Any]) -> None:
    """Either a network with a rule, or a [model] with its [descent]."""
    if "model" not in table:
        if "descent" in table:
            raise SpecError("[descent] says how a [model] is trained, and there is none; add [model], or take it out")
        if not rules:
            raise SpecError("the search file has no [rule]; it needs at least [task], [rule] and [outer], or a [model]")
        if table.get("inner", {}).get("engine") == Unrolled.name:
            raise SpecError(f"inner.engine = '{Unrolled.name}' trains a torch module; add [model]")
        return
    if rules:
        raise SpecError("a [model] is trained by [descent], not by a rule; take out [model] or [rule]")
    if table.get("inner", {}).get("engine", "auto") not in ("auto", Unrolled.name):
        raise SpecError(f"inner.engine = '{table['inner']['engine']}' does not know [model]; leave it out")


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
    params = search.family.params
    search.task.held_out()
    assert search.steps > 0
    for name in search.metrics:
        if name not in search.task.metrics:
            raise SpecError(unknown("search.objective", name, (*search.task.metrics, COMPLEXITY)))
    if len(set(search.objectives)) < len(search.objectives):
        raise SpecError(f"search.objective = {list(search.objectives)} names one twice")
    if search.objectives[0] == COMPLEXITY:
        raise SpecError(f"search.objective = {list(search.objectives)} cannot be led by '{COMPLEXITY}'; put it last")
    if search.inner.score_every and search.steps % search.inner.score_every:
        raise SpecError(
            f"inner.score_every = {search.inner.score_every} does not divide the {search.steps} inner steps"
        )
    if "grad" in search.outer.wants and search.outer.rungs(search.steps):
        raise SpecError(f"outer.kind = '{search.outer.kind}' follows gradients and cannot drop candidates on the way")
    if not params:
        raise SpecError("nothing to search over: every parameter is fixed")
    if len(search.objectives) > 1 and "objectives" not in search.outer.accepts:
        raise SpecError(f"outer.kind = '{search.outer.kind}' takes one objective; {len(search.objectives)} given")
    if any(param.choices for param in params) and "categorical" not in search.outer.accepts:
        raise SpecError(f"outer.kind = '{search.outer.kind}' does not take categorical parameters; use 'optuna'")
    if search.model is not None:
        _check_modelled(search)
    trial = copy.copy(search.outer)
    trial.start(params, len(search.objectives))
    if search.known:
        trial.warm(search.known_rows)
    trial.ask(min(search.budget.candidates, PROBE), noise_for([("check",)]))


def _check_modelled(search: Search) -> None:
    """Nothing is said that the training of a [model] does not read, and its runs are whole ones."""
    unread = {
        "network": search.network != NetworkSpec(),
        "credit": search.credit != plug("credit", {"kind": "backprop"}),
        "synapse": search.synapses != {ANY: plug("synapse", {"kind": "sgd"})},
        "inner.block_runs": search.inner.block_runs != InnerSpec.block_runs,
        "inner.segments": search.inner.segments != InnerSpec.segments,
        "battery.baselines": search.battery.baselines != BatterySpec.baselines,
    }
    if said := [name for name, differs in unread.items() if differs]:
        raise SpecError(f"a [model] with its [descent] does not read {', '.join(said)}; take it out")
    outer, steps = search.outer, search.steps
    begins = (outer.window(number, steps).steps.start for number in range(min(search.budget.generations, PROBE)))
    if any(begins) or outer.rungs(steps) or not outer.wants <= {"loss", "grad"}:
        raise SpecError(
            f"outer.kind = '{outer.kind}' with these settings truncates runs, drops candidates on the way or asks for "
            "forward-mode gradients, and the runs of a [model] are whole ones, in reverse mode; leave these out"
        )


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
