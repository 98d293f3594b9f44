"""Classify a recording by replay: every rule of the bank is run one step at a time on what was recorded.

For each snapshot the rule's change is computed at the recorded weights, inputs and targets; one scale (its step size)
is fitted over all synapses and steps, and what remains is what the rule does not explain.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarule.identification.recording import Recording, RecordingError, load
from metarule.learner import Learner
from metarule.network import Network, Population, Projection
from metarule.rng import noise_for
from metarule.signals import Batch
from metarule.zoo import ZOO, Algorithm

IDENTIFIED = 0.95
"""Share of the weight changes that a rule has to explain to be named."""

MARGIN = 0.05
"""Rules whose explained shares differ by less cannot be told apart by replay."""


@dataclass(frozen=True)
class Replay:
    """How well one rule explains a recording: `explained` = 1 - |dW - a P|^2 / |dW|^2 with the best a >= 0."""

    rule: str
    explained: float
    scale: float


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
        raise RecordingError("/input is missing; replay needs the inputs of every update")
    if recording.meta.get("updates_per_snapshot", 1) != 1:
        raise RecordingError("/meta: updates_per_snapshot must be 1; replay needs a snapshot before every update")
    network = rebuilt(recording)
    replays, switched_off = [], {}
    for name, row in ZOO.items():
        reason = _unfit(row, recording, network)
        if reason:
            switched_off[name] = reason
        else:
            replays.append(_replayed(name, row.learner(network), recording))
    replays.sort(key=lambda replay: -replay.explained)
    best = replays[0].explained
    close = tuple(replay.rule for replay in replays if best - replay.explained < MARGIN)
    verdict = "unknown" if best < IDENTIFIED else "identified" if len(close) == 1 else "ambiguous"
    labels = close if verdict != "unknown" else ()
    return Verdict(verdict, labels, tuple(replays), switched_off, len(recording.time))


def rebuilt(recording: Recording) -> Network:
    """The network that a recording's edges describe; raises RecordingError where they do not form one."""
    sizes: dict[str, int] = {}
    for edge, weights in recording.weights.items():
        source, target = edge.split("->")
        for name, size in ((source, weights.shape[2]), (target, weights.shape[1])):
            if sizes.setdefault(name, size) != size:
                raise RecordingError(f"/weights/{edge}: population '{name}' has {size} units, elsewhere {sizes[name]}")
    targets = {edge.split("->")[1] for edge in recording.weights}
    order: list[str] = [name for name in sizes if name not in targets]
    while len(order) < len(sizes):
        ready = [
            name
            for name in sizes
            if name not in order
            and all(edge.split("->")[0] in order for edge in recording.weights if edge.split("->")[1] == name)
        ]
        if not ready:
            raise RecordingError("/weights: the edges form a loop; replay needs a feedforward network")
        order += ready
    activation = recording.meta.get("nonlinearity", "tanh")
    biased: set[str] = set()
    projections = []
    for edge in recording.weights:
        source, target = edge.split("->")
        projections.append(Projection(edge, source, target, bias=target in recording.bias and target not in biased))
        biased.add(target)
    populations = tuple(Population(name, sizes[name], activation) for name in order)
    output = recording.meta.get("output", "softmax")
    return Network(populations, tuple(projections), output, float(recording.meta.get("beta", 1.0)))


def _unfit(row: Algorithm, recording: Recording, network: Network) -> str | None:
    learner = row.learner(network)
    if learner.projections != network.projections:
        return "its feedback weights were not recorded"
    if row.synapse.kind != "sgd":
        return "its synapses have a hidden state"
    if recording.target is None and "error" in row.rule.reads:
        return "no targets were recorded"
    return None


def _replayed(name: str, learner: Learner, recording: Recording) -> Replay:
    network, credit = learner.network, learner.credit
    columns = learner.columns(torch.ones(1, len(learner.params), dtype=torch.float64))
    noise = noise_for([(0, "replay")])
    cross = own = total = 0.0
    series = {p.name: _whole(recording, p) for p in network.projections}
    assert recording.input is not None
    inputs = torch.as_tensor(recording.input, dtype=torch.float64)
    targets = None if recording.target is None else torch.as_tensor(recording.target, dtype=torch.float64)
    for moment in range(len(recording.time) - 1):
        weights = {edge: whole[moment : moment + 1] for edge, whole in series.items()}
        batch = Batch(inputs[moment : moment + 1], None if targets is None else targets[moment : moment + 1])
        signals, _ = credit.stage(0, columns.credit, network, weights, {}, batch, moment, noise, learner.wanted)
        for projection in network.projections:
            seen = series[projection.name][moment + 1] - series[projection.name][moment]
            total += float((seen**2).sum())
            if projection.name not in signals:
                continue
            key = learner.rule_key(projection) or ""
            change, _ = learner.rules[key].delta(columns.rules[key], signals[projection.name], {}, noise)
            predicted = change.tensor(weights[projection.name])[0]
            cross += float((seen * predicted).sum())
            own += float((predicted**2).sum())
    scale = max(cross / own, 0.0) if own else 0.0
    return Replay(name, 1 - (total - 2 * scale * cross + scale**2 * own) / total, scale)


def _whole(recording: Recording, projection: Projection) -> Tensor:
    weights = torch.as_tensor(recording.weights[projection.name], dtype=torch.float64)
    if not projection.bias:
        return weights
    bias = torch.as_tensor(recording.bias[projection.target], dtype=torch.float64)
    return torch.cat((weights, bias[:, :, None]), dim=2)
