"""Novelty: how far a row lies from the rows of the class that it is taken for, where rows of a class hardly differ."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.distance import cdist

NEIGHBOURS, FAR = 2, 5.0
RIDGE = 0.02
"""Variance added in all directions before they are whitened: of few rows no direction is known to have none."""

USUAL = 0.9
"""Quantile of a class's own distances that counts as 1: classes differ in how far apart their rows lie."""


@dataclass(frozen=True, eq=False)
class Distance:
    """Mean distance to the nearest known rows of a class, in units of what is usual in it.

    Observables are centred and scaled by known quantiles, missing ones at 0, and whitened by the covariance within
    classes (Mahalanobis, 1936): what varies in every class counts little, what a class holds fixed counts much.
    """

    centre: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    known: np.ndarray
    codes: np.ndarray
    groups: np.ndarray
    own: np.ndarray = field(default_factory=lambda: np.zeros(0))
    usual: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def fitted(cls, table: np.ndarray, codes: np.ndarray, groups: np.ndarray) -> Distance:
        """The distance to the rows of a table, of classes `codes` from 0 on; NaN where a row misses an observable."""
        there = np.isfinite(table)
        filled = np.where(there, table, 0.0)
        counts = np.maximum(there.sum(axis=0), 1)
        # quantiles of columns that nobody has are 0
        low, centre, high = np.array([
            np.quantile(column[seen], (0.16, 0.5, 0.84)).astype(table.dtype) if seen.any() else (0.0, 0.0, 0.0)
            for column, seen in zip(filled.T, there.T, strict=True)
        ]).T  # fmt: skip
        scale = np.where(high - low > 1e-9, high - low, np.sqrt((filled**2).sum(axis=0) / counts) + 1e-9)
        standard = cls._standard(table, centre, scale)
        members = [standard[codes == code] for code in range(codes.max() + 1)]
        rest = np.concatenate([rows - np.median(rows, axis=0) for rows in members])
        values, vectors = np.linalg.eigh(rest.T @ rest / len(rest))
        axes = vectors / np.sqrt(np.maximum(values, 0) + RIDGE)
        bare = cls(centre, scale, axes, standard @ axes, codes, groups)
        own = bare._raw(bare.known, codes, groups)
        usual = np.array([np.quantile(own[codes == code], USUAL) for code in range(codes.max() + 1)])
        return cls(centre, scale, axes, bare.known, codes, groups, own, np.where(usual > 0, usual, 1.0))

    @staticmethod
    def _standard(table: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.clip(np.nan_to_num((table - centre) / scale, nan=0.0, posinf=FAR, neginf=-FAR), -FAR, FAR)

    def of(self, table: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Distance of each row to the class that it is taken for."""
        return self._raw(self._standard(table, self.centre, self.scale) @ self.axes, codes, None) / self.usual[codes]

    def of_known(self, codes: np.ndarray) -> np.ndarray:
        """Distance of each known row to rows of other groups, of the class that it is taken for."""
        found, other = self.own.copy(), codes != self.codes
        found[other] = self._raw(self.known[other], codes[other], self.groups[other])
        return found / self.usual[codes]

    def _raw(self, rows: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        found = np.zeros(len(rows))
        for code in np.unique(codes):
            asked, there = codes == code, self.codes == code
            away = cdist(rows[asked], self.known[there])
            if groups is not None:
                away = np.where(groups[asked][:, None] == self.groups[there][None], np.inf, away)
            nearest = np.sort(away, axis=1)[:, :NEIGHBOURS]
            finite = np.isfinite(nearest)
            found[asked] = np.where(finite, nearest, 0.0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
        return found
