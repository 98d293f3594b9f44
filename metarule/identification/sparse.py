"""Sparse regression that knows what it does not know: few terms, intervals, and what the data leave open.

Columns are scaled to unit root mean square. Terms that the data cannot tell from simpler ones are set aside and
reported; of the others, the one that alone explains least is dropped again and again (sequential thresholding with
refits), and an information criterion picks the support along this path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from metarule.identification.dictionary import Normal, degree

CRITERIA = ("ebic", "bic", "aic")
"""Extended BIC (Chen and Chen, 2008), BIC, AIC."""

TOLERANCE = 1e-4
"""Directions with a singular value below this share of the largest are not determined by the data."""

FLOOR = 1e-9
"""Share of the changes that is rounding: what explains less is not looked for."""

LEAST = 0.02
"""Share that a term has to explain of what is left without it."""

FOLDS = 5
RIVAL = 6.0
"""A support is as good as the chosen one where its criterion is worse by less: strong evidence begins at 6."""


@dataclass(frozen=True)
class Selection:
    """The terms that were selected, with 95 % intervals and bootstrap frequencies, and what stays open.

    `r2` is the share of the summed squares of the changes that is explained, `r2_held_out` the share of changes that
    neither selection nor coefficients saw. A null direction (term -> weight) can be added to the coefficients without
    any change of what is predicted; `rivals` are pairs (selected term, other term) that can be swapped as well.
    """

    names: tuple[str, ...]
    coefficients: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    frequencies: dict[str, float]
    r2: float
    r2_held_out: float
    condition_number: float
    null_directions: tuple[dict[str, float], ...] = ()
    rivals: tuple[tuple[str, str], ...] = ()
    combinations: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def support(self) -> tuple[str, ...]:
        """The names of the selected terms."""
        return tuple(self.coefficients)

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Selected terms whose coefficient is only that of a combination with other terms."""
        return tuple(name for name in self.coefficients if name in self.combinations)


def still(names: tuple[str, ...]) -> Selection:
    """What is said of changes that are 0 everywhere: no term, nothing explained."""
    return Selection(names, {}, {}, {}, dict.fromkeys(names, 0.0), math.nan, math.nan, math.nan)


class Nulls(NamedTuple):
    """Columns that the others make up, and how: null direction (K) per dependent column; `condition` of the Gram."""

    dependent: tuple[int, ...]
    directions: np.ndarray
    condition: float


def select(
    normal: Normal, criterion: str = "ebic", n_boot: int = 50, seed: int = 0, tolerance: float = TOLERANCE
) -> Selection:
    """The sparse equation of the changes; raises ValueError on an unknown criterion or where nothing changes."""
    if criterion not in CRITERIA:
        raise ValueError(f"criterion = {criterion!r} is not one of {', '.join(CRITERIA)}")
    gram, cross, energy = normal.total()
    if not energy > 0:
        raise ValueError("the changes are 0 everywhere; there is no equation to find")
    nulls = null_directions(gram, normal.names, tolerance)
    active = [k for k in range(len(cross)) if k not in nulls.dependent]

    def chosen(weights: np.ndarray | None = None) -> tuple[list[int], np.ndarray]:
        parts = normal.total(weights)
        support = _support(*parts, active, normal.freedom, criterion)
        return support, solved(*parts[:2], support)

    support, theta = chosen()
    clusters = len(normal.energy)
    generator = np.random.default_rng(seed)
    picked, drawn = np.zeros(len(cross)), []
    for _ in range(n_boot):
        weights = np.bincount(generator.integers(clusters, size=clusters), minlength=clusters).astype(float)
        picked[chosen(weights)[0]] += 1
        drawn.append(solved(*normal.total(weights)[:2], support))
    spread = np.quantile(drawn, [0.025, 0.975], axis=0) if drawn else np.array([theta, theta])
    named = [normal.names[k] for k in support]
    rest = rest_of(gram, cross, energy, theta)
    return Selection(
        normal.names,
        dict(zip(named, theta[support].tolist(), strict=True)),
        dict(zip(named, spread[0][support].tolist(), strict=True)),
        dict(zip(named, spread[1][support].tolist(), strict=True)),
        dict(zip(normal.names, (picked / max(n_boot, 1)).tolist(), strict=True)),
        1 - rest / energy,
        _held_out(normal, chosen),
        nulls.condition,
        tuple(_named(direction, normal.names) for direction in nulls.directions),
        _rivals(normal, support, active, criterion),
        _combinations(nulls, normal.names),
    )


def null_directions(gram: np.ndarray, names: tuple[str, ...], tolerance: float = TOLERANCE) -> Nulls:
    """Which columns others make up, the most complex ones first, so that what remains is as simple as can be."""
    size = np.sqrt(np.diag(gram))
    silent = size <= 1e-20 * size.max(initial=0.0)
    places = np.flatnonzero(~silent)
    directions, dependent = [], []
    for k in np.flatnonzero(silent):
        directions.append(np.eye(len(names))[k])
        dependent.append(int(k))
    if not len(places):
        return Nulls(tuple(dependent), np.array(directions).reshape(-1, len(names)), 1.0)
    scaled = gram[np.ix_(places, places)] / np.outer(size[places], size[places])
    values, vectors = np.linalg.eigh(scaled)
    condition = float(values[-1] / max(values[0], np.finfo(float).eps))
    basis = vectors[:, values < tolerance**2 * values[-1]].T
    order = sorted(range(len(places)), key=lambda k: (-degree(names[places[k]]), -k))
    reduced, pivots = _reduced(basis, order)
    for row, pivot in zip(reduced, pivots, strict=True):
        raw = np.zeros(len(names))
        raw[places] = row / size[places]
        directions.append(raw / raw[places[pivot]])
        dependent.append(int(places[pivot]))
    return Nulls(tuple(dependent), np.array(directions).reshape(-1, len(names)), condition)


def _reduced(basis: np.ndarray, order: list[int]) -> tuple[np.ndarray, list[int]]:
    """A basis in reduced echelon form, pivots taken in `order` where they are not tiny."""
    rows, pivots = basis.copy(), []
    for least in (0.05, 0.0):
        for column in order:
            done = len(pivots)
            if done == len(rows):
                break
            place = done + int(np.argmax(np.abs(rows[done:, column])))
            if column in pivots or abs(rows[place, column]) <= least:
                continue
            rows[[done, place]] = rows[[place, done]]
            rows[done] /= rows[done, column]
            others = np.arange(len(rows)) != done
            rows[others] -= np.outer(rows[others, column], rows[done])
            pivots.append(column)
    rows[np.abs(rows) < 1e-3] = 0.0
    return rows, pivots


def solved(gram: np.ndarray, cross: np.ndarray, support: list[int]) -> np.ndarray:
    """Least squares on a support, 0 elsewhere (K)."""
    theta = np.zeros(len(cross))
    if support:
        size = np.sqrt(np.maximum(np.diag(gram)[support], 1e-300))
        scaled = gram[np.ix_(support, support)] / np.outer(size, size)
        theta[support] = np.linalg.lstsq(scaled, cross[support] / size, rcond=1e-13)[0] / size
    return theta


def rest_of(gram: np.ndarray, cross: np.ndarray, energy: float, theta: np.ndarray) -> float:
    """Summed squares that are left."""
    return max(float(energy - 2 * theta @ cross + theta @ gram @ theta), 0.0)


def path(gram: np.ndarray, cross: np.ndarray, energy: float, active: list[int]) -> list[tuple[list[int], float]]:
    """(support, summed squares left) from all active columns to none; each step drops what alone explains least."""
    size = np.sqrt(np.diag(gram))
    support = [k for k in active if size[k] > 0]
    found = []
    while support:
        scale = size[support]
        inverse = np.linalg.pinv(gram[np.ix_(support, support)] / np.outer(scale, scale), rcond=1e-13, hermitian=True)
        theta = inverse @ (cross[support] / scale)
        found.append((list(support), max(energy - theta @ (cross[support] / scale), 0.0)))
        alone = theta**2 / np.maximum(np.diag(inverse), 1e-300)
        support = [k for place, k in enumerate(support) if place != np.argmin(alone)]
    return [*found, ([], energy)]


def _support(
    gram: np.ndarray, cross: np.ndarray, energy: float, active: list[int], freedom: float, criterion: str
) -> list[int]:
    if not energy > 0:
        return []
    steps = path(gram, cross, energy, active)
    costs = [cost(rest / energy, len(support), len(active), freedom, criterion) for support, rest in steps]
    place = int(np.argmin(costs))
    # what is left of a wrong or a noisy equation is not independent: slight corrections to it are no terms
    while steps[place][0] and _corrects(steps[place][1], steps[place + 1][1], energy) < LEAST:
        place += 1
    return steps[place][0]


def _corrects(rest: float, without: float, energy: float) -> float:
    """Share that a term explains of what is left without it."""
    return (without - rest) / (without + FLOOR * energy)


def cost(rest: float, terms: int, candidates: int, freedom: float, criterion: str) -> float:
    """The criterion of a support: `rest` the share that it leaves, `freedom` the number of independent numbers."""
    fit = freedom * math.log(rest + FLOOR)
    if criterion == "aic":
        return fit + 2 * terms
    bic = fit + terms * math.log(max(freedom, 2.0))
    ways = gammaln(candidates + 1) - gammaln(terms + 1) - gammaln(candidates - terms + 1)
    return bic + (2 * float(ways) if criterion == "ebic" else 0.0)


def _held_out(normal: Normal, chosen: Callable[[np.ndarray], tuple[list[int], np.ndarray]]) -> float:
    folds = np.arange(len(normal.energy)) % FOLDS
    left = total = 0.0
    for fold in np.unique(folds):
        out = (folds == fold).astype(float)
        if out.all():
            return math.nan
        theta = chosen(1 - out)[1]
        gram, cross, energy = normal.total(out)
        left, total = left + rest_of(gram, cross, energy, theta), total + energy
    return 1 - left / total


def _rivals(normal: Normal, support: list[int], active: list[int], criterion: str) -> tuple[tuple[str, str], ...]:
    """Pairs (selected, other) whose exchange costs next to nothing."""
    gram, cross, energy = normal.total()

    def price(places: list[int]) -> float:
        rest = rest_of(gram, cross, energy, solved(gram, cross, places)) / energy
        return cost(rest, len(places), len(active), normal.freedom, criterion)

    best = price(support)
    found = []
    for k in support:
        for other in active:
            if other not in support and price([other if place == k else place for place in support]) < best + RIVAL:
                found.append((normal.names[k], normal.names[other]))
    return tuple(found)


def _named(direction: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, direction, strict=True) if abs(value) > 1e-9}


def _combinations(nulls: Nulls, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Kept term -> the combination of coefficients (term -> weight) that its coefficient stands for."""
    found: dict[str, dict[str, float]] = {}
    for k, direction in zip(nulls.dependent, nulls.directions, strict=True):
        for kept, value in _named(direction, names).items():
            if kept != names[k]:
                found.setdefault(kept, {kept: 1.0})[names[k]] = -value
    return found
