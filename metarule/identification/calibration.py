"""Calibration from out-of-fold probabilities: a temperature, confidence that rises with it, conformal thresholds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression, minimize_scalar

FLOOR = 1e-3
"""Added to vote shares before they are sharpened: no vote is no proof."""


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """p^(1/temperature), normalised (Guo et al., 2017)."""
    logits = np.log(np.asarray(probabilities, dtype=np.float64) + FLOOR) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def temperature_of(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """The temperature with the largest likelihood of the true classes `codes`."""
    rows = np.arange(len(codes))

    def loss(logarithm: float) -> float:
        return -float(np.log(tempered(probabilities, np.exp(logarithm))[rows, codes] + 1e-12).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded").x))  # pyright: ignore[reportAttributeAccessIssue]


class Rising(NamedTuple):
    """A function that never falls: `values` at `places`, straight between, level outside."""

    places: np.ndarray
    values: np.ndarray

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Its values."""
        return np.interp(places, self.places, self.values)


def confidence_of(probabilities: np.ndarray, codes: np.ndarray) -> Rising:
    """How often the leading class is the true one, rising with its probability (Zadrozny and Elkan, 2002)."""
    leading, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    order = np.lexsort((right, leading))
    leading, right = leading[order], right[order]
    # probabilities that rounding alone tells apart are one
    first = np.flatnonzero(np.diff(leading, prepend=-1.0) >= 1e-15)
    counts = np.diff(first, append=len(leading))
    shares = np.add.reduceat(right.astype(float), first) / counts
    found = isotonic_regression(shares, weights=counts.astype(float)).x
    return Rising(leading[first], np.minimum(found, 1 - 1 / (len(codes) + 2)))


def confident(probabilities: np.ndarray, confidence: Rising) -> np.ndarray:
    """Probabilities whose largest is as large as it is often right, and stays the largest; others share the rest."""
    rows, leading = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    others = probabilities.copy()
    others[rows, leading] = 0.0
    rest = others.sum(axis=1)
    others = others / np.where(rest > 0, rest, 1.0)[:, None]
    second = others.max(axis=1)
    top = np.where(rest > 0, np.maximum(confidence(probabilities.max(axis=1)), second / (1 + second)), 1.0)
    found = others * (1 - top)[:, None]
    found[rows, leading] = top
    return found


def threshold_of(scores: np.ndarray, alpha: float) -> float:
    """The conformal threshold: the ceil((n + 1)(1 - alpha))-th smallest score (Vovk et al., 2005).

    Raises ValueError where alpha does not lie between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha} must lie between 0 and 1; 0.1 leaves one row in ten uncovered")
    count = len(scores)
    rank = int(np.ceil((count + 1) * (1 - alpha)))
    return float("inf") if rank > count else float(np.sort(scores)[rank - 1])


def p_values(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(1 + how many known scores are as large) / (n + 1)."""
    ordered = np.sort(known)
    larger = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1 + larger) / (len(ordered) + 1)
