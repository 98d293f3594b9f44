"""Calibrated: what the votes of a fitted model are worth, by rows that it never saw: probabilities, sets, novelty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from metarule.identification.calibration import (
    Rising,
    confidence_of,
    confident,
    p_values,
    temperature_of,
    tempered,
    threshold_of,
)
from metarule.identification.novelty import Distance


class Voting(Protocol):
    """A fitted model that knows some of the classes by their numbers, as scikit-learn's classifiers do."""

    @property
    def classes_(self) -> Any:
        """Numbers of the classes that it knows, in order."""
        ...

    def predict_proba(self, table: Any, /) -> Any:
        """(rows, its classes)."""
        ...


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A model over `classes` and what was learned of its votes: rows are tables of float32, NaN: missing.

    `scores` of known rows rise as less is given to their class, `novelty_scores` the less they are like the others;
    `doubt` and `away` are the two parts of the latter, sorted.
    """

    model: Voting
    classes: np.ndarray
    temperature: float
    confidence: Rising
    scores: np.ndarray
    distance: Distance
    doubt: np.ndarray
    away: np.ndarray
    novelty_scores: np.ndarray

    @classmethod
    def fitted(
        cls,
        model: Voting,
        classes: np.ndarray,
        table: np.ndarray,
        codes: np.ndarray,
        groups: np.ndarray,
        out_of_fold: np.ndarray,
    ) -> Calibrated:
        """By known rows, the numbers of their classes and votes for each by a model that never saw its group."""
        temperature = temperature_of(out_of_fold, codes)
        confidence = confidence_of(tempered(out_of_fold, temperature), codes)
        chances = confident(tempered(out_of_fold, temperature), confidence)
        distance = Distance.fitted(table, codes, groups)
        doubt, away = 1 - chances.max(axis=1), distance.of_known(chances.argmax(axis=1))
        ordered = np.sort(doubt), np.sort(away)
        scores = 1 - chances[np.arange(len(codes)), codes]
        known = _combined(doubt, away, *ordered)
        return cls(model, classes, temperature, confidence, scores, distance, *ordered, known)

    def probabilities(self, table: np.ndarray) -> np.ndarray:
        """(rows, classes)."""
        votes = voted(self.model, len(self.classes), table)
        return confident(tempered(votes, self.temperature), self.confidence)

    def prediction_set(self, table: np.ndarray, alpha: float) -> np.ndarray:
        """Which classes the set holds that covers 1 - alpha of rows, bool (rows, classes); the most probable always."""
        chances = self.probabilities(table)
        inside = 1 - chances <= threshold_of(self.scores, alpha)
        inside[np.arange(len(chances)), chances.argmax(axis=1)] = True
        return inside

    def novelty_score(self, table: np.ndarray) -> np.ndarray:
        """Higher: less like anything known."""
        chances = self.probabilities(table)
        away = self.distance.of(table, chances.argmax(axis=1))
        return _combined(1 - chances.max(axis=1), away, self.doubt, self.away)

    def novelty_p(self, table: np.ndarray) -> np.ndarray:
        """Conformal p-value of the novelty score: uniform, or above it, for rows like those known."""
        return p_values(self.novelty_score(table), self.novelty_scores)


def voted(model: Voting, classes: int, table: np.ndarray) -> np.ndarray:
    """Votes in the order of all classes, 0 for one that the model never saw."""
    found = np.zeros((len(table), classes))
    found[:, model.classes_] = model.predict_proba(table)
    return found


def _combined(doubt: np.ndarray, away: np.ndarray, known_doubt: np.ndarray, known_away: np.ndarray) -> np.ndarray:
    """Mean rank of doubt and distance among the known rows; a distance beyond all known counts further."""
    ranks, far = (
        np.searchsorted(known, values, side="right") / len(known)
        for known, values in ((known_doubt, doubt), (known_away, away))
    )
    return (ranks + far) / 2 + np.maximum(away / (known_away[-1] + 1e-12) - 1, 0)
