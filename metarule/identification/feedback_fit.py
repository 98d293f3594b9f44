"""Feedback that nobody recorded: the fixed matrix that brings an error, or a target, back to a layer.

dW = (B source * slope)^T pre, the mean over the events of an update, is linear in B: least squares for every post
unit alone. What no source ever shows, as the sum of a softmax output's errors, which is 0, no data can fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from metarule.identification.updates import Layer

RIDGES = (1e-8, 1e-5, 1e-3, 1e-2, 1e-1)
"""Shares of a unit's mean Gram that are tried on its diagonal: of noise, B makes the most where a source is weakest."""

TINY = 1e-200


@dataclass(frozen=True, eq=False)
class Feedback:
    """A fitted matrix `matrix` (I O), what it carries, and the share of held-out changes it explains.

    `on_weight` is the cosine of what it carries with what the transposed weights of the edge above would, None where
    the sizes differ. `unseen` counts the dimensions of the source that never showed, in which B is open.
    """

    source: str
    matrix: np.ndarray
    r2_held_out: float
    on_weight: float | None
    unseen: int

    def carried(self, source: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """The error at the post units (U B I)."""
        return source @ self.matrix.T * slope

    def sized(self, source: np.ndarray, weight: np.ndarray) -> Feedback:
        """The same, as strong as random feedback with the size of `weight`, so that coefficients are step sizes."""
        carried = np.sqrt(np.mean((source @ self.matrix.T) ** 2))
        usual = np.sqrt(np.mean(weight**2) * np.mean((source**2).sum(axis=2)))
        return replace(self, matrix=self.matrix * float(usual / carried)) if carried > 0 else self

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


class Sums(NamedTuple):
    """What least squares needs of some updates: the Gram of every post unit (I O O), and its product with changes."""

    gram: np.ndarray
    cross: np.ndarray

    def matrix(self, ridge: float) -> np.ndarray:
        """B (I O), with a ridge that is the same for all units: those that were hardly active stay small."""
        outputs = self.gram.shape[-1]
        size = np.trace(self.gram, axis1=-2, axis2=-1).mean(axis=-1)[..., None, None, None] / outputs + TINY
        return np.linalg.solve(self.gram + ridge * size * np.eye(outputs), self.cross[..., None])[..., 0]

    def of(self, updates: np.ndarray) -> Sums:
        """The sums over some updates, where there is one entry per update."""
        return Sums(self.gram[updates].sum(axis=0), self.cross[updates].sum(axis=0))


def sums(pre: np.ndarray, change: np.ndarray, slope: np.ndarray, source: np.ndarray) -> Sums:
    """The sums of every update (U I O O), (U I O): of pre (U B J), change (U I J), slope (U B I), source (U B O)."""
    seen = slope.transpose(0, 2, 1)[..., None] * source[:, None] / pre.shape[1]  # U I B O
    alike, drawn = pre @ pre.transpose(0, 2, 1), pre @ change.transpose(0, 2, 1)  # U B B, U B I
    gram = seen.transpose(0, 1, 3, 2) @ (alike[:, None] @ seen)
    return Sums(gram, np.einsum("uibo,ubi->uio", seen, drawn, optimize=True))


def explained(layer: Layer, error: np.ndarray, updates: np.ndarray) -> float:
    """Share of the changes in some updates that error^T pre, the mean over events, makes (U B I)."""
    made = error[updates].transpose(0, 2, 1) @ layer.pre[updates] / layer.pre.shape[1]
    change = layer.change[updates]
    return float(1 - ((change - made) ** 2).sum() / ((change**2).sum() + TINY))


def _fitted(layer: Layer, name: str, source: np.ndarray, above: Layer | None) -> Feedback:
    updates = np.arange(len(layer.change))
    halves = updates[::2], updates[1::2]
    each = sums(layer.pre, layer.change, layer.slope, source)
    parts = [each.of(half) for half in halves]

    def held_out(ridge: float) -> float:
        tests = zip(parts, halves[::-1], strict=True)
        return float(
            np.mean([explained(layer, source @ part.matrix(ridge).T * layer.slope, test) for part, test in tests])
        )

    shares = [held_out(ridge) for ridge in RIDGES] if len(updates) > 1 else [math.nan]
    best = int(np.argmax(shares))
    matrix = each.of(updates).matrix(RIDGES[best])
    on_weight = None
    if above is not None and above.weight.shape[1:] == matrix.T.shape:
        on_weight = _cosine(source @ matrix.T, source @ above.weight.mean(axis=0))
    unseen = source.shape[2] - round(float(np.trace(_shown(source))))
    return Feedback(name, matrix, shares[best], on_weight, unseen)


def _shown(source: np.ndarray) -> np.ndarray:
    """The projector (O O) on the dimensions that a source (U B O) showed."""
    flat = source.reshape(-1, source.shape[2])
    values, vectors = np.linalg.eigh(flat.T @ flat)
    kept = vectors[:, values > 1e-10 * values[-1]]
    return kept @ kept.T


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other) + TINY))
