"""The stress battery: does a rule hold up where it was not found, and which of its terms does it need?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from metarule.evaluation import Conditions, Contender, Progress, tested, tuned
from metarule.inner import Map, in_turn
from metarule.inspection.conditions import Condition, alone, conditions
from metarule.inspection.holding import Tried, evidence, name_of, rivals, verdict
from metarule.inspection.knockouts import knock_ins, knock_outs, knocked, measured_with, measured_without
from metarule.inspection.subject import Subject
from metarule.learner import Learner
from metarule.rng import seed_number
from metarule.tasks import Task

FULL = 60_000_000
"""Work of a course, weights times events, up to which it is run with all episodes."""

CALLS = 10_000
"""Weights whose change takes as long as the calls of a step."""

EVENTS = 16
"""Events that take as long as the change of the weights."""

KNOCK_OUTS, KNOCK_INS = "knock-outs", "knock-ins"
"""What is computed beside the conditions."""


class Effort(NamedTuple):
    """How many episodes each number rests on; `least_` where a course of training is long.

    `episodes` held out per condition, `tuned` for all rates of a baseline together, `knocked` held out per knock-out
    or knock-in, `searched` per strength that a knock-in tries.
    """

    episodes: int = 60
    least_episodes: int = 20
    tuned: int = 88
    least_tuned: int = 44
    knocked: int = 40
    searched: int = 4

    def said(self) -> str:
        """The effort in words."""
        return (
            f"The rule kept its numbers; every baseline was tuned under each condition, {self.tuned} episodes in all "
            f"({self.least_tuned} where training is long). Means of {self.episodes} held-out episodes (down to "
            f"{self.least_episodes} where training is long; {self.knocked} for terms) with 95 % intervals, paired by "
            "episode, one seed; intervals are not corrected for their number."
        )


NORMAL = Effort()
"""The effort under which the demo takes two cores two minutes."""


class Trial(NamedTuple):
    """Work: one learner under one condition; its free rate is tuned there first unless it has its `theta`."""

    name: str
    learner: Learner
    theta: Tensor | None
    task: Task
    conditions: Conditions
    episodes: int
    budget: int


class Work(NamedTuple):
    """Something to compute on one core: a function of this package, what it is given, what it costs, what for."""

    do: Callable[[Any], Any]
    given: Any
    cost: float
    part: str
    learner: str = ""


def stress(
    subject: Subject,
    map: Map = in_turn,
    progress: Progress = lambda text: None,
    conditions_of: Callable[[Subject], list[Condition]] = conditions,
    effort: Effort = NORMAL,
) -> dict[str, Any]:
    """The stress battery of a subject as JSON values.

    Under every condition of `conditions_of`, its own task first, the rule has the numbers it has, and the baselines
    are tuned under that condition with the same budget; `holding.verdict` says whether the condition holds.
    Knock-outs and knock-ins are those of `knockouts.knocked`. Raises nothing of its own: what refuses is reported.
    """
    begun = time.monotonic()
    made = conditions_of(subject)
    notes: list[str] = []
    work = [
        each for condition in made if condition.subject for each in _trials(condition.name, condition.subject, effort)
    ]
    work += _knocks(subject, effort, notes)
    found = _computed(work, map, progress)
    shown = [
        evidence(condition, {name: each for (part, name), each in found.items() if part == condition.name})
        for condition in made
    ]
    without = found.get((KNOCK_OUTS, ""))
    added = [each for (part, _), each in found.items() if part == KNOCK_INS]
    return {
        "rows": [row for each in shown for row in each.rows()],
        "differences": [row for each in shown for row in each.differences()],
        "verdicts": [verdict(each, shown[0]) for each in shown[1:]],
        "knockouts": knocked(subject, without, added) if without else [],
        "notes": notes,
        "better": subject.task.metrics[subject.task.headline],
        "how": effort.said(),
        "episodes": effort.episodes,
        "seeds": 1,
        "seconds": time.monotonic() - begun,
    }


def _knocks(subject: Subject, effort: Effort, notes: list[str]) -> list[Work]:
    at_home = alone(subject)
    try:
        without = knock_outs(at_home, effort.knocked)
    except ValueError as error:
        notes.append(f"no knock-outs: {error}")
        return []
    cost = _cost(at_home)
    terms = without.opened.theta.shape[1]
    work = [Work(measured_without, without, cost * effort.knocked * (1 + 2 * terms), KNOCK_OUTS)]
    for each in knock_ins(at_home, effort.knocked, effort.searched):
        runs = effort.knocked + effort.searched * len(each.values)
        work.append(Work(measured_with, each, cost * runs, KNOCK_INS, each.param))
    return work


def _trials(condition: str, subject: Subject, effort: Effort) -> Iterator[Work]:
    """The rule and its baselines under one condition."""
    cost = _cost(subject)
    share = min(FULL / cost, 1.0)
    episodes = max(round(effort.episodes * share), min(effort.episodes, effort.least_episodes))
    budget = max(round(effort.tuned * share), min(effort.tuned, effort.least_tuned))
    place = (subject.task, subject.conditions, episodes, budget)
    own = name_of(subject)
    yield Work(tried, Trial(own, subject.learner, subject.theta, *place), cost * episodes, condition, own)
    for name, learner in rivals(subject).items():
        runs = episodes + (budget if learner.params else 0)
        yield Work(tried, Trial(name, learner, None, *place), cost * runs, condition, name)


def _cost(subject: Subject) -> float:
    course = subject.conditions
    weights = CALLS + subject.learner.weights_per_run + subject.learner.rule_numbers_per_run
    return course.steps * weights * (1 + course.batch / EVENTS)


def tried(trial: Trial) -> Tried:
    """One learner under one condition: tuned where it is a baseline, then tested on held-out episodes."""
    name, learner, theta, task, course, episodes, budget = trial
    try:
        if theta is None:
            contender = tuned(name, learner, task, course, budget, 0, lambda text: None)
        else:
            contender = Contender(name, learner, theta)
        return Tried(tested(contender, task, course, episodes, [seed_number(0, "stress")]), contender.tuning)
    except ValueError as error:  # what a credit assignment or a rule cannot do shows only when it is asked to
        return Tried({}, None, str(error))


def _computed(work: list[Work], spread: Map, progress: Progress) -> dict[tuple[str, str], Any]:
    """(part, learner) -> result of all work, the longest first; says so when a part is finished."""
    order = sorted(work, key=lambda each: -each.cost)
    left: dict[str, int] = {}
    for each in work:
        left[each.part] = left.get(each.part, 0) + 1
    parts = len(left)
    progress(f"stress: {parts} conditions, {len(work)} pieces of work")

    def arrived(place: int, result: Any) -> None:
        part = order[place].part
        left[part] -= 1
        if not left[part]:
            progress(f"stress: {part} ({sum(not each for each in left.values())} of {parts})")

    results = dict(zip(map(id, order), spread(_done, order, arrived), strict=True))
    return {(each.part, each.learner): results[id(each)] for each in work}


def _done(work: Work) -> Any:
    return work.do(work.given)
