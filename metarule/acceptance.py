"""The three acceptance tasks: every row of the zoo on digits, on digits behind a frozen readout, and as an autoencoder.

Classification alone does not test credit assignment: feedback alignment solves it. Behind frozen random layers only
rows that measure the weights above can learn, and an autoencoder wants more of the error than its sign.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch

from metarule.alignment import angle, gradient_descent, updates
from metarule.block import Block, World
from metarule.collect import unknown
from metarule.evaluation import Progress, interval
from metarule.inner import Map, Reference, Runs, in_turn
from metarule.learner import Learner
from metarule.network import Network
from metarule.params import starts
from metarule.signals import State
from metarule.tasks import Task
from metarule.tasks.digits import Digits
from metarule.zoo import ZOO, Algorithm, algorithm

ANGLE_EVENTS = 256
"""Events over which an update is averaged before its angle to backprop's is taken."""

TIMED_STEPS, TIMED_ROUNDS = 8, 7
"""A cost is the median ratio of this many interleaved rounds of this many steps."""

SEEDS = 4
"""Seeds where none are asked for."""

AT_ONCE = 18
"""Trainings handed to the workers between two messages."""

CURVE = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Fractions of the training after which a row is scored."""


class Trial(NamedTuple):
    """A task that every row is put to, and the hidden layers of a row that does not insist on its own."""

    task: Digits
    hidden: tuple[int, ...]


TRIALS: dict[str, Trial] = {
    "digits": Trial(Digits(), (64, 32)),
    "frozen": Trial(Digits("frozen"), (64, 32)),
    "autoencoder": Trial(Digits("autoencoder"), (32, 10, 32)),
}


@dataclass(frozen=True)
class Job:
    """One row on one task with `seeds` seeds, a value that a worker can be handed."""

    name: str
    trial: str
    seeds: int


@dataclass(frozen=True)
class Measured:
    """What became of a row on a task, one number per seed.

    `curve` is (steps done, mean of the metric); angles are degrees between the row's update of the hidden projections
    that learn and backprop's, None where none learns; `cost` is the time of a step in steps of backprop.
    """

    name: str
    trial: str
    metric: str
    values: tuple[float, ...]
    angle_start: float | None
    angle_end: float | None
    cost: float
    curve: tuple[tuple[int, float], ...]

    def row(self) -> dict[str, Any]:
        """The result as JSON values."""
        made = ZOO[self.name]
        mean, low, high = interval(self.values)
        return {
            "learner": self.name, "task": self.trial, "metric": self.metric,
            "mean": mean, "low": low, "high": high, "episodes": len(self.values), "seeds": len(self.values),
            "credit": made.credit.kind, "rule": made.rule.kind, "synapse": made.synapse.kind, "source": made.source,
            "angle": {"start": self.angle_start, "end": self.angle_end}, "cost": self.cost,
            "steps": self.curve[-1][0], "batch": made.host.batch, "values": list(self.values),
            "curve": [list(point) for point in self.curve],
        }  # fmt: skip


def host_network(row: Algorithm, trial: Trial) -> Network:
    """The network of a row on one of the tasks."""
    return row.host.network(trial.task.inputs, trial.hidden, trial.task.outputs, trial.task.output)


def trained(
    names: Sequence[str], seeds: int, map: Map = in_turn, progress: Progress = lambda text: None
) -> list[Measured]:
    """Rows of the zoo on all three tasks, each with its own fixed numbers; no tuning.

    A row is left out of a task that it cannot do, as `Algorithm.not_for` says. Raises ValueError on an unknown name
    and on fewer than two seeds: an interval needs several.
    """
    if seeds < 2:
        raise ValueError(f"--seeds {seeds} is too few for an interval; give at least 2")
    jobs = []
    for name in names:
        refused = algorithm(name).not_for
        jobs += [Job(name, trial, seeds) for trial in TRIALS if trial not in refused]
        for reason in dict.fromkeys(refused.values()):
            progress(f"{name} is left out of {', '.join(t for t in refused if refused[t] == reason)}: {reason}")
    found: list[Measured] = []
    for first in range(0, len(jobs), AT_ONCE):
        progress(f"{len(found)} of {len(jobs)} trainings done; now {jobs[first].name}")
        found += map(measure, jobs[first : first + AT_ONCE])
    return found


def measure(job: Job) -> Measured:
    """Train one row on one task: scores along the way, angles before and after, time per step."""
    if job.trial not in TRIALS:
        raise ValueError(unknown("task", job.trial, TRIALS))
    row, trial = algorithm(job.name), TRIALS[job.trial]
    task = trial.task.held_out()
    learner = row.learner(host_network(row, trial))
    total, batch = steps_of(row, task), row.host.batch
    theta = starts(learner.params)[None]
    runs = Runs((0,), tuple(range(job.seeds)))
    engine = Reference(dtype=torch.float32)
    curve, outcome, done = [], None, 0
    cuts = sorted({max(1, round(fraction * total)) for fraction in CURVE})
    for cut in cuts:
        carry = outcome.carry if outcome else None
        outcome = engine.evaluate(
            learner, theta, task, runs, range(done, cut), batch, frozenset({"loss", "carry"}), carry=carry
        )
        curve.append((cut, float(outcome.scores[task.headline].mean())))
        done = cut
    assert outcome is not None
    assert outcome.carry is not None
    return Measured(
        job.name,
        job.trial,
        task.headline,
        tuple(outcome.scores[task.headline][0].tolist()),
        angle_to_backprop(learner, task, runs, batch, None),
        angle_to_backprop(learner, task, runs, batch, outcome.carry),
        cost(learner, task, runs, batch),
        tuple(curve),
    )


def steps_of(row: Algorithm, task: Digits) -> int:
    """Inner steps of a row's epochs over the training images."""
    return row.host.epochs * task.steps_per_epoch(row.host.batch)


def angle_to_backprop(learner: Learner, task: Task, runs: Runs, batch: int, carry: State | None) -> float | None:
    """Mean over runs of the angle in degrees between the learner's update and gradient descent's, from one state.

    Both are averaged over the same `ANGLE_EVENTS` events, over all hidden projections that learn; None where there is
    none, or where the learner does not move them at all.
    """
    world = _world(learner, task, runs, batch, carry)
    hidden = [
        p.name
        for p in learner.plastic
        if p in learner.network.projections and p.target != learner.network.output_name and p.name not in world.frozen
    ]
    if not hidden:
        return None
    with torch.no_grad():
        columns = learner.columns(world.block.theta)
        batches = [(step, world.episode.train(step)) for step in range(max(ANGLE_EVENTS // batch, 1))]
        own, other = updates(learner, columns, world.start(columns), batches, world.run_noise.at("angle"))
    angles = angle(*(torch.cat([changes[name].flatten(1) for name in hidden], dim=1) for changes in (own, other)))
    return None if bool(angles.isnan().any()) else float(angles.mean())


def cost(learner: Learner, task: Task, runs: Runs, batch: int) -> float:
    """Time of a step over time of a step of backprop on the same network, batch and task: median of paired ratios."""
    worlds = [_world(each, task, runs, batch, None) for each in (learner, gradient_descent(learner.network))]
    spent: list[list[float]] = [[], []]
    with torch.no_grad():
        held = []
        for world in worlds:
            columns = world.learner.columns(world.block.theta)
            held.append((columns, world.advance(columns, world.start(columns), range(1), in_place=False)))
        for turn in range(TIMED_ROUNDS):
            steps = range(1 + turn * TIMED_STEPS, 1 + (turn + 1) * TIMED_STEPS)
            for place, world in enumerate(worlds):
                columns, state = held[place]
                begin = time.perf_counter()
                held[place] = columns, world.advance(columns, state, steps, in_place=False)
                spent[place].append(time.perf_counter() - begin)
    return median(own / other for own, other in zip(*spent, strict=True))


def _world(learner: Learner, task: Task, runs: Runs, batch: int, carry: State | None) -> World:
    theta = starts(learner.params, torch.float32).expand(len(runs.addresses), -1)
    return World(
        Block(
            learner, theta, task, runs.addresses, runs.seed, range(1), batch, frozenset(), (), (1,), None, carry,
            torch.float32, 1,
        )
    )  # fmt: skip
