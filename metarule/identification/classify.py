"""Classify a recording by replay: every rule of the bank is run one step at a time on what was recorded.

For each snapshot the rule's change is computed at the recorded weights, inputs and targets; one scale (its step size)
is fitted over all synapses and steps, and what remains is what the rule does not explain.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarule.identification.recording import Recording, RecordingError, load
from metarule.learner import Learner
from metarule.network import Network, Population, Projection
from metarule.rng import Noise, noise_for
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd
from metarule.zoo import ZOO, Algorithm

IDENTIFIED = 0.95
"""Share of the weight changes that a rule has to explain to be named."""

MARGIN = 0.05
"""Rules whose explained shares differ by less cannot be told apart by replay."""


@dataclass(frozen=True)
class Replay:
    """How well one rule explains a recording: `explained` = 1 - |dW - a P|^2 / |dW|^2 with the best a >= 0.

    `weakest` is the same share, with the same a, at the edge that the rule explains least: a readout that learns fast
    would else speak for hidden layers that learn by another rule. A rule that predicts nothing explains 0.
    """

    rule: str
    explained: float
    weakest: float
    scale: float

    @property
    def fits(self) -> bool:
        """Whether the rule may be named."""
        return min(self.explained, self.weakest) >= IDENTIFIED


@dataclass(frozen=True)
class Verdict:
    """The answer: `verdict` is "identified", "ambiguous" or "unknown"; `labels` the rules that remain."""

    verdict: str
    labels: tuple[str, ...]
    replay: tuple[Replay, ...]
    switched_off: dict[str, str]
    snapshots: int

    def table(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return asdict(self)


def classify_file(path: str | Path) -> dict[str, Any]:
    """The verdict on an .npz recording, as JSON values; raises RecordingError on bad input."""
    return classify(load(path)).table()


def classify(recording: Recording) -> Verdict:
    """Which rules of the zoo explain a recording, by replay alone.

    Rules with hidden state (momentum, Adam) or hidden feedback weights cannot be replayed and are named as switched
    off. Raises RecordingError where inputs are missing or snapshots are more than one update apart.
    """
    if recording.input is None:
        raise RecordingError("/input is missing; replay needs the inputs of every update: record them")
    updates = recording.meta.get("updates_per_snapshot", 1)
    if updates != 1:
        raise RecordingError(
            f"/meta: updates_per_snapshot = {updates}, but replay needs a snapshot before every update; record each"
        )
    gaps = np.diff(recording.time.astype(np.float64))
    if np.any(gaps != 1):
        place = int(np.argmax(gaps != 1))
        raise RecordingError(
            f"/time goes from {recording.time[place]} to {recording.time[place + 1]} at [{place + 1}], but replay "
            "needs a snapshot before every update; let time count updates and record each"
        )
    network = rebuilt(recording)
    replays, switched_off = [], {}
    for name, row in ZOO.items():
        reason = _unfit(row, recording, network)
        if reason:
            switched_off[name] = reason
        else:
            replays.append(_replayed(name, row.learner(network), recording))
    replays.sort(key=lambda replay: -replay.explained)
    fitting = [replay for replay in replays if replay.fits]
    labels = tuple(replay.rule for replay in fitting if fitting[0].explained - replay.explained < MARGIN)
    verdict = "unknown" if not labels else "identified" if len(labels) == 1 else "ambiguous"
    return Verdict(verdict, labels, tuple(replays), switched_off, len(recording.time))


def rebuilt(recording: Recording) -> Network:
    """The network that a recording's edges describe."""
    sizes = recording.structure.sizes
    activation = recording.meta.get("nonlinearity", "tanh")
    biased: set[str] = set()
    projections = []
    for edge in recording.weights:
        source, _, target = edge.partition("->")
        projections.append(Projection(edge, source, target, bias=target in recording.bias and target not in biased))
        biased.add(target)
    populations = tuple(Population(name, size, activation) for name, size in sizes.items())
    output = recording.meta.get("output", "softmax")
    return Network(populations, tuple(projections), output, float(recording.meta.get("beta", 1.0)))


def _unfit(row: Algorithm, recording: Recording, network: Network) -> str | None:
    """Why a row cannot be replayed on a recording; None where it can."""
    try:
        learner = row.learner(network)
    except ValueError as error:
        return str(error)
    if learner.projections != network.projections:
        return "its feedback weights were not recorded"
    if any(synapse != Sgd() for synapse in row.synapses.values()):
        return "its synapses have a hidden state, decay or are bounded"
    moments = _Moments(learner, recording)
    columns = moments.columns
    if learner.credit.stages(network, moments.batch(0)) > 1:
        return "it changes weights several times per batch, and snapshots show one change"
    noise = noise_for([(0, "replay")])
    if learner.credit.init(columns.credit, network, moments.weights(0), noise):
        return "its credit assignment has a hidden state"
    if any(rule.init(columns.rules[key], next(iter(moments.series.values()))[:1]) for key, rule in row.rules.items()):
        return "its rule has a hidden state"
    try:
        first, second = (moments.predicted(0, noise.at(draw)) for draw in ("first", "second"))
    except ValueError as error:
        return str(error)
    if any(not torch.equal(first[name], second[name]) for name in first):
        return "it explores with noise that was not recorded"
    return None


class _Moments:
    """What a rule would have done at each snapshot of a recording."""

    def __init__(self, learner: Learner, recording: Recording) -> None:
        self.learner = learner
        self.columns = learner.columns(torch.ones(1, len(learner.params), dtype=torch.float64))
        self.series = {p.name: _whole(recording, p) for p in learner.network.projections}
        assert recording.input is not None
        self.inputs = _tensor(recording.input)
        self.targets = None if recording.target is None else _tensor(recording.target)

    def weights(self, moment: int) -> dict[str, Tensor]:
        return {edge: whole[moment : moment + 1] for edge, whole in self.series.items()}

    def batch(self, moment: int) -> Batch:
        now = slice(moment, moment + 1)
        return Batch(self.inputs[now], None if self.targets is None else self.targets[now])

    def predicted(self, moment: int, noise: Noise) -> dict[str, Tensor]:
        state = {"weights": self.weights(moment), "credit": {}, "rules": {p.name: {} for p in self.learner.plastic}}
        return self.learner.induced(self.columns, state, self.batch(moment), moment, noise)


def _replayed(name: str, learner: Learner, recording: Recording) -> Replay:
    moments = _Moments(learner, recording)
    noise = noise_for([(0, "replay")])
    sums = {name: np.zeros(3) for name in moments.series}
    for moment in range(len(recording.time) - 1):
        predicted = moments.predicted(moment, noise)
        for edge, whole in moments.series.items():
            seen = whole[moment + 1] - whole[moment]
            made = predicted[edge][0] if edge in predicted else torch.zeros_like(seen)
            products = (seen * seen, seen * made, made * made)
            sums[edge] += [float(product.sum()) for product in products]
    return _fitted(name, np.array(list(sums.values())))


def _fitted(name: str, sums: np.ndarray) -> Replay:
    """The replay with the best scale, from |dW|^2, dW P and |P|^2 of every edge (edges, 3)."""
    total, cross, own = sums.sum(axis=0)
    if not 0 < total < np.inf:
        raise RecordingError(f"/weights: the squared changes sum to {total}; rescale them to ordinary size")
    if not np.isfinite(own) or own == 0:
        return Replay(name, 0.0, 0.0, 0.0)
    scale = max(cross / own, 0.0)
    left = sums @ np.array([1.0, -2 * scale, scale**2])
    # an edge that never changed is explained by a rule that says so, and by no other
    shares = [1 - rest / seen if seen else float(rest == 0) for rest, seen in zip(left, sums[:, 0], strict=True)]
    return Replay(name, float(1 - left.sum() / total), float(min(shares)), float(scale))


def _whole(recording: Recording, projection: Projection) -> Tensor:
    weights = _tensor(recording.weights[projection.name])
    if not projection.bias:
        return weights
    return torch.cat((weights, _tensor(recording.bias[projection.target])[:, :, None]), dim=2)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(array.astype(np.float64))
