"""ObservableExtractor: recordings become rows of observables, as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from metarule.collect import unknown
from metarule.identification.observables import GROUPS, columns, matrix, observables
from metarule.identification.recording import Recording


class ObservableExtractor(TransformerMixin, BaseEstimator):
    """List of recordings -> (recordings, observables), NaN where a recording does not allow an observable.

    Columns are those that any recording seen by `fit` has, in alphabetical order. Raises RecordingError where nothing
    can be computed of a recording, ValueError on an unknown group and where something else than recordings is given.
    """

    def __init__(self, groups: tuple[str, ...] = GROUPS) -> None:
        self.groups = groups

    def fit(self, X: Sequence[Recording], y: Any = None) -> ObservableExtractor:  # noqa: N803
        """Learn the names of the columns."""
        self.names_ = columns(self._rows(X))
        return self

    def transform(self, X: Sequence[Recording]) -> np.ndarray:  # noqa: N803
        """The observables of each recording."""
        check_is_fitted(self, "names_")
        return matrix(self._rows(X), self.names_)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns."""
        check_is_fitted(self, "names_")
        return np.asarray(self.names_, dtype=object)

    def _rows(self, recordings: Sequence[Recording]) -> list[dict[str, float]]:
        if not recordings_given(recordings):
            raise ValueError(f"ObservableExtractor takes a list of Recordings; {type(recordings).__name__} was given")
        for group in self.groups:
            if group not in GROUPS:
                raise ValueError(unknown("groups", group, GROUPS))
        return [observables(recording, tuple(self.groups)) for recording in recordings]


def recordings_given(given: Any) -> bool:
    """Whether `given` is a list of recordings and not a table."""
    return isinstance(given, (list, tuple)) and len(given) > 0 and all(isinstance(each, Recording) for each in given)
