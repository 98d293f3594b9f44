"""Moments: the single updates of a recording as tensors, a run axis of their own, for a learner to be replayed at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarule.identification.recording import Recording, RecordingError
from metarule.identification.updates import shown_updates
from metarule.network import Network, Population, Projection
from metarule.signals import Batch

PIECE = 3
"""Updates in a row that are replayed together; what a Recorder keeps at a time."""

MOST = 48
"""Updates that are replayed; of a longer recording pieces evenly chosen, the first among them."""


@dataclass(frozen=True, eq=False)
class Moments:
    """U single updates: `weights` before and `changes` per projection (U I J), the `batch` (U B units), `times` (U).

    `piece` (U) numbers runs of consecutive updates; `follows` (U) says whether an update comes right after the one
    before it in the same piece. A projection's always-on unit is its last column.
    """

    network: Network
    weights: dict[str, Tensor]
    changes: dict[str, Tensor]
    batch: Batch
    times: np.ndarray
    piece: np.ndarray

    @property
    def follows(self) -> np.ndarray:
        """Whether each update comes right after the one before it."""
        return np.concatenate(([False], np.diff(self.piece) == 0))

    def at(self, chosen: np.ndarray) -> Moments:
        """Some of the updates."""
        places = torch.as_tensor(np.arange(len(self.times))[chosen])
        y = None if self.batch.y is None else self.batch.y[places]
        return Moments(
            self.network,
            {name: weight[places] for name, weight in self.weights.items()},
            {name: change[places] for name, change in self.changes.items()},
            Batch(self.batch.x[places], y),
            self.times[chosen],
            self.piece[chosen],
        )


def moments(recording: Recording, most: int = MOST) -> Moments:
    """The single updates of a recording whose batch is known.

    Raises RecordingError where there are none, where weights were not recorded, or not those of every unit.
    """
    if not recording.weights:
        raise RecordingError("/weights were not recorded, and a rule is replayed from the weights before each update")
    if any(np.isnan(array).all(axis=0).any() for array in recording.weights.values()):
        hidden = sum(int(np.isnan(array).all(axis=(0, 2)).sum()) for array in recording.weights.values())
        said = f"of {hidden} units are missing" if hidden else "are missing in part"
        raise RecordingError(f"/weights {said}, and a rule is replayed in the whole network")
    places, piece = pieces(shown_updates(recording), most)
    network = network_of(recording)
    whole = {p.name: _whole(recording, p) for p in network.projections}
    assert recording.input is not None
    x = _tensor(recording.input[places, recording.probes :])
    y = None if recording.target is None else _tensor(recording.target[places, recording.probes :])
    return Moments(
        network,
        {name: weight[places] for name, weight in whole.items()},
        {name: weight[places + 1] - weight[places] for name, weight in whole.items()},
        Batch(x, y),
        recording.time[places],
        piece,
    )


def pieces(shown: np.ndarray, most: int, length: int = PIECE) -> tuple[np.ndarray, np.ndarray]:
    """Of the snapshots before single updates those of `most` updates, and the number of the piece that each belongs to.

    Runs of consecutive updates are cut into pieces of `length`; where there are too many, some are chosen evenly, whole
    ones if there are any.
    """
    begins = np.diff(shown, prepend=-2) != 1
    run = np.cumsum(begins) - 1
    within = np.arange(len(shown)) - np.flatnonzero(begins)[run]
    piece = np.cumsum(begins | (within % length == 0)) - 1
    if len(shown) > most:
        sizes = np.bincount(piece)
        whole = np.flatnonzero(sizes == sizes.max())
        kept = whole[np.unique(np.linspace(0, len(whole) - 1, max(1, most // length)).round().astype(int))]
        shown, piece = shown[np.isin(piece, kept)], piece[np.isin(piece, kept)]
    return shown, piece


def network_of(recording: Recording) -> Network:
    """The network that a recording's edges describe, its projections in feedforward order."""
    sizes = recording.structure.sizes
    order = list(sizes)
    activation = recording.meta.get("nonlinearity", "tanh")
    biased: set[str] = set()
    projections = []
    # a file may list edges in any order, HDF5 by their names
    for edge in sorted(recording.weights, key=lambda edge: [order.index(name) for name in reversed(edge.split("->"))]):
        source, _, target = edge.partition("->")
        projections.append(Projection(edge, source, target, bias=target in recording.bias and target not in biased))
        biased.add(target)
    populations = tuple(Population(name, size, activation) for name, size in sizes.items())
    output = recording.meta.get("output", "softmax")
    return Network(populations, tuple(projections), output, float(recording.meta.get("beta", 1.0)))


def _whole(recording: Recording, projection: Projection) -> Tensor:
    weights = _tensor(recording.weights[projection.name])
    if not projection.bias:
        return weights
    return torch.cat((weights, _tensor(recording.bias[projection.target])[:, :, None]), dim=2)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(array.astype(np.float64))
