"""Splitters: leave out one rule, or one architecture, at a time."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator, LeaveOneGroupOut


class LeaveOneRuleOut(BaseCrossValidator):
    """Each class in turn is tested and never trained on: what is not known has to be rejected."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Generator[tuple[np.ndarray, np.ndarray], Any, None]:  # noqa: N803
        """(train, test) rows per class; raises ValueError where there are fewer than three classes."""
        labels = self._labels(y)
        for label in np.unique(labels):
            yield np.flatnonzero(labels != label), np.flatnonzero(labels == label)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: N803  # pyright: ignore[reportIncompatibleMethodOverride]
        """The number of classes."""
        return len(np.unique(self._labels(y)))

    @staticmethod
    def _labels(y: Any) -> np.ndarray:
        if y is None:
            raise ValueError("y is missing: LeaveOneRuleOut leaves out one class of y at a time")
        labels = np.asarray(y)
        if len(np.unique(labels)) < 3:
            raise ValueError(f"y has {len(np.unique(labels))} classes; at least 3, so that two are left to tell apart")
        return labels


class LeaveOneArchitectureOut(LeaveOneGroupOut):
    """Each architecture in turn is tested and never trained on; `groups` names every row's architecture."""
