"""Feedback that nobody recorded: the fixed matrix that brings an error, or a target, back to a layer.

dW = (B source * slope)^T pre, the mean over the events of an update, is linear in B: least squares for every post
unit alone. What no source ever shows, as the sum of a softmax output's errors, which is 0, no data can fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metarule.identification.updates import Layer

RIDGE = 1e-8
"""Share of the mean square of a source that keeps B finite where the source has fewer dimensions than units."""

TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Feedback:
    """A fitted matrix `matrix` (I O), what it carries, and the share of held-out changes it explains.

    `on_weight` is the cosine with the transposed weights of the edge above, None where the sizes differ. `unseen`
    counts the dimensions of the source that never showed, in which B is open.
    """

    source: str
    matrix: np.ndarray
    r2_held_out: float
    on_weight: float | None
    unseen: int

    def carried(self, source: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """The error at the post units (U B I)."""
        return source @ self.matrix.T * slope

    def correlation(self, truth: np.ndarray, source: np.ndarray) -> float:
        """Correlation with a true matrix (I O), both seen only in the dimensions that the source (U B O) showed."""
        shown = _shown(source)
        return float(np.corrcoef((self.matrix @ shown).ravel(), (truth @ shown).ravel())[0, 1])

    def table(self) -> dict[str, object]:
        """As it goes to JSON, the matrix left out."""
        return {
            "source": self.source,
            "r2_held_out": self.r2_held_out,
            "cosine_with_transposed_weights": self.on_weight,
            "unseen_dimensions": self.unseen,
        }


def feedback(layer: Layer, sources: Mapping[str, np.ndarray], above: Layer | None = None) -> Feedback | None:
    """The fixed feedback that explains the changes of a layer best, of several sources name -> (U B O); None without.

    Held out is every second update, by a matrix fitted to the others.
    """
    fitted = [_fitted(layer, name, source, above) for name, source in sources.items() if np.isfinite(source).all()]
    # the first source that is as good as any other
    best = max((each.r2_held_out for each in fitted), default=0.0)
    return next((each for each in fitted if each.r2_held_out > best - 1e-3), None)


def matrix_of(layer: Layer, source: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """B (I O) by least squares over some of the updates."""
    events = layer.pre.shape[1]
    gram, cross = 0.0, 0.0
    for update in updates:
        seen = layer.slope[update].T[:, :, None] * source[update] / events  # I B O
        alike = layer.pre[update] @ layer.pre[update].T
        gram = gram + seen.transpose(0, 2, 1) @ (alike @ seen)
        cross = cross + np.einsum("ibo,bi->io", seen, layer.pre[update] @ layer.change[update].T, optimize=True)
    assert isinstance(gram, np.ndarray)
    assert isinstance(cross, np.ndarray)
    size = np.trace(gram, axis1=1, axis2=2) / gram.shape[1] + TINY
    ridged = gram + RIDGE * size[:, None, None] * np.eye(gram.shape[1])
    return np.linalg.solve(ridged, cross[:, :, None])[:, :, 0]


def explained(layer: Layer, error: np.ndarray, updates: np.ndarray) -> float:
    """Share of the changes in some updates that error^T pre, the mean over events, makes (U B I)."""
    made = error[updates].transpose(0, 2, 1) @ layer.pre[updates] / layer.pre.shape[1]
    change = layer.change[updates]
    return float(1 - ((change - made) ** 2).sum() / ((change**2).sum() + TINY))


def _fitted(layer: Layer, name: str, source: np.ndarray, above: Layer | None) -> Feedback:
    updates = np.arange(len(layer.change))
    halves = updates[::2], updates[1::2]
    shares = []
    for fit, test in (halves, halves[::-1]) if len(updates) > 1 else ():
        error = source @ matrix_of(layer, source, fit).T * layer.slope
        shares.append(explained(layer, error, test))
    matrix = matrix_of(layer, source, updates)
    on_weight = None
    if above is not None and above.weight.shape[1:] == matrix.T.shape:
        on_weight = _cosine(matrix @ _shown(source), above.weight.mean(axis=0).T @ _shown(source))
    unseen = source.shape[2] - round(float(np.trace(_shown(source))))
    return Feedback(name, matrix, float(np.mean(shares)) if shares else float("nan"), on_weight, unseen)


def _shown(source: np.ndarray) -> np.ndarray:
    """The projector (O O) on the dimensions that a source (U B O) showed."""
    flat = source.reshape(-1, source.shape[2])
    values, vectors = np.linalg.eigh(flat.T @ flat)
    kept = vectors[:, values > 1e-10 * values[-1]]
    return kept @ kept.T


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other) + TINY))
