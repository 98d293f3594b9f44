"""Coefficients from activity alone, or from weights seen now and then: Gauss-Newton through the learning dynamics.

One layer with known first weights, inputs and nonlinearity is simulated under sum_k theta_k term_k; forward-mode
sensitivities of all weights to all coefficients give the Jacobian of what was observed, Levenberg and Marquardt's
damping the step. The fit is then linear in good approximation: selection, intervals and null directions are those of
sparse regression on the sensitivities, followed by a refit, until the support stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metarule.identification.dictionary import CLUSTERS, Normal, vocabulary
from metarule.identification.shooting import Shooting, Trajectory, trajectories
from metarule.identification.sparse import FOLDS, Selection, select
from metarule.terms import Term

__all__ = ["Trajectory", "fit", "trajectories"]

ITERATIONS = 60
ROUNDS = 6
"""Selections and refits at most, until the support stays."""

STILL = 1e-12
"""A step that lowers the summed squares by a smaller share ends a fit."""


def fit(
    observed: Sequence[Trajectory],
    terms: Sequence[Term] | None = None,
    step: float = 1.0,
    criterion: str = "ebic",
    n_boot: int = 50,
    seed: int = 0,
) -> tuple[Selection, float]:
    """The sparse equation dW = step sum_k theta_k term_k of trajectories that share it, and what local terms explain.

    `r2` is the share of what learning did to the observed numbers, whose squares are summed against those of a layer
    that stays as it is.
    """
    if terms is None:
        terms = vocabulary(all(each.target is not None for each in observed))
    shooting = Shooting.of(observed, terms, step, CLUSTERS)
    selection = _sparse(shooting, criterion, n_boot, seed)
    local = [k for k, each in enumerate(terms) if "error" not in each.factors]
    if len(local) == len(terms):
        return selection, selection.r2_held_out
    alone = Shooting.of(observed, [terms[k] for k in local], step, CLUSTERS)
    return selection, _sparse(alone, criterion, 0, seed).r2_held_out


def _sparse(shooting: Shooting, criterion: str, n_boot: int, seed: int) -> Selection:
    every = list(range(len(shooting.terms)))
    theta = minimised(shooting, np.zeros(len(every)), every)
    known: list[set[int]] = []
    names = tuple(each.name for each in shooting.terms)
    for _ in range(ROUNDS):
        normal = linearised(shooting, theta)
        support = [names.index(name) for name in select(normal, criterion, 0).support]
        if set(support) in known:
            break
        known.append(set(support))
        start = np.zeros(len(every))
        start[support] = theta[support]
        theta = minimised(shooting, start, support)
    selection = select(linearised(shooting, theta), criterion, n_boot, seed)
    support = [names.index(name) for name in selection.support]
    energy = shooting.evaluate(np.zeros(len(every)), []).energy
    rest = shooting.evaluate(theta, []).energy
    clusters = np.arange(len(energy)) % FOLDS
    left = 0.0
    for fold in range(FOLDS):
        out = clusters == fold
        refitted = minimised(shooting, theta, support, (~out).astype(float))
        left += shooting.evaluate(refitted, []).energy[out].sum()
    return replace(
        selection,
        coefficients={name: float(theta[names.index(name)]) for name in selection.support},
        r2=float(1 - rest.sum() / energy.sum()),
        r2_held_out=float(1 - left / energy.sum()),
    )


def linearised(shooting: Shooting, theta: np.ndarray) -> Normal:
    """The regression that the fit is near `theta`: what was observed = Jacobian x coefficients + noise."""
    names = tuple(each.name for each in shooting.terms)
    found = shooting.evaluate(theta, list(range(len(names))))
    turned = found.gram @ theta
    energy = found.energy + 2 * found.cross @ theta + turned @ theta
    return Normal(names, found.gram, found.cross + turned, energy, shooting.freedom)


def minimised(
    shooting: Shooting, start: np.ndarray, support: list[int], weights: np.ndarray | None = None
) -> np.ndarray:
    """Coefficients of least summed squares, those outside `support` held; `weights` counts each cluster so often."""
    theta = start.copy()
    if not support:
        return theta
    damping = 1e-3

    def at(point: np.ndarray, columns: list[int]) -> tuple[np.ndarray, np.ndarray, float]:
        found = shooting.evaluate(point, columns)
        weight = np.ones(len(found.energy)) if weights is None else weights
        with np.errstate(invalid="ignore"):
            return np.tensordot(weight, found.gram, 1), weight @ found.cross, float(weight @ found.energy)

    gram, cross, energy = at(theta, support)
    for _ in range(ITERATIONS):
        size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        scaled = gram / np.outer(size, size)
        moved = theta.copy()
        moved[support] += np.linalg.solve(scaled + damping * np.eye(len(size)), cross / size) / size
        tried = at(moved, [])[2]
        if not tried < energy:
            damping *= 8
            if damping > 1e8:
                break
            continue
        done = energy - tried < STILL * energy and damping < 1e-4
        theta, damping = moved, max(damping / 5, 1e-14)
        gram, cross, energy = at(theta, support)
        if done or energy < 1e-24 * shooting.freedom:
            break
    return theta
