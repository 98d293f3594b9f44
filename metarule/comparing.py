"""Any algorithms and discovered rules on one task: `metarule evaluate` without its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from metarule.collect import unknown
from metarule.evaluation import Battery, Conditions, Contender, Progress, compare, tuned
from metarule.inner import Map, in_turn
from metarule.jobs import recorded, resumed
from metarule.learner import Learner
from metarule.loop import engine_for
from metarule.plugins import SpecError, plug
from metarule.reading import built, find, overridden, read, shipped
from metarule.records import RunError, run_folder
from metarule.rng import noise_for, seed_number
from metarule.runs import RunFolder
from metarule.spec import Search, from_table
from metarule.tasks import TASKS, Task
from metarule.zoo import ZOO

DEFAULT_TASK = "first_rule"
"""The search whose task is used where zoo rows are compared and no task is named."""

TEACHING = frozenset({"error", "feedback", "reward", "post_ref"})
"""Signals through which a credit assignment tells a unit about the output it should have had."""

UNBOUNDED = {"steps": 600, "batch": 16}
"""[inner] of a task without a length of its own, where only its kind is named."""


def setting(
    names: Sequence[str], task: str | None, overrides: tuple[str, ...], say: Progress = lambda text: None
) -> Search:
    """The search whose task, network and [inner] a comparison uses, its overrides applied.

    `task` is a search file, the name of one, or a kind of task; without it the task of the runs, if all `names` are
    runs, else `DEFAULT_TASK`. Raises SpecError where it is none of these.
    """
    if task is None and names and all(name not in ZOO for name in names):
        folder = folder_of(names[0])
        return found_by(folder, built(recorded(folder)["search"], overrides, folder.path, say))[0]
    task = task or DEFAULT_TASK
    if Path(task).is_file() or task in shipped():
        return read(find(task), overrides, say)[0]
    if task not in TASKS:
        raise SpecError(f"{unknown('--task', task, {*TASKS, *shipped()})} (or give the path of a search file)")
    return _of_kind(task, overrides)


def _of_kind(kind: str, overrides: tuple[str, ...]) -> Search:
    """A search over a kind of task with every setting at its default; one layer where nobody teaches."""
    parts = {"task": {"kind": kind}, "rule": {"kind": "delta"}, "outer": {"kind": "cma_es"}}
    table = overridden(parts, overrides)
    task: Task = plug("task", table["task"])
    inner = table.get("inner", {})
    if task.steps(inner.get("batch", 1)) is None:
        inner = UNBOUNDED | inner
    network = table.get("network", {})
    if not _teaches(task, inner.get("batch", 1)):
        network = {"hidden": []} | network
    return from_table(table | {"inner": inner, "network": network})


def comparison(
    names: Sequence[str],
    search: Search,
    episodes: int,
    seeds: int,
    everything: bool = False,
    map: Map = in_turn,
    progress: Progress = lambda text: None,
) -> Battery:
    """Zoo rows and run folders on the same held-out episodes of a search's task: `episodes` for each of `seeds`.

    A free rate is tuned with as many episodes of the search split; published coefficients are used as they are. Where
    `everything`, the whole zoo follows the names, and its rows that do not fit the task are left out with a message;
    a named one that does not fit raises ValueError.
    """
    if search.model is not None:
        raise SpecError(
            "a search over a [model] has no network that rows of the zoo could learn on; name another one by --task "
            "(its own battery is shown by metarule inspect)"
        )
    score_at = search.score_at(range(search.steps))
    conditions = Conditions(engine_for(search, map), search.steps, search.inner.batch, score_at)
    contenders: list[Contender] = []
    for name in rows(names, everything):
        try:
            learner, theta = learner_of(name, search)
            _check_teacher(learner, search)
        except ValueError as error:
            if name in names:
                raise
            progress(f"{name} is left out: {error}")
            continue
        if theta is None:
            contenders.append(tuned(name, learner, search.task, conditions, episodes * seeds, 0, progress))
        else:
            contenders.append(Contender(name, learner, theta))
    numbers = [seed_number(seed, "evaluate") for seed in range(seeds)]
    return compare(contenders, search.task, conditions, episodes, numbers, progress)


def runs_among(names: Sequence[str]) -> bool:
    """Whether one of the names is a run folder rather than a row of the zoo."""
    return any(name not in ZOO and folder_of(name) for name in names)


def rows(names: Sequence[str], everything: bool) -> list[str]:
    """The names, and where `everything` all other rows of the zoo; raises ValueError where that is nothing."""
    found = [*names, *(name for name in ZOO if everything and name not in names)]
    if not found:
        raise ValueError("name zoo rows or run folders to compare, or --all")
    return found


def learner_of(name: str, search: Search) -> tuple[Learner, torch.Tensor | None]:
    """The learner called `name` on the search's network, and its numbers where it has its own."""
    network = search.network.build(search.task)
    if name in ZOO:
        return ZOO[name].learner(network), None
    folder = folder_of(name)
    searched, values = found_by(folder, resumed(folder, recorded(folder)))
    if searched.model is not None:
        raise RunError(
            f"{folder.path} trained a [model] by descent; it has no rule that could learn on another network"
        )
    own = searched.learner
    learner = Learner(network, own.credit, own.rules, own.synapses, own.schedule, own.fixed)
    missing = [param.name for param in learner.params if param.name not in values]
    if missing:
        raise RunError(f"{folder.path} found no value for {', '.join(missing)}, which this network needs")
    return learner, torch.tensor([[values[param.name] for param in learner.params]], dtype=torch.float64)


def found_by(folder: RunFolder, search: Search) -> tuple[Search, dict[str, float]]:
    """The search of the structure that a run found, and its learner's numbers by name."""
    log = folder.log()
    if not log:
        raise RunError(f"{folder.path} has no finished generation yet; there is no rule to evaluate")
    values = log[-1]["theta"]
    if not search.choices:
        return search, values
    row = torch.tensor([values[param.name] for param in search.family.params], dtype=torch.float64)
    plain, own = search.found(row)
    return plain, dict(zip((param.name for param in plain.learner.params), own.tolist(), strict=True))


def folder_of(name: str) -> RunFolder:
    path = run_folder(name)
    if path is None:
        raise SpecError(f"{unknown('algorithm', name, ZOO)} (or give the path of a run folder)")
    return RunFolder(path)


def _check_teacher(learner: Learner, search: Search) -> None:
    """Raises ValueError where a learner without a teacher meets a task of targets, or the reverse."""
    taught = bool(learner.credit.gives & TEACHING)
    teaches = _teaches(search.task, search.inner.batch)
    if teaches and not taught:
        raise ValueError(
            f"credit.kind = '{learner.credit.kind}' hears of no targets, and task.kind = '{search.task.kind}' scores "
            "answers to them"
        )
    if taught and not teaches:
        raise ValueError(
            f"credit.kind = '{learner.credit.kind}' needs targets, and task.kind = '{search.task.kind}' has none"
        )


def _teaches(task: Task, batch: int) -> bool:
    first = task.sample(noise_for([("does it teach",)]), batch).train(0)
    return first.y is not None or first.reward is not None
