"""Terms that do nothing on a task and terms that do the same there: how their rule is written with fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.inspection.coordinates import Coordinates
from metarule.inspection.references import Moment, action, rules_of

NOTHING = 1e-6
"""Share of the update below which a contribution is none, and distance below which two are one."""


class Twin(NamedTuple):
    """A term that acts as a weighted sum of others, whatever the coefficients."""

    name: str
    weights: dict[str, float]


class Redundancy(NamedTuple):
    """What the task's own signals say of the terms.

    `share` of the update's norm that goes with each term, `silent` terms that move nothing whatever their coefficient,
    `twins` those that others can say, and the row without both that acts the same (P), where there is one. `moved` is
    the action of one unit of each term.
    """

    share: dict[str, float]
    silent: tuple[str, ...]
    twins: tuple[Twin, ...]
    reduced: Float[Tensor, "P"] | None
    moved: Float[Tensor, "K F"]
    whole: Float[Tensor, "F"]


def redundancy(seen: Sequence[Moment], at: Coordinates) -> Redundancy:
    """Shares, silent terms and twins on what was seen of the task."""
    whole = action(seen, rules_of(at.learner, at.theta[0]))
    size = float(whole.norm())
    share = {
        name: float((whole - action(seen, rules_of(at.learner, at.without(frozenset({name}))))).norm()) / size
        if size
        else 0.0
        for name in at.names
    }
    steps = at.moved(torch.eye(len(at.names), dtype=torch.float64))
    moved = torch.stack([action(seen, rules_of(at.learner, row)) - whole for row in steps])
    largest = float(moved.norm(dim=1).max())
    silent = tuple(
        name for name, each in zip(at.names, moved, strict=True) if float(each.norm()) <= NOTHING * max(largest, size)
    )
    twins = _twins(at, moved, share, silent)
    return Redundancy(share, silent, twins, _reduced(seen, at, whole, share, twins), moved, whole)


def _twins(
    at: Coordinates, moved: Float[Tensor, "K F"], share: dict[str, float], silent: tuple[str, ...]
) -> tuple[Twin, ...]:
    """Terms in the span of those that do more: the strongest are kept."""
    order = sorted((k for k, name in enumerate(at.names) if name not in silent), key=lambda k: -share[at.names[k]])
    kept: list[int] = []
    twins = []
    for k in order:
        if kept:
            # columns of one length, or the residual would be that of the longest alone
            design = (moved[kept] / moved[kept].norm(dim=1, keepdim=True)).T
            weights = torch.linalg.lstsq(design, moved[k][:, None]).solution[:, 0]
            if float((moved[k] - design @ weights).norm()) <= NOTHING * float(moved[k].norm()):
                weights = weights / moved[kept].norm(dim=1)
                said = {at.names[j]: weight for j, weight in zip(kept, weights.tolist(), strict=True)}
                twins.append(Twin(at.names[k], {name: value for name, value in said.items() if abs(value) > NOTHING}))
                continue
        kept.append(k)
    return tuple(twins)


def _reduced(
    seen: Sequence[Moment],
    at: Coordinates,
    whole: Float[Tensor, "F"],
    share: dict[str, float],
    twins: tuple[Twin, ...],
) -> Float[Tensor, "P"] | None:
    """The rule without the terms that nothing goes with, twins added to those that say the same; None where none is."""
    nulls = frozenset(name for name in at.names if share[name] <= NOTHING)
    gone = nulls | {twin.name for twin in twins}
    if not gone or len(gone) == len(at.names):
        return None
    row = at.without(gone)
    column = dict(zip(at.names, at.columns, strict=True))
    unit = dict(zip(at.names, at.units.tolist(), strict=True))
    for twin in twins:
        units = float(at.theta[0, column[twin.name]]) / unit[twin.name]
        for name, weight in twin.weights.items():
            row[column[name]] += units * weight * unit[name]
    gap = float((action(seen, rules_of(at.learner, row)) - whole).norm())
    return row if gap <= 10 * NOTHING * float(whole.norm()) else None
