"""Metrics of identification: accuracy with an interval over networks, AUROC, calibration error."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

BINS = 10


def grouped_interval(
    correct: np.ndarray, groups: np.ndarray, n_boot: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """(mean, low, high): share of True and its 95 % interval by bootstrap over groups, never over their rows."""
    correct = np.asarray(correct, dtype=float)
    if len(correct) == 0:
        return float("nan"), float("nan"), float("nan")
    _, index = np.unique(groups, return_inverse=True)
    sums, counts = (np.bincount(index, weights=each) for each in (correct, np.ones_like(correct)))
    drawn = np.random.default_rng(seed).integers(len(sums), size=(n_boot, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(correct.mean()), float(low), float(high)


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative, ties half."""
    return float(roc_auc_score(np.asarray(positive, dtype=int), score))


def ece(probabilities: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """Expected calibration error of the leading class over ten equal bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1)
    right = classes[probabilities.argmax(axis=1)] == labels
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(confidence[places == bin_].mean() - right[places == bin_].mean()) * np.mean(places == bin_)
        for bin_ in np.unique(places)
    ]
    return float(np.sum(gaps))
