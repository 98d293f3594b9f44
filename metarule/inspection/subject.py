"""Subject: what is inspected, a run's rule or a row of the zoo: a learner with its numbers on a task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.acceptance import TRIALS, host_network, steps_of
from metarule.comparing import folder_of, found_by, learner_of, setting
from metarule.evaluation import Conditions, Progress, tuned
from metarule.inner import Map, Reference, Runs, in_turn
from metarule.inspection import kept
from metarule.jobs import recorded, resumed
from metarule.learner import Learner
from metarule.loop import engine_for
from metarule.network import Network
from metarule.params import starts
from metarule.records import RunError
from metarule.rng import seed_number
from metarule.runs import RunFolder
from metarule.spec import Search
from metarule.tasks import Task
from metarule.zoo import ZOO, Algorithm, algorithm

ROW_BUDGET = 100
"""Episodes that a baseline of a zoo row is tuned with: a row has no search whose budget it could be given."""

UNTAUGHT = "oja"
"""The search on whose task a row is looked at that hears of no targets."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A rule under inspection.

    `theta` (1 P) are its numbers, as `learner.params` names them. It learns `task` under `conditions`; whom it is
    compared with is tuned on `budget` episodes. `search` and `path` are a run's, None for a row of the zoo.
    """

    name: str
    learner: Learner
    theta: Float[Tensor, "1 P"]
    task: Task
    conditions: Conditions
    budget: int
    search: Search | None = None
    path: Path | None = None

    @property
    def network(self) -> Network:
        """The network that it learns in."""
        return self.learner.network

    @property
    def row(self) -> Algorithm | None:
        """The row of the zoo that it is; None for a run."""
        return ZOO[self.name] if self.path is None else None

    @property
    def baselines(self) -> dict[str, Learner]:
        """Whom it is compared with: the task's own baselines, on its network."""
        return {name: algorithm(name).learner(self.network) for name in self.task.baselines}

    def on(
        self, network: Network | None = None, task: Task | None = None, conditions: Conditions | None = None
    ) -> Subject:
        """The same rule with the same numbers elsewhere; raises ValueError where it has no number or part for there."""
        moved = self
        if network is not None:
            learner = replace(self.learner, network=network)
            names = [param.name for param in self.learner.params]
            if missing := [param.name for param in learner.params if param.name not in names]:
                raise ValueError(f"'{self.name}' has no value for {', '.join(missing)}, which this network needs")
            columns = [names.index(param.name) for param in learner.params]
            moved = replace(moved, learner=learner, theta=self.theta[:, columns])
        return replace(moved, task=task or self.task, conditions=conditions or self.conditions)

    def runs(self, episodes: int, label: str, seed: int = 0) -> Runs:
        """One candidate on `episodes` episodes of a set of its own."""
        return Runs((0,), tuple(range(episodes)), seed_number(seed, label))


def subject(
    name: str,
    task: str | None = None,
    overrides: tuple[str, ...] = (),
    map: Map = in_turn,
    say: Progress = lambda text: None,
) -> Subject:
    """What `name` is: a run folder, on its own task, or a row of the zoo, on the digits with the network of its host.

    `task`, a search or a kind of task, with `overrides` is where else to look at it; a row's free rate is then tuned
    there. Raises SpecError where the name is neither, RunError where a run has no rule yet or trained a [model].
    """
    if task is not None:
        return _elsewhere(name, setting([name], task, overrides, say), map, say)
    if overrides:
        raise ValueError(f"{overrides[0]} changes a task; name it with --task, as in --task first_rule {overrides[0]}")
    if name in ZOO:
        return _row(name, map, say)
    folder = folder_of(name)
    search, values = found_by(folder, resumed(folder, recorded(folder)))
    if search.model is not None:
        raise RunError(f"{folder.path} trained a [model] by descent and has no rule to look into")
    theta = [values[param.name] for param in search.learner.params]
    return Subject(
        str(folder.path), search.learner, torch.tensor([theta], dtype=torch.float64), search.task,
        _conditions(search, map), search.budget.generations * search.budget.candidates * search.inner.episodes,
        search, folder.path,
    )  # fmt: skip


def keep(subject: Subject, name: str, section: Any) -> None:
    """Keep a section of a run's inspection in its folder, see `kept`; raises OSError where it cannot be written."""
    if subject.path is None:
        return
    folder = RunFolder(subject.path)
    (folder.path / kept.FOLDER).mkdir(exist_ok=True)
    folder.write_json(kept.file_of(name), kept.written(folder.log()[-1]["theta"], section))


def _elsewhere(name: str, search: Search, map: Map, say: Progress) -> Subject:
    learner, theta = learner_of(name, search)
    conditions = _conditions(search, map)
    if theta is None:
        theta = tuned(name, learner, search.task, conditions, ROW_BUDGET, 0, say).theta
    path = None if name in ZOO else folder_of(name).path
    return Subject(name, learner, theta, search.task, conditions, ROW_BUDGET, None, path)


def _row(name: str, map: Map, say: Progress) -> Subject:
    row = ZOO[name]
    fits = [trial for where, trial in TRIALS.items() if where not in row.not_for]
    if not fits:
        return _elsewhere(name, setting([name], UNTAUGHT, ()), map, say)
    trial = fits[0]
    learner = row.learner(host_network(row, trial))
    conditions = Conditions(Reference(dtype=torch.float32, map=map), steps_of(row, trial.task), row.host.batch)
    return Subject(name, learner, starts(learner.params)[None], trial.task, conditions, ROW_BUDGET)


def _conditions(search: Search, map: Map) -> Conditions:
    score_at = search.score_at(range(search.steps))
    return Conditions(engine_for(search, map), search.steps, search.inner.batch, score_at)
