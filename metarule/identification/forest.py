"""Forest: a fitted scikit-learn forest of classification trees as a few plain arrays, which answer as it does.

Nodes stand in preorder, tree after tree: the left child of a split is the next node, and which nodes split says where
everything else is. No file can hold children that lead astray.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = {"splits": "b", "feature": "u", "threshold": "f", "missing_left": "b", "leaf": "u", "votes": "f"}
"""What the numbers of each array are, by the letter of their dtype."""


@dataclass(frozen=True, eq=False)
class Forest:
    """`splits` (nodes): which nodes split; `feature`, `threshold`, `missing_left` are of splits, `leaf` is of leaves.

    A row goes left where its feature is at most the threshold, and where it is missing if `missing_left` says so. Row
    `leaf` of `votes` (distributions, classes) is what a leaf says.
    """

    splits: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    leaf: np.ndarray
    votes: np.ndarray

    @classmethod
    def of(cls, model: Any) -> Forest:
        """The trees of a fitted forest of scikit-learn; raises ValueError where it was fitted to several outputs."""
        if model.n_outputs_ != 1:
            raise ValueError(f"the forest was fitted to {model.n_outputs_} outputs; a Forest answers one question")
        trees = [_in_preorder(each.tree_) for each in model.estimators_]
        splits, feature, threshold, missing_left, value = (np.concatenate(parts) for parts in zip(*trees, strict=True))
        votes, leaf = np.unique(value[~splits], axis=0, return_inverse=True)
        feature, leaf = feature[splits], leaf.reshape(-1)
        return cls(
            splits,
            feature.astype(np.min_scalar_type(model.n_features_in_)),
            _rounded_down(threshold[splits]),
            missing_left[splits].astype(bool),
            leaf.astype(np.min_scalar_type(len(votes))),
            votes,
        )

    def fitting(self, features: int, classes: int) -> Forest:
        """The forest itself; raises ValueError where its arrays are no trees over so many features and classes."""
        for name, array in self.arrays.items():
            if array.dtype.kind != KINDS[name] or array.ndim != (2 if name == "votes" else 1):
                raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}")
        count = int(self.splits.sum())
        for name in ("feature", "threshold", "missing_left", "leaf"):
            found, needed = len(self.arrays[name]), len(self.splits) - count if name == "leaf" else count
            if found != needed:
                raise ValueError(f"{name} has {found} entries where splits needs {needed}")
        if not len(self.splits) or (self._open[:-1] <= self._open[-1]).any() or self._open[-1] >= 0:
            raise ValueError("splits ends amid a tree")
        if self.votes.shape[1] != classes or not np.allclose(self.votes.sum(axis=1), 1) or (self.votes < 0).any():
            raise ValueError(f"votes are no probabilities of {classes} classes")
        for name, array, size in (("feature", self.feature, features), ("leaf", self.leaf, len(self.votes))):
            if len(array) and array.max() >= size:
                raise ValueError(f"{name} holds {array.max()}, it must lie below {size}")
        return self

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name, those that `Forest(**arrays)` takes."""
        return {name: getattr(self, name) for name in KINDS}

    @property
    def classes_(self) -> np.ndarray:
        """The classes, by number."""
        return np.arange(self.votes.shape[1])

    def predict_proba(self, table: np.ndarray) -> np.ndarray:
        """Mean of what the trees say of each row of float32 (rows, features), NaN: missing."""
        roots, rows = self._roots, len(table)
        at = np.repeat(roots, rows)
        going = np.flatnonzero(self.splits[at])
        while len(going):
            node = at[going]
            split = self._number[node]
            seen = table[going % rows, self.feature[split]]
            left = np.where(np.isnan(seen), self.missing_left[split], seen <= self.threshold[split])
            at[going] = np.where(left, node + 1, self._right[split])
            going = going[self.splits[at[going]]]
        found = np.zeros((rows, self.votes.shape[1]))
        for leaves in self._number[at].reshape(len(roots), rows):
            found += self.votes[self.leaf[leaves]]
        return found / len(roots)

    @functools.cached_property
    def _open(self) -> np.ndarray:
        """How many more subtrees are open behind each node than before all: a split opens one, a leaf ends one."""
        return np.cumsum(np.where(self.splits, 1, -1))

    @functools.cached_property
    def _roots(self) -> np.ndarray:
        """The first node, and each behind a tree's last, where fewer are open than ever before."""
        lowest = np.minimum.accumulate(np.concatenate(([0], self._open)))
        return np.flatnonzero(np.concatenate(([True], np.diff(lowest) < 0)))[:-1]

    @functools.cached_property
    def _number(self) -> np.ndarray:
        """Which of the splits, or which of the leaves, each node is."""
        return np.where(self.splits, np.cumsum(self.splits), np.cumsum(~self.splits)) - 1

    @functools.cached_property
    def _right(self) -> np.ndarray:
        """The right child of each split: the node behind the first later one that closes what the split opened."""
        nodes, ordered = len(self.splits), np.argsort(self._open, kind="stable")
        keys = self._open[ordered] * nodes + ordered
        split = np.flatnonzero(self.splits)
        return ordered[np.searchsorted(keys, (self._open[split] - 1) * nodes + split)] + 1


def _in_preorder(tree: Any) -> tuple[np.ndarray, ...]:
    """(splits, feature, threshold, missing_left, value) of a tree's nodes."""
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    order, ahead = [], [0]
    while ahead:
        node = ahead.pop()
        order.append(node)
        if left[node] >= 0:
            ahead += [right[node], left[node]]
    numbers = (tree.children_left >= 0, tree.feature, tree.threshold, tree.missing_go_to_left, tree.value[:, 0])
    return tuple(each[order] for each in numbers)


def _rounded_down(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 that is no larger: what a float32 is at most, it is at most of the other."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
