"""The loss around a rule in the space of its coefficients: curvature, and what moves that can be felt cost."""

from __future__ import annotations

import itertools
import math
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

FAR = 1e3
"""A loss so many times the rule's own is as bad as a lost run: how much worse than that says nothing of curvature."""

FEWEST, MOST = 6, 32
"""Episodes of an evaluation."""

AFFORDED = 5e9
"""Weights times events that an evaluation may take: about eight seconds of one core."""

LEAST = 30_000
"""Weights that a step of the smallest network takes as long as."""


class DivergedError(ValueError):
    """There is no loss around a rule: it diverges."""


class Change(NamedTuple):
    """A change of the loss over paired `episodes` with its 95 % interval; infinite where a run diverged."""

    mean: float
    low: float
    high: float
    episodes: int

    @property
    def seen(self) -> bool:
        """True where the episodes show it: the interval leaves 0 out, or the change is infinite."""
        return not math.isfinite(self.mean) or self.low > 0 or self.high < 0


def hessian(subject: Subject, at: Coordinates, progress: Progress) -> Float[Tensor, "K K"]:
    """The Hessian of the mean loss in the units of the coordinates, by central differences on the same episodes.

    All 1 + 2 K + K (K - 1) rows are one evaluation; a lost run counts as `FAR` times the rule's own loss.
    """
    size = len(at.names)
    axes = torch.eye(size, dtype=torch.float64) * STEP
    pairs = list(itertools.combinations(range(size), 2))
    # half-way between two axes: a loss that only their sum or difference moves is found exactly flat across it
    both = [(axes[one] + axes[two]) / 2 for one, two in pairs]
    steps = torch.stack([_still(at)[0], *axes, *-axes, *both, *(-each for each in both)])
    losses = evaluated(subject, at.moved(steps), "the loss around the rule", progress)
    mean = losses.clamp(max=FAR * float(losses[0].abs().mean())).mean(1)
    base, plus, minus = mean[0], mean[1 : 1 + size], mean[1 + size : 1 + 2 * size]
    found = torch.diag((plus - 2 * base + minus) / STEP**2)
    first = 1 + 2 * size
    for place, (one, two) in enumerate(pairs):
        across = (mean[first + place] - 2 * base + mean[first + len(pairs) + place]) / (STEP / 2) ** 2
        found[one, two] = found[two, one] = (across - found[one, one] - found[two, two]) / 2
    return found


def felt(
    subject: Subject, at: Coordinates, directions: Float[Tensor, "D K"], progress: Progress
) -> list[tuple[Change, Change]]:
    """What one unit forward and one unit back along each direction adds to the loss."""
    rows = at.moved(torch.cat([_still(at), directions, -directions]))
    changes = changed(subject, rows, "moves along its directions", progress)
    return list(zip(changes[: len(directions)], changes[len(directions) :], strict=True))


def missed(subject: Subject, at: Coordinates, progress: Progress) -> dict[str, Change]:
    """What setting each coefficient to 0 adds to the loss."""
    out = torch.stack([at.without(frozenset({name})) for name in at.names])
    changes = changed(subject, torch.cat([at.theta, out]), "the rule without each of its terms", progress)
    return dict(zip(at.names, changes, strict=True))


def changed(subject: Subject, rows: Float[Tensor, "C P"], what: str, progress: Progress) -> list[Change]:
    """What every row but the first adds to the loss of the first, by episode."""
    losses = evaluated(subject, rows, what, progress)
    return [_paired(row, losses[0]) for row in losses[1:]]


def affordable(subject: Subject, rows: int) -> int:
    """Episodes on which so many rules can be compared in a few seconds, by the size of the network and the steps."""
    conditions, learner = subject.conditions, subject.learner
    numbers = conditions.batch * (learner.weights_per_run + learner.rule_numbers_per_run)
    return max(FEWEST, min(MOST, int(AFFORDED / (rows * conditions.steps * max(numbers, LEAST)))))


def evaluated(subject: Subject, rows: Float[Tensor, "C P"], what: str, progress: Progress) -> Float[Tensor, "C E"]:
    """The loss of every row on the same held-out episodes, those left out on which the rule itself, row 0, is lost."""
    episodes = affordable(subject, len(rows))
    progress(f"{what}: {len(rows)} rules on {episodes} held-out episodes")
    runs = Runs(tuple(range(len(rows))), tuple(range(episodes)), seed_number(0, "landscape"))
    losses = (
        subject.conditions.outcome(subject.learner, rows, subject.task.held_out(), runs).loss[:, :, 0].to(torch.float64)
    )
    there = losses[0].isfinite()
    if int(there.sum()) < 2:
        raise DivergedError(f"'{subject.name}' diverges on its own task; there is no loss to look around in")
    return losses[:, there]


def _paired(row: Float[Tensor, "E"], base: Float[Tensor, "E"]) -> Change:
    """The change of the loss from one row to another, by episode."""
    gaps = row - base
    if not bool(gaps.isfinite().all()):
        return Change(math.inf, math.inf, math.inf, len(gaps))
    mean, low, high = interval(gaps.tolist())
    return Change(mean, low, high, len(gaps))


def _still(at: Coordinates) -> Float[Tensor, "1 K"]:
    return torch.zeros(1, len(at.names), dtype=torch.float64)
