"""Step sizes: what a predicted change explains of a seen one when its size is free, and how noisy the seen one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Edges = Mapping[str, Tensor]
"""Projection -> (U I J)."""


@dataclass(frozen=True, eq=False)
class Fit:
    """dW = a P + sum_k c_k Z_k + rest, a >= 0 free per projection and piece, c_k shared by all.

    `sizes` (E G) are a, nan where nothing was predicted; `shared` (K) are c; `left` and `energy` (E) are |rest|^2 and
    |dW|^2; `count` (E) numbers dW has. `echo` (E) is the sum over consecutive updates of rest x the rest before, and
    `echoes` (E) over how many numbers: noise of weights that are read before and after makes it negative.
    """

    sizes: np.ndarray
    shared: np.ndarray
    left: np.ndarray
    energy: np.ndarray
    count: np.ndarray
    echo: np.ndarray
    echoes: np.ndarray

    @property
    def unexplained(self) -> float:
        """|rest|^2 / |dW|^2 over all projections."""
        return float(self.left.sum() / max(self.energy.sum(), 1e-300))


def fitted(
    changes: Edges, predicted: Edges, piece: np.ndarray, follows: np.ndarray, shared: Sequence[Edges] = (),
    held: np.ndarray | None = None,
) -> Fit:  # fmt: skip
    """The least-squares fit; `held` (K) gives the shared coefficients instead."""
    groups = np.unique(piece, return_inverse=True)[1]
    products, echoes, counts = [], [], []
    for edge, change in changes.items():
        made = predicted[edge] if edge in predicted else torch.zeros_like(change)
        columns = torch.stack([change, made, *(each[edge] for each in shared)]).flatten(2).transpose(0, 1)  # U K IJ
        gram = (columns @ columns.transpose(1, 2)).numpy()
        whole = np.zeros((groups.max() + 1, *gram.shape[1:]))
        np.add.at(whole, groups, gram)
        products.append(whole)
        echoes.append((columns[1:] @ columns[:-1].transpose(1, 2)).numpy() if len(columns) > 1 else gram[:0])
        counts.append(change.numel())
    gram, echo = np.stack(products), np.stack(echoes)  # E G K K, E U-1 K K
    shared_found = _shared(gram) if held is None else held
    sizes = _sizes(gram, shared_found)
    common = np.broadcast_to(-shared_found, (*sizes.shape, len(shared_found)))
    blend = np.concatenate((np.ones((*sizes.shape, 1)), -np.nan_to_num(sizes)[..., None], common), axis=2)  # E G K
    left = np.einsum("egk,egkl,egl->e", blend, gram, blend)
    pairs = np.flatnonzero(follows[1:])
    each = blend[:, groups]  # E U K
    heard = np.einsum("euk,eukl,eul->e", each[:, 1:][:, pairs], echo[:, pairs], each[:, :-1][:, pairs])
    per_update = np.array(counts) / len(groups)
    return Fit(
        sizes, shared_found, np.maximum(left, 0.0), gram[:, :, 0, 0].sum(1), np.array(counts), heard,
        per_update * len(pairs),
    )  # fmt: skip


def _shared(gram: np.ndarray) -> np.ndarray:
    """The shared coefficients, the prediction projected out of everything in each group (Frisch and Waugh, 1933)."""
    count = gram.shape[2] - 2
    if count == 0:
        return np.zeros(0)
    own, kept = gram[:, :, 1, 1], [0, *range(2, gram.shape[2])]
    onto = gram[:, :, kept, 1] / np.where(own > 0, own, 1.0)[..., None]
    rest = gram[:, :, kept][:, :, :, kept] - np.einsum("egk,egl,eg->egkl", onto, onto, own)
    whole = rest.sum(axis=(0, 1))
    return np.linalg.lstsq(whole[1:, 1:], whole[1:, 0], rcond=1e-12)[0]


def _sizes(gram: np.ndarray, shared: np.ndarray) -> np.ndarray:
    cross = gram[:, :, 0, 1] - gram[:, :, 2:, 1] @ shared
    own = gram[:, :, 1, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(own > 0, np.maximum(cross / np.where(own > 0, own, 1.0), 0.0), np.nan)
