"""RuleRegressor: the equation witness as a scikit-learn estimator, on recordings or on a table of terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from metarule.identification.dictionary import columns, joined, normal, normal_of, term, usable, vocabulary
from metarule.identification.equation import coarse, read, written
from metarule.identification.extractor import recordings_given
from metarule.identification.recording import Recording
from metarule.identification.sparse import Selection, select, still
from metarule.identification.trajectory import fit, trajectories
from metarule.terms import Term

PARTS = 50
"""Parts, of neighbouring rows, that a table is cut into for bootstraps and held-out shares."""


class RuleRegressor(RegressorMixin, BaseEstimator):
    """dW = sum_k coef_k term_k, few terms, fitted to recordings that share a rule or to a table (N K) of terms.

    `terms` names the candidates, "post_pre" or "post2_weight", or the columns of a table; None: the vocabulary. There
    is no intercept: "constant" is a term. `edge` is the edge of the recordings, their lowest if None. After `fit`:
    terms_ (K), coef_ (K), intervals_ (K 2) of 95 %, frequencies_ (K) in n_boot bootstraps, null_directions_,
    condition_number_, r2_ and r2_held_out_. Raises ValueError where names and columns do not fit.
    """

    def __init__(
        self,
        terms: Sequence[str] | None = None,
        criterion: str = "ebic",
        n_boot: int = 50,
        random_state: Any = 0,
        edge: str | None = None,
    ) -> None:
        self.terms = terms
        self.criterion = criterion
        self.n_boot = n_boot
        self.random_state = random_state
        self.edge = edge

    def fit(self, X: Any, y: Any = None) -> RuleRegressor:  # noqa: N803
        """Fit to a list of recordings, or to columns X and changes y."""
        seed = int(check_random_state(self.random_state).randint(2**31))
        if recordings_given(X):
            selection = self._of_recordings(X, seed)
        else:
            # y is asked for by name, as scikit-learn does
            given = validate_data(self, X, y, y_numeric=True, dtype=np.float64, ensure_min_samples=2)
            table, target = (np.asarray(each, dtype=np.float64) for each in given)
            names = self._columns(table.shape[1])
            parts = np.arange(len(table)) * min(PARTS, len(table)) // len(table)
            selection = self._selected(normal_of(names, table, target, parts), seed)
        self.selection_ = selection
        self.terms_ = selection.names
        self.coef_ = _each(selection.coefficients, selection.names)
        self.intervals_ = np.stack([_each(end, selection.names) for end in (selection.low, selection.high)], axis=1)
        self.frequencies_ = _each(selection.frequencies, selection.names)
        self.null_directions_ = selection.null_directions
        self.condition_number_ = selection.condition_number
        self.r2_, self.r2_held_out_ = selection.r2, selection.r2_held_out
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The changes (N) of a table, or of all synapses and updates of recordings one after the other."""
        check_is_fitted(self, "coef_")
        if recordings_given(X):
            return np.concatenate([self._changes(recording)[0] for recording in X])
        return validate_data(self, X, reset=False, dtype=np.float64) @ self.coef_

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """R2 of a table; of recordings, the share of the changes' summed squares that is predicted."""
        if not recordings_given(X):
            return super().score(X, y, sample_weight)
        check_is_fitted(self, "coef_")
        pairs = [self._changes(recording) for recording in X]
        left = sum(float(((change - made) ** 2).sum()) for made, change in pairs)
        return 1 - left / sum(float((change**2).sum()) for _, change in pairs)

    def equation(self) -> str:
        """The right side as a line: "0.100 post pre - 0.100 post^2 weight"."""
        check_is_fitted(self, "coef_")
        return written(self.selection_.coefficients)

    def identifiability(self) -> dict[str, Any]:
        """What the data leave open: the condition number, null directions, and terms that others can stand in for."""
        check_is_fitted(self, "coef_")
        selection = self.selection_
        return {
            "condition_number": selection.condition_number,
            "null_directions": [dict(direction) for direction in selection.null_directions],
            "undetermined": {name: dict(selection.combinations[name]) for name in selection.undetermined},
            "rivals": [tuple(pair) for pair in selection.rivals],
        }

    def _of_recordings(self, recordings: Sequence[Recording], seed: int) -> Selection:
        if any(coarse(recording) for recording in recordings):
            stretches = [each for recording in recordings for each in trajectories(recording)]
            terms = None if self.terms is None else [term(name) for name in self.terms]
            return fit(stretches, terms, 1.0, self.criterion, self.n_boot, seed)[0]
        layers = [read(recording, self.edge) for recording in recordings]
        terms = self._candidates(all(error is not None for _, error in layers))
        return self._selected(joined([normal(layer, terms, error) for layer, error in layers]), seed)

    def _selected(self, table: Any, seed: int) -> Selection:
        if not table.energy.sum() > 0:
            return still(table.names)
        return select(table, self.criterion, self.n_boot, seed)

    def _candidates(self, taught: bool) -> Sequence[Term]:
        return vocabulary(taught) if self.terms is None else [term(name) for name in self.terms]

    def _columns(self, width: int) -> tuple[str, ...]:
        names = self.terms if self.terms is not None else getattr(self, "feature_names_in_", None)
        names = tuple(f"x{k}" for k in range(width)) if names is None else tuple(str(name) for name in names)
        if len(names) != width or len(set(names)) != width:
            raise ValueError(f"terms names {len(names)} columns, X has {width}; give each column a name of its own")
        return names

    def _changes(self, recording: Recording) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and recorded changes of all single updates."""
        layer, error = read(recording, self.edge)
        support = [(term(name), value) for name, value in self.selection_.coefficients.items()]
        terms, values = [each for each, _ in support], np.array([value for _, value in support])
        rows, cols = usable(layer, error)
        made = []
        for update in range(len(layer.change)):
            heard = None if error is None else error[update][:, rows]
            weight = layer.weight[update][np.ix_(rows, cols)]
            design = columns(terms, layer.post[update][:, rows], layer.pre[update][:, cols], weight, heard)
            made.append(np.tensordot(values, design, 1).ravel())
        return np.concatenate(made), layer.change[:, rows][:, :, cols].ravel()


def _each(values: dict[str, float], names: Sequence[str]) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in names])
