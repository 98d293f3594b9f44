"""The held-out battery: fresh episodes, baselines tuned with the same care, paired intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.inner import Inner, Outcome, Runs
from metarule.intervals import interval
from metarule.learner import Learner
from metarule.params import starts
from metarule.rng import seed_number
from metarule.tasks import Task

GRID = 7
"""Rates on the first grid of a tuning, each twice the one before."""

SPARE = 4
"""Further rates that a tuning's budget pays for: the grid may grow by two, two more are tried about its best."""

WIDEST = 24
"""Rates tried at most, beyond the budget if need be: a baseline is not left without its best rate."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Conditions:
    """How every learner of a comparison is run: the same engine, steps and batches.

    `score_at` numbers of steps done after which it is scored, the mean counts; default the end.
    """

    engine: Inner
    steps: int
    batch: int
    score_at: tuple[int, ...] = ()

    def outcome(self, learner: Learner, theta: Float[Tensor, "C P"], task: Task, runs: Runs) -> Outcome:
        """What becomes of the rows of a learner under these conditions."""
        steps = range(self.steps)
        return self.engine.evaluate(learner, theta, task, runs, steps, self.batch, score_at=self.score_at)


@dataclass(frozen=True)
class Tuning:
    """A learning-rate search: what was tried, what each gave on search episodes, and which was best.

    `bracketed` says that the best rate has worse ones tried on both sides: a tie at an edge is none.
    """

    rates: tuple[float, ...]
    means: tuple[float, ...]
    best: float
    episodes: int
    bracketed: bool


@dataclass(frozen=True)
class Contender:
    """A learner with its numbers: theta (1 P), tuned where `tuning` says so."""

    name: str
    learner: Learner
    theta: Float[Tensor, "1 P"]
    tuning: Tuning | None = None


@dataclass(frozen=True)
class Row:
    """Mean of a metric over held-out episodes with its 95 % interval (Student's t over episodes)."""

    learner: str
    task: str
    metric: str
    mean: float
    low: float
    high: float
    episodes: int
    seeds: int


@dataclass(frozen=True)
class Difference:
    """Mean paired difference `learner` - `other` of a metric over the same episodes, with its 95 % interval."""

    learner: str
    other: str
    metric: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Battery:
    """Everything a held-out comparison found, numbers only."""

    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    tunings: Mapping[str, Tuning]
    episodes: Mapping[str, Mapping[str, tuple[float, ...]]] = field(repr=False)
    trained_on: str = ""
    tested_on: str = ""

    def table(self) -> dict[str, Any]:
        """The battery as JSON values."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "differences": [asdict(difference) for difference in self.differences],
            "tunings": {name: asdict(tuning) for name, tuning in self.tunings.items()},
            "trained_on": self.trained_on,
            "tested_on": self.tested_on,
        }


def tuned(
    name: str, learner: Learner, task: Task, conditions: Conditions, budget: int, seed: int, progress: Progress
) -> Contender:
    """A contender whose free rate is the best of a grid with `budget` episodes of the search's own data in all.

    Rates step by 2; the grid grows until its best has worse rates on both sides (in the baseline's favour also beyond
    the budget, up to `WIDEST` rates), then the two neighbours at sqrt(2) are tried; every rate has at least one
    episode. A learner without a free parameter is taken as it is; raises ValueError where it has several.
    """
    if not learner.params:
        return Contender(name, learner, torch.zeros(1, 0, dtype=torch.float64))
    check_tunable(name, learner)
    start = float(starts(learner.params)[0])
    episodes = max(budget // (GRID + SPARE), 1)
    metric = task.headline
    tried: dict[float, float] = {}

    def attempt(rates: list[float]) -> None:
        progress(f"tuning {name}: {len(tried) + len(rates)} rates, {episodes} episodes each")
        rows = torch.tensor([[rate] for rate in rates], dtype=torch.float64)
        runs = Runs(tuple(range(len(rates))), tuple(range(episodes)), seed_number(seed, "tuning"))
        outcome = conditions.outcome(learner, rows, task, runs)
        tried.update(zip(rates, outcome.scores[metric].mean(1).tolist(), strict=True))

    sign = 1.0 if task.metrics[metric] == "max" else -1.0

    def best() -> float:
        return max(sorted(tried), key=lambda rate: sign * tried[rate])

    def edges() -> list[float]:
        return [rate for rate in (min(tried), max(tried)) if tried[rate] == tried[best()]]

    attempt([start * 2.0**power for power in range(-(GRID // 2), GRID // 2 + 1)])
    while edges() and len(tried) < WIDEST:
        edge = edges()[-1]
        attempt([edge * 2 if edge == max(tried) else edge / 2])
    attempt([best() / math.sqrt(2), best() * math.sqrt(2)])
    rates = tuple(sorted(tried))
    tuning = Tuning(rates, tuple(tried[rate] for rate in rates), best(), episodes, bracketed=not edges())
    return Contender(name, learner, torch.tensor([[best()]], dtype=torch.float64), tuning)


def check_tunable(name: str, learner: Learner) -> None:
    """Raises ValueError where a learner has more than the one free parameter that a tuning can find."""
    if len(learner.params) > 1:
        given = ", ".join(param.name for param in learner.params)
        raise ValueError(f"'{name}' has {len(learner.params)} free parameters ({given}); fix all but one rate")


def compare(
    contenders: Sequence[Contender],
    task: Task,
    conditions: Conditions,
    episodes: int,
    seeds: Sequence[int],
    progress: Progress,
    label: str | None = None,
) -> Battery:
    """All contenders on the same fresh episodes of the held-out task: `episodes` for each of `seeds`.

    Differences are those of the first contender to each of the others, paired by episode.
    """
    scores = {}
    for contender in contenders:
        progress(f"testing {contender.name} on {episodes * len(seeds)} held-out episodes")
        scores[contender.name] = tested(contender, task, conditions, episodes, seeds)
    tunings = {contender.name: contender.tuning for contender in contenders if contender.tuning}
    return battery(scores, task, len(seeds), tunings, label)


def tested(
    contender: Contender, task: Task, conditions: Conditions, episodes: int, seeds: Sequence[int]
) -> dict[str, tuple[float, ...]]:
    """Metric -> its value in every episode of the held-out task: `episodes` for each of `seeds`."""
    fresh = task.held_out()
    found: dict[str, list[float]] = {metric: [] for metric in task.metrics}
    for seed in seeds:
        runs = Runs((0,), tuple(range(episodes)), seed_number(seed, "battery"))
        outcome = conditions.outcome(contender.learner, contender.theta, fresh, runs)
        for metric in found:
            found[metric] += outcome.scores[metric][0].tolist()
    return {metric: tuple(values) for metric, values in found.items()}


def battery(
    scores: Mapping[str, Mapping[str, tuple[float, ...]]],
    task: Task,
    seeds: int,
    tunings: Mapping[str, Tuning],
    label: str | None = None,
) -> Battery:
    """The comparison of what was `tested`, learner -> metric -> values in the same episodes; the first with each."""
    kind = label or task.kind
    order = sorted(task.metrics, key=lambda metric: metric != task.headline)
    rows = [
        Row(name, kind, metric, *interval(found[metric]), len(found[metric]), seeds)
        for metric in order
        for name, found in scores.items()
    ]
    first, *others = scores
    differences = [
        Difference(first, other, metric, *interval([a - b for a, b in zip(*pair, strict=True)]))
        for metric in order
        for other in others
        if all(map(math.isfinite, (pair := (scores[first][metric], scores[other][metric]))[0] + pair[1]))
    ]
    return Battery(tuple(rows), tuple(differences), tunings, scores, task.seen(), task.held_out().seen())


def printed(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A row of `Battery.table` as it is printed: with its rate, and by how much the first learner is ahead of it."""
    tuning = found["tunings"].get(row["learner"])
    extra = {"rate": tuning["best"], "bracketed": tuning["bracketed"]} if tuning else {}
    for each in found["differences"]:
        if (each["other"], each["metric"]) == (row["learner"], row["metric"]):
            extra["first_minus_it"] = {key: each[key] for key in ("learner", "mean", "low", "high")}
    return row | extra
