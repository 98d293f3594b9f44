"""The loss around a rule in the space of its coefficients: curvature, and what moves that can be felt cost."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.evaluation import Progress
from metarule.inner import Runs
from metarule.inspection.coordinates import Coordinates
from metarule.inspection.subject import Subject
from metarule.intervals import interval
from metarule.rng import seed_number

STEP = 0.3
"""Displacement of the differences, in units: wide enough to look over the ripples of single episodes."""

FEWEST, MOST = 6, 32
"""Episodes of an evaluation."""

AFFORDED = 8e9
"""Weights times events that an evaluation may take: about six seconds of one core."""

LEAST = 15_000
"""Weights that a step of the smallest network takes as long as."""


class Change(NamedTuple):
    """A change of the loss over paired episodes with its 95 % interval; infinite where a run diverged."""

    mean: float
    low: float
    high: float

    @property
    def seen(self) -> bool:
        """True where the episodes show it: the interval leaves 0 out, or the change is infinite."""
        return not math.isfinite(self.mean) or self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Landscape:
    """Losses about a rule on the same held-out episodes.

    `hessian` (K K) in the units of the coordinates; `knocked_out` what setting a coefficient to 0 adds, by name.
    """

    hessian: Float[Tensor, "K K"]
    knocked_out: dict[str, Change]
    episodes: int


def curvature(subject: Subject, at: Coordinates, progress: Progress) -> Landscape:
    """The Hessian and all knock-outs, in one evaluation of 1 + 2 K + K (K - 1) + K rows; a lost run is the worst."""
    size = len(at.names)
    axes = torch.eye(size, dtype=torch.float64) * STEP
    pairs = list(itertools.combinations(range(size), 2))
    both = [axes[one] + axes[two] for one, two in pairs]
    steps = torch.stack([torch.zeros(size, dtype=torch.float64), *axes, *-axes, *both, *(-each for each in both)])
    rows = torch.cat([at.moved(steps), _knocked(at)])
    losses = evaluated(subject, rows, affordable(subject, len(rows)), "the loss around the rule", progress)
    finite = losses.masked_fill(~losses.isfinite(), float(losses[losses.isfinite()].max()))
    mean = finite.mean(1)
    base, plus, minus = mean[0], mean[1 : 1 + size], mean[1 + size : 1 + 2 * size]
    hessian = torch.diag((plus - 2 * base + minus) / STEP**2)
    first = 1 + 2 * size
    for place, (one, two) in enumerate(pairs):
        up, down = mean[first + place], mean[first + len(pairs) + place]
        mixed = (up - plus[one] - plus[two] + 2 * base - minus[one] - minus[two] + down) / (2 * STEP**2)
        hessian[one, two] = hessian[two, one] = mixed
    return Landscape(hessian, _missed(at, losses[len(steps) :], losses[0]), losses.shape[1])


def around(subject: Subject, at: Coordinates, covariance: Float[Tensor, "K K"], progress: Progress) -> Landscape:
    """The knock-outs alone, beside a curvature that an outer loop's covariance stands for: its inverse."""
    rows = torch.cat([at.moved(torch.zeros(1, len(at.names), dtype=torch.float64)), _knocked(at)])
    losses = evaluated(subject, rows, affordable(subject, len(rows)), "the rule without each of its terms", progress)
    return Landscape(torch.linalg.pinv(covariance), _missed(at, losses[1:], losses[0]), losses.shape[1])


def _knocked(at: Coordinates) -> Float[Tensor, "K P"]:
    return torch.stack([at.without(frozenset({name})) for name in at.names])


def _missed(at: Coordinates, out: Float[Tensor, "K E"], base: Float[Tensor, "E"]) -> dict[str, Change]:
    return {name: paired(row, base) for name, row in zip(at.names, out, strict=True)}


def felt(
    subject: Subject, at: Coordinates, directions: Float[Tensor, "D K"], episodes: int, progress: Progress
) -> list[tuple[Change, Change]]:
    """What one unit forward and one unit back along each direction adds to the loss."""
    still = torch.zeros(1, len(at.names), dtype=torch.float64)
    rows = at.moved(torch.cat([still, directions, -directions]))
    losses = evaluated(subject, rows, episodes, "moves along its directions", progress)
    count = len(directions)
    return [(paired(losses[1 + k], losses[0]), paired(losses[1 + count + k], losses[0])) for k in range(count)]


def affordable(subject: Subject, rows: int) -> int:
    """Episodes on which so many rules can be compared in a few seconds, by the size of the network and the steps."""
    conditions, learner = subject.conditions, subject.learner
    numbers = conditions.batch * (learner.weights_per_run + learner.rule_numbers_per_run)
    return max(FEWEST, min(MOST, int(AFFORDED / (rows * conditions.steps * max(numbers, LEAST)))))


def evaluated(
    subject: Subject, rows: Float[Tensor, "C P"], episodes: int, what: str, progress: Progress
) -> Float[Tensor, "C E"]:
    """The loss of every row on the same held-out episodes, those left out on which the rule itself, row 0, is lost."""
    progress(f"{what}: {len(rows)} rules on {episodes} held-out episodes")
    runs = Runs(tuple(range(len(rows))), tuple(range(episodes)), seed_number(0, "landscape"))
    losses = (
        subject.conditions.outcome(subject.learner, rows, subject.task.held_out(), runs).loss[:, :, 0].to(torch.float64)
    )
    there = losses[0].isfinite()
    if int(there.sum()) < 2:
        raise ValueError(f"'{subject.name}' diverges on its own task; there is no loss to look around in")
    return losses[:, there]


def paired(row: Float[Tensor, "E"], base: Float[Tensor, "E"]) -> Change:
    """The change of the loss from one row to another, by episode."""
    gaps = row - base
    return Change(*interval(gaps.tolist())) if bool(gaps.isfinite().all()) else Change(math.inf, math.inf, math.inf)
