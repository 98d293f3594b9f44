"""RuleClassifier: observables -> the rule, with calibrated probabilities, prediction sets and rejection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from metarule.identification.calibrated import Calibrated, voted
from metarule.identification.extractor import ObservableExtractor, recordings_given
from metarule.identification.recording import Recording
from metarule.identification.reference import UNKNOWN

FOLDS = 5


class RuleClassifier(ClassifierMixin, BaseEstimator):
    """Extremely randomised trees (Geurts et al., 2006) over observables, calibrated on out-of-fold rows.

    Takes a table (NaN: missing) or a list of Recordings. No group is ever split between what trees are grown from and
    what they are calibrated on. With `reject`, and classes that are names, `predict` answers "unknown" where the
    novelty p-value lies below `rejection`. `estimator` replaces the trees. Prediction sets cover 1 - `alpha` of rows
    exchangeable with those it was fitted on (Vovk et al., 2005). Raises ValueError where recordings share a network
    and `groups` is missing.
    """

    _estimator_type: ClassVar[str] = "classifier"

    def __init__(
        self,
        estimator: Any = None,
        n_estimators: int = 300,
        alpha: float = 0.1,
        reject: bool = False,
        rejection: float = 0.05,
        random_state: int | None = 0,
    ) -> None:
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.alpha = alpha
        self.reject = reject
        self.rejection = rejection
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(
        self,
        X: np.ndarray | Sequence[Recording],  # noqa: N803
        y: Any,
        groups: Any = None,
        out_of_fold: np.ndarray | None = None,
    ) -> RuleClassifier:
        """Grow and calibrate.

        `groups` name every row's network; `out_of_fold` (rows, classes) are the raw probabilities of an earlier fit on
        the same rows, `out_of_fold_`, in place of a new cross-fit.
        """
        given: Any = X
        if recordings_given(given):
            groups = _networks(given, groups)
            self.extractor_ = ObservableExtractor().fit(given)
            given = self.extractor_.transform(given)
        elif hasattr(self, "extractor_"):
            del self.extractor_
        settings: Any = {"ensure_all_finite": "allow-nan", "dtype": np.float32, "ensure_min_samples": 2}
        checked: Any = validate_data(self, given, y, **settings)
        table, labels = checked
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"RuleClassifier needs at least 2 classes; y has 1 class, '{self.classes_[0]}'")
        members = np.arange(len(codes)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        if len(members) != len(codes):
            raise ValueError(f"groups has {len(members)} entries for {len(codes)} rows; give one per row")
        if out_of_fold is not None and np.shape(out_of_fold) != (len(codes), len(self.classes_)):
            raise ValueError(
                f"out_of_fold has shape {np.shape(out_of_fold)}; {(len(codes), len(self.classes_))} fits {len(codes)} "
                f"rows of {len(self.classes_)} classes"
            )
        self.out_of_fold_ = self._crossed(table, codes, members) if out_of_fold is None else np.asarray(out_of_fold)
        self.model_ = self._model().fit(table, codes)
        self.calibrated_ = Calibrated.fitted(self.model_, self.classes_, table, codes, members, self.out_of_fold_)
        return self

    def _model(self) -> Any:
        if self.estimator is not None:
            return clone(self.estimator)
        return trees(self.n_estimators, self.random_state)

    def _crossed(self, table: np.ndarray, codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Probabilities of every row by a model that never saw its group, or by the whole model where there is none."""
        smallest = min(len(np.unique(groups[codes == code])) for code in range(len(self.classes_)))
        folds = min(FOLDS, smallest)
        if folds < 2:
            return voted(self._model().fit(table, codes), len(self.classes_), table)
        found = np.zeros((len(codes), len(self.classes_)))
        split = StratifiedGroupKFold(folds, shuffle=True, random_state=self.random_state or 0)
        for train, test in split.split(table, codes, groups):
            found[test] = voted(self._model().fit(table[train], codes[train]), len(self.classes_), table[test])
        return found

    def _table(self, X: Any) -> np.ndarray:  # noqa: N803
        check_is_fitted(self, "model_")
        if recordings_given(X) and hasattr(self, "extractor_"):
            X = self.extractor_.transform(X)  # noqa: N806
        table: Any = validate_data(self, X, ensure_all_finite="allow-nan", dtype=np.float32, reset=False)
        return table

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Calibrated probabilities (rows, classes)."""
        table = self._table(X)
        return self.calibrated_.probabilities(table)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most probable class, or "unknown" where a row is rejected."""
        check_is_fitted(self, "model_")
        found = self.classes_[self.predict_proba(X).argmax(axis=1)]
        if self.reject and self.classes_.dtype.kind in "UO":
            found = np.where(self.novelty_p(X) < self.rejection, UNKNOWN, found.astype(object))
        return found

    def predict_set(self, X: Any, alpha: float | None = None) -> np.ndarray:  # noqa: N803
        """Which classes the prediction set holds, bool (rows, classes); the most probable one always."""
        table = self._table(X)
        return self.calibrated_.prediction_set(table, self.alpha if alpha is None else alpha)

    def novelty_score(self, X: Any) -> np.ndarray:  # noqa: N803
        """Higher: less like anything known."""
        table = self._table(X)
        return self.calibrated_.novelty_score(table)

    def novelty_p(self, X: Any) -> np.ndarray:  # noqa: N803
        """Conformal p-value of the novelty score: uniform, or above it, for rows like those of the fit."""
        table = self._table(X)
        return self.calibrated_.novelty_p(table)


def trees(count: int, random_state: int | None = 0) -> ExtraTreesClassifier:
    """Trees that look at a third of the observables at each split."""
    share: Any = 0.3
    return ExtraTreesClassifier(count, max_features=share, random_state=random_state)


def _networks(recordings: Any, groups: Any) -> Any:
    """The groups of recordings; their own networks where no two share one."""
    names = [recording.meta.get("network", place) for place, recording in enumerate(recordings)]
    if groups is None and len(set(names)) < len(names):
        raise ValueError(
            "groups is missing and several recordings share a network (meta['network']); pass groups=[...], one name "
            "per recording, so that no network is both trained and calibrated on"
        )
    return names if groups is None else groups
