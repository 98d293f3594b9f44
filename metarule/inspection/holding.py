"""Whether a rule holds under a condition: what it is ahead of there, held to what it is ahead of on its own task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from metarule.evaluation import Battery, Tuning, battery, interval, printed
from metarule.inspection.conditions import Condition
from metarule.inspection.knockouts import said
from metarule.inspection.subject import Subject
from metarule.learner import Learner

TRANSPORT = "backprop"
"""The kind of credit assignment that is a rule's measure, not its rival: it is sent back through the weights."""

DISCOVERED = "discovered"
"""What a run's rule is called in every battery."""


class Tried(NamedTuple):
    """Scores per metric and held-out episode, and the tuning; without scores, `reason` says why there are none."""

    scores: dict[str, tuple[float, ...]]
    tuning: Tuning | None = None
    reason: str = ""


class Gap(NamedTuple):
    """By how much a rule is ahead of another learner, paired by episode: positive is better whatever the metric."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """What was seen under a condition; `found` is None where the rule itself could not be tried, see `reason`."""

    condition: Condition
    found: Battery | None
    reason: str = ""

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per learner and metric, as `metarule evaluate --json` prints them, with the condition."""
        if self.found is None:
            return
        table = self.found.table()
        name, group, detail, *_ = self.condition
        for row in table["rows"]:
            yield printed(row, table) | {"condition": name, "group": group, "detail": detail}

    def differences(self) -> Iterator[dict[str, Any]]:
        """The rule minus each of the others, with the condition."""
        for difference in self.found.table()["differences"] if self.found else ():
            yield {"condition": self.condition.name, **difference}

    def gaps(self) -> dict[str, Gap]:
        """Baseline -> how far the rule is ahead of it in the metric that comparisons are about."""
        if self.found is None or self.condition.subject is None:
            return {}
        metric, sign = _headline(self.condition.subject)
        own, *others = self.found.episodes
        return {
            name: _gap(self.found.episodes[own][metric], self.found.episodes[name][metric], sign) for name in others
        }


def name_of(subject: Subject) -> str:
    """What the subject is called in the battery's rows."""
    return DISCOVERED if subject.row is None else subject.name


def rivals(subject: Subject) -> dict[str, Learner]:
    """The baselines of a subject, itself apart; none where its network suits none of them."""
    try:
        return {name: learner for name, learner in subject.baselines.items() if name != name_of(subject)}
    except ValueError:
        return {}


def evidence(condition: Condition, tried: Mapping[str, Tried]) -> Evidence:
    """What the learners that were tried under a condition have shown."""
    if condition.subject is None:
        return Evidence(condition, None, condition.reason)
    own = tried[name_of(condition.subject)]
    if own.reason:
        return Evidence(condition, None, own.reason)
    scores = {name: each.scores for name, each in tried.items() if not each.reason}
    tunings = {name: each.tuning for name, each in tried.items() if each.tuning}
    missing = "; ".join(f"{name} could not be tried: {each.reason}" for name, each in tried.items() if each.reason)
    return Evidence(condition, battery(scores, condition.subject.task, 1, tunings), missing)


def verdict(here: Evidence, home: Evidence) -> dict[str, Any]:
    """Whether a condition holds, and why, in a sentence.

    It holds where every baseline without weight transport that the rule beats on its own task (the 95 % interval of
    the paired difference lies above 0) is beaten here too, and no other baseline is shown to be ahead of it by more
    than on its own task (the upper bound reaches the mean there, or 0 if that is in the rule's favour). None where the
    condition cannot be made, or nobody could be compared with.
    """
    name, group = here.condition.name, here.condition.group
    entry: dict[str, Any] = {"condition": name, "group": group}
    if here.found is None or here.condition.subject is None:
        return entry | {"holds": None, "sentence": f"{name}: not made: {here.reason}"}
    metric, _ = _headline(here.condition.subject)
    own = next(row for row in here.found.rows if row.metric == metric)
    figures = f"{name}: {metric} {said(own.mean, own.low, own.high)}"
    gaps, before = here.gaps(), home.gaps()
    lost = [other for other, gap in gaps.items() if not _kept(here.condition.subject, other, gap, before.get(other))]
    parts = [f"ahead of {other} by {_compared(gap, before.get(other))}" for other, gap in gaps.items()]
    if not gaps:
        return entry | {"holds": None, "sentence": f"{'; '.join([figures, here.reason or 'no baseline'])}"}
    conclusion = f"does not hold against {' and '.join(lost)}" if lost else "holds"
    if lost and all(gap.low <= 0 <= gap.high for gap in gaps.values()):
        conclusion += ", and nobody is ahead of anybody"
    note = f" ({here.reason})" if here.reason else ""
    return entry | {"holds": not lost, "sentence": f"{'; '.join([figures, *parts])}: {conclusion}{note}"}


def _kept(subject: Subject, other: str, gap: Gap, before: Gap | None) -> bool:
    if gap.mean == -math.inf:  # who diverges holds nowhere, were it at home also there
        return False
    rival = subject.baselines[other].credit.kind != TRANSPORT
    if rival and before is not None and before.low > 0:
        return gap.low > 0
    return gap.high >= (0.0 if before is None else min(before.mean, 0.0))


def _headline(subject: Subject) -> tuple[str, float]:
    metric = subject.task.headline
    return metric, 1.0 if subject.task.metrics[metric] == "max" else -1.0


def _gap(own: tuple[float, ...], other: tuple[float, ...], sign: float) -> Gap:
    if not all(map(math.isfinite, own)):
        return Gap(-math.inf, -math.inf, -math.inf)
    if not all(map(math.isfinite, other)):
        return Gap(math.inf, math.inf, math.inf)
    return Gap(*interval([sign * (a - b) for a, b in zip(own, other, strict=True)]))


def _compared(gap: Gap, before: Gap | None) -> str:
    own_task = "" if before is None or not math.isfinite(before.mean) else f" (own task {before.mean:+.3f})"
    if not math.isfinite(gap.mean):
        return ("all: it diverged" if gap.mean > 0 else "nothing: the rule diverged") + own_task
    return said(*gap, sign=True) + own_task
