"""Novelty: how far a row lies from all that is known, in the directions in which known rows differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

DIRECTIONS, NEIGHBOURS, FAR = 30, 5, 5.0


@dataclass(frozen=True, eq=False)
class Distance:
    """Mean distance to the nearest known rows, observables centred and scaled by known quantiles, missing ones at 0."""

    centre: np.ndarray
    scale: np.ndarray
    axes: PCA
    known: np.ndarray
    search: NearestNeighbors

    @classmethod
    def fitted(cls, table: np.ndarray) -> Distance:
        """The distance to the rows of a table; NaN where a row misses an observable."""
        there = np.isfinite(table)
        filled = np.where(there, table, 0.0)
        counts = np.maximum(there.sum(axis=0), 1)
        # quantiles of columns that nobody has are 0
        low, centre, high = (
            np.array([np.quantile(c[t], q) if t.any() else 0.0 for c, t in zip(filled.T, there.T, strict=True)])
            for q in (0.16, 0.5, 0.84)
        )
        scale = np.where(high - low > 1e-9, high - low, np.sqrt((filled**2).sum(axis=0) / counts) + 1e-9)
        standard = cls._standard(table, centre, scale)
        axes = PCA(min(DIRECTIONS, *standard.shape), whiten=False, svd_solver="full").fit(standard)
        known = axes.transform(standard)
        return cls(centre, scale, axes, known, NearestNeighbors().fit(known))

    @staticmethod
    def _standard(table: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.clip(np.nan_to_num((table - centre) / scale, nan=0.0, posinf=FAR, neginf=-FAR), -FAR, FAR)

    def of(self, table: np.ndarray) -> np.ndarray:
        """Distance of each row."""
        reached = self.axes.transform(self._standard(table, self.centre, self.scale))
        distances, _ = self.search.kneighbors(reached, min(NEIGHBOURS, len(self.known)))
        return distances.mean(axis=1)

    def of_known(self, groups: np.ndarray) -> np.ndarray:
        """Distance of each known row to those of other groups."""
        _, index = np.unique(groups, return_inverse=True)
        largest = int(np.bincount(index).max())
        count = min(NEIGHBOURS + largest, len(self.known))
        distances, places = self.search.kneighbors(self.known, count)
        own = index[places] == index[:, None]
        distances = np.where(own, np.inf, distances)
        nearest = np.sort(distances, axis=1)[:, :NEIGHBOURS]
        finite = np.isfinite(nearest)
        return np.where(finite, nearest, 0.0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
