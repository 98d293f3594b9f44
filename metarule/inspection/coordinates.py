"""The free coefficients of a subject's rules as coordinates in which one unit means the same for all of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.inspection.subject import Subject
from metarule.learner import Learner
from metarule.results import Coefficient, coefficients


@dataclass(frozen=True)
class Coordinates:
    """Terms whose coefficients may move, K of them.

    One unit moves a coefficient by `size`, the median of the normalised ones' sizes; `units` (K) is what that is in
    theta, `columns` (K) where it stands there.
    """

    names: tuple[str, ...]
    owners: tuple[str, ...]
    values: tuple[float, ...]
    columns: tuple[int, ...]
    units: Float[Tensor, "K"]
    size: float
    learner: Learner
    theta: Float[Tensor, "1 P"]

    def moved(self, steps: Float[Tensor, "C K"]) -> Float[Tensor, "C P"]:
        """Rows of theta so many units away from the rule."""
        rows = self.theta.expand(len(steps), -1).clone()
        rows[:, list(self.columns)] += steps.to(rows.dtype) * self.units
        return rows

    def without(self, names: frozenset[str]) -> Float[Tensor, "P"]:
        """The row of theta with these coefficients at 0."""
        row = self.theta[0].clone()
        for name, column in zip(self.names, self.columns, strict=True):
            if name in names:
                row[column] = 0.0
        return row


def free(subject: Subject) -> Subject:
    """The subject with its rules' coefficients as columns of theta, also those that a row of the zoo holds fixed."""
    learner = subject.learner
    held = [each for each in coefficients(subject, subject.theta[0]) if each.owner in learner.fixed and _moves(each)]
    if subject.row is None or not held:
        return subject
    names = {each.owner for each in held}
    fixed = {name: value for name, value in learner.fixed.items() if name not in names}
    freed = Learner(
        learner.network, learner.credit, learner.rules, learner.synapses, learner.schedule, fixed, learner.start
    )
    own = (param.name for param in learner.params)
    known = dict(zip(own, subject.theta[0].tolist(), strict=True)) | dict(learner.fixed)
    theta = torch.tensor([[known[param.name] for param in freed.params]], dtype=torch.float64)
    return Subject(
        subject.name, freed, theta, subject.task, subject.conditions, subject.budget, subject.search, subject.path
    )


def coordinates(subject: Subject, most: int) -> Coordinates | None:
    """The `most` largest free coefficients; None where a rule has none, or is a list of numbers on a log scale."""
    places = {param.name: place for place, param in enumerate(subject.learner.params)}
    own = [each for each in coefficients(subject, subject.theta[0]) if each.owner in places and _moves(each)]
    if not own:
        return None
    leading = sorted(own, key=lambda each: -abs(each.normalised))[:most]
    own = [each for each in own if each in leading]
    sizes = [abs(each.normalised) for each in own if each.normalised]
    size = statistics.median(sizes) if sizes else 1.0
    return Coordinates(
        tuple(each.name for each in own),
        tuple(each.owner for each in own),
        tuple(each.normalised for each in own),
        tuple(places[each.owner] for each in own),
        torch.tensor([size * each.unit / each.scale for each in own], dtype=torch.float64),
        size,
        subject.learner,
        subject.theta.to(torch.float64),
    )


def _moves(each: Coefficient) -> bool:
    return each.on and not each.param.log
