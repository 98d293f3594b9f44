"""Identifiability: which directions in the space of its terms a task determines, and which rules it cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.evaluation import Progress
from metarule.inner import Map, Reference, in_turn
from metarule.inspection.classes import classes, members
from metarule.inspection.coordinates import Coordinates, coordinates, free
from metarule.inspection.landscape import Change, DivergedError, changed, felt, hessian, missed
from metarule.inspection.redundancy import NOTHING, Redundancy, redundancy
from metarule.inspection.references import references
from metarule.inspection.subject import Subject
from metarule.jobs import recorded, resumed
from metarule.loop import begun
from metarule.results import equations, text
from metarule.runs import RunFolder

TERMS = 12
"""Coefficients up to which the whole Hessian is computed; of more, the covariance is used, or the largest alone."""

CORRELATED = 40
"""Coefficients up to which an outer loop's covariance is taken apart."""

SMALL = 0.05
"""Share of the update up to which a term may be called null because the episodes do not miss it."""

TOGETHER, WEIGHTS = 32, 20_000_000
"""Runs that are computed side by side, and the weights that they may have in all."""

SHOWN = 0.05
"""Weight below which a term is left out of a direction's description."""


class Spectrum(NamedTuple):
    """Curvatures of the loss (K), the strongest first, and their directions (K K, rows)."""

    values: Float[Tensor, "K"]
    directions: Float[Tensor, "K K"]


def identifiability(
    subject: Subject, map: Map = in_turn, progress: Progress = lambda text: None
) -> dict[str, Any] | None:
    """Spectrum, null terms, reduced equation and classes of equivalent rules; None for a zoo row without coefficients.

    A direction is determined where one unit along it, forward or back, changes the held-out loss by more than the 95 %
    interval over paired episodes; a unit is the median size of the normalised coefficients. A term is null where
    nothing of the update goes with it on the task's own signals, or where its share is at most `SMALL` and the paired
    episodes do not miss it. Of a rule that diverges on its own task there is a sentence and nothing else.
    """
    try:
        return _around(_together(free(subject), map), progress)
    except DivergedError as error:
        return _nothing(f"Not to be said: {error}.")


def _around(subject: Subject, progress: Progress) -> dict[str, Any] | None:
    at = coordinates(subject, CORRELATED)
    if at is None:
        return _without_terms(subject) if subject.path is not None else None
    covariance = _covariance(subject, at) if len(at.names) > TERMS else None
    if covariance is None:
        at = coordinates(subject, TERMS)
        assert at is not None
    found = redundancy(seen := references(subject), at)
    curvature = hessian(subject, at, progress) if covariance is None else torch.linalg.pinv(covariance)
    spectrum = _spectrum(curvature)
    moves = felt(subject, at, spectrum.directions, progress)
    rows = _rows(at, spectrum, moves)
    nulls = _nulls(at, found, missed(subject, at, progress))
    every = len(_all(subject))
    method = "covariance of the outer loop" if covariance is not None else "Hessian of the held-out loss"
    return {
        "method": method
        if every
        else f"{method}, for the {len(at.names)} largest of {len(_all(subject))} coefficients",
        "sentence": _sentence(rows, at),
        "spectrum": rows,
        "null_terms": nulls,
        "reduced_equation": _reduced(subject, at, found, nulls, progress),
        "classes": [*_twins(found), *classes(members(subject, found.reduced), seen)],
        "unit": at.size,
        "episodes": moves[0][0].episodes,
        "shares": found.share,
    }


def _together(subject: Subject, map: Map) -> Subject:
    """The subject where runs are computed side by side, which a search that stores gradients may not have done.

    In float64: what a direction does not change at all must not look like a small change.
    """
    together = max(1, min(TOGETHER, WEIGHTS // max(subject.learner.weights_per_run, 1)))
    engine = Reference(together, torch.float64, map=map)
    return subject.on(conditions=replace(subject.conditions, engine=engine))


def _without_terms(subject: Subject) -> dict[str, Any]:
    """What there is to say of a rule that has no coefficients: which others act as it does."""
    said = _nothing("The rule has no free coefficients that a task could determine.")
    return said | {"classes": classes(members(subject, None), references(subject))}


def _nothing(sentence: str) -> dict[str, Any]:
    return {
        "method": "none",
        "sentence": sentence,
        "spectrum": [],
        "null_terms": [],
        "reduced_equation": None,
        "classes": [],
        "unit": None,
        "episodes": 0,
        "shares": {},
    }


def _all(subject: Subject) -> tuple[str, ...]:
    whole = coordinates(subject, len(subject.learner.params))
    return whole.names if whole else ()


def _covariance(subject: Subject, at: Coordinates) -> Float[Tensor, "K K"] | None:
    """The outer loop's covariance where the run stands, in the units of the coordinates; None where it has none.

    It is of the task that was searched on: of any other it says nothing.
    """
    if subject.path is None or subject.search is None:
        return None
    folder = RunFolder(subject.path)
    search = resumed(folder, recorded(folder))
    checkpoint, _ = folder.checkpoint()
    if search.choices or checkpoint is None or len(_all(subject)) > len(at.names):
        return None
    outer = begun(search)
    outer.load_state_dict(checkpoint.state)
    covariance = outer.covariance
    if covariance is None:
        return None
    columns = list(at.columns)
    scales = torch.tensor([subject.learner.params[column].scale for column in columns], dtype=torch.float64) / at.units
    return covariance[columns][:, columns] * scales[:, None] * scales


def _spectrum(curvature: Float[Tensor, "K K"]) -> Spectrum:
    values, vectors = torch.linalg.eigh(curvature)
    order = values.abs().argsort(descending=True)
    # a direction and its opposite are one: the largest weight is positive
    rows = vectors[:, order].T
    signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return Spectrum(values[order], rows * signs)


def _rows(at: Coordinates, spectrum: Spectrum, moves: Sequence[tuple[Change, Change]]) -> list[dict[str, Any]]:
    total = float(spectrum.values.abs().sum()) or 1.0
    rows = []
    for value, direction, both in zip(spectrum.values.tolist(), spectrum.directions.tolist(), moves, strict=True):
        most = max([change for change in both if change.seen] or both, key=lambda change: abs(change.mean))
        weights = {name: weight for name, weight in zip(at.names, direction, strict=True) if abs(weight) >= SHOWN}
        rows.append(
            {
                "eigenvalue": value,
                "share": abs(value) / total,
                "determined": any(change.seen for change in both),
                "direction": dict(sorted(weights.items(), key=lambda item: -abs(item[1]))),
                "change": most._asdict(),
            }
        )
    return rows


def _sentence(rows: list[dict[str, Any]], at: Coordinates) -> str:
    count, episodes = sum(row["determined"] for row in rows), rows[0]["change"]["episodes"]
    which = "Every direction" if count == len(rows) else f"{count} of {len(rows)} directions"
    return (
        f"{which} in the space of the terms {'is' if count in (1, len(rows)) else 'are'} determined by the task: one "
        f"unit along it, forward or back, changes the loss by more than {episodes} paired held-out episodes leave open "
        f"(95 % each, not corrected for their number). A unit is {at.size:.3g} normalised, the median size of "
        "the coefficients."
    )


def _nulls(at: Coordinates, found: Redundancy, without: dict[str, Change]) -> list[dict[str, Any]]:
    rows = []
    for name in at.names:
        share, change = found.share[name], without[name]
        if name in found.silent:
            said = "the task's own signals give it nothing to do, whatever its coefficient"
        elif share <= NOTHING:
            said = "nothing of the update goes with it: its coefficient is 0, or what it adds to is"
        elif share <= SMALL and not change.seen:
            between = f"{change.mean:+.3g} [{change.low:+.3g} to {change.high:+.3g}]"
            said = (
                f"{100 * share:.2g} % of the update goes with it; without it the loss changes by {between} over "
                f"{change.episodes} paired episodes, which is nothing that they show"
            )
        else:
            continue
        rows.append({"name": name, "share": share, "sentence": f"{name}: {said}."})
    return rows


def _twins(found: Redundancy) -> list[dict[str, Any]]:
    """A term that others can say, as a class of its own."""
    rows = []
    for name, weights in found.twins:
        said = " ".join(f"{'+' if value > 0 else '−'} {abs(value):.3g} × {other}" for other, value in weights.items())
        said = said.removeprefix("+ ")
        sentence = (
            f"{name} acts as {said} on this task, per unit: only a combination of their coefficients is determined."
        )
        rows.append({"members": [*weights, name], "sentence": sentence, "kind": "terms"})
    return rows


def _reduced(
    subject: Subject, at: Coordinates, found: Redundancy, nulls: list[dict[str, Any]], progress: Progress
) -> str | None:
    """The equation without null terms and twins; None where there are none of them, or no equation.

    Terms that the episodes do not miss one by one stay where they miss them all.
    """
    row = subject.theta[0].clone() if found.reduced is None else found.reduced.clone()
    shorter = row.clone()
    unmissed = [each["name"] for each in nulls if each["share"] > NOTHING]
    for name, column in zip(at.names, at.columns, strict=True):
        if name in unmissed:
            shorter[column] = 0.0
    if unmissed and bool(shorter.any()):
        (change,) = changed(
            subject, torch.stack([subject.theta[0], shorter]), "the rule without its null terms", progress
        )
        row = row if change.seen else shorter
    return None if torch.equal(row, subject.theta[0]) else text(equations(subject, row))
