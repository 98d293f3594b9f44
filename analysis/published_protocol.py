"""The published protocol in small: four rules that descend an error, told by aggregate statistics and by ours.

{SGD with momentum, Adam, feedback alignment, information alignment} (Nayebi et al., 2020), 24 statistics at 21
snapshots and a random forest, grouped by network, beside scale-free observables and single updates on the same
networks. Tables by observable, held-out conditions, noise x subsampling, snapshots.

    python analysis/published_protocol.py runs/analysis/published --workers 2
    python analysis/published_protocol.py runs/analysis/overlapping --simulation overlapping_steps --workers 2
"""

from __future__ import annotations

import functools
import itertools
import json
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from asked import parser, written
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold

from metarule.identification.classifier import trees as extra_trees
from metarule.identification.degrading import Degradation, degraded, drawn
from metarule.identification.metrics import grouped_interval
from metarule.identification.observables import (
    ACTIVITY_STATISTICS,
    TINY,
    WEIGHT_STATISTICS,
    columns,
    matrix,
    observables,
)
from metarule.identification.recording import Recording, RecordingError
from metarule.identification.simulation import Job, read, simulated
from metarule.reading import simulations
from metarule.rng import seed_number
from metarule.workers import pool

FRACTIONS, NOISES, SNAPSHOTS = (1.0, 0.5, 0.25, 0.1), (0.0, 0.1, 0.3, 1.0), (3, 6, 9, 15, 21)
STATISTICS = (
    *(f"weights, {name}" for name in WEIGHT_STATISTICS),
    *(f"activity, {name}" for name in ACTIVITY_STATISTICS),
    *(f"layer-wise change, {name}" for name in ("mean", "abs_mean", "square_mean")),
)
"""The 24 statistics in the order of their columns."""


class Network(NamedTuple):
    """One network: its facts, raw statistics (21 x 24), our observables clean and degraded, and along the grids."""

    facts: dict[str, Any]
    raw: np.ndarray
    clean: dict[str, float]
    poorer: dict[str, float]
    grid: dict[str, dict[str, float]]


def raw_statistics(recording: Recording) -> np.ndarray:
    """The 24 admissible statistics at every snapshot, mean over layers (T, 24)."""
    names = list(recording.structure.sizes)
    found = []
    for moment in range(len(recording.time)):
        row = []
        for arrays, statistics in (
            ([array[moment] for array in recording.weights.values()], WEIGHT_STATISTICS),
            ([recording.activity[name][moment] for name in names[1:]], ACTIVITY_STATISTICS),
        ):
            for statistic in statistics.values():
                values = [statistic(np.asarray(array, dtype=np.float64).reshape(1, -1))[0] for array in arrays]
                row.append(float(np.mean(values)))
        found.append(row + _layerwise(recording, names, moment))
    return np.array(found)


def _layerwise(recording: Recording, names: list[str], moment: int) -> list[float]:
    """Gradient of summed outputs in the inputs of a layer, per output unit: raw, absolute, squared."""
    values = []
    for source, target in itertools.pairwise(names[:-1]):
        rate = recording.activity[target][moment].astype(np.float64)
        weight = recording.weights[f"{source}->{target}"][moment].astype(np.float64)
        gradient = ((1 - rate**2) @ weight).sum(axis=1) / rate.shape[1]
        values.append([gradient.mean(), np.abs(gradient).mean(), (gradient**2).mean()])
    return np.mean(values, axis=0).tolist()


def measured(job: Job, grid: bool) -> list[Network]:
    """Everything that is needed of a block of networks."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)
    found = []
    for place, recording in enumerate(simulated(job)):
        generator = np.random.default_rng(seed_number("published", recording.meta["network"], bits=62))

        def seen(degradation: Degradation, recording=recording, generator=generator) -> dict[str, float]:
            try:
                return observables(degraded(recording, degradation, generator))
            except RecordingError:
                return {}

        tried: dict[str, dict[str, float]] = {}
        if grid and place == 0:
            for fraction, noise in itertools.product(FRACTIONS, NOISES):
                tried[f"fraction {fraction}, noise {noise}"] = seen(Degradation(fraction, noise, 1e-2 * noise))
            for snapshots in SNAPSHOTS:
                tried[f"snapshots {snapshots}"] = seen(Degradation(snapshots=snapshots))
        facts = {key: recording.meta[key] for key in ("label", "task", "hidden", "displacement", "network")}
        found.append(Network(facts, raw_statistics(recording), seen(Degradation()), seen(drawn(generator)), tried))
    return found


def relative(raw: np.ndarray) -> np.ndarray:
    """Every statistic over its value in the first snapshot, signed logarithm (N, 21 x 24)."""
    ratio = (raw - raw[:, :1]) / (np.abs(raw[:, :1]) + TINY)
    return (np.sign(ratio) * np.log1p(np.abs(ratio))).reshape(len(raw), -1)


def crossed(model: Any, numbers: np.ndarray, labels: np.ndarray, networks: np.ndarray) -> Any:
    """Accuracy with its interval, five folds grouped by network."""
    right = np.zeros(len(labels), dtype=bool)
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(numbers, labels, networks):
        right[test] = model().fit(numbers[train], labels[train]).predict(numbers[test]) == labels[test]
    return grouped_interval(right, networks, seed=0)


def forest(count: int = 500) -> Any:
    """The published recipe's classifier."""
    return RandomForestClassifier(count, random_state=0)


def trees() -> Any:
    """Ours."""
    return extra_trees(300)


def held_out(numbers: dict[str, np.ndarray], labels: np.ndarray, networks: list[Network]) -> dict[str, Any]:
    """Accuracy where a condition was never trained on, by kind of observables."""
    facts = [network.facts for network in networks]
    middle = np.median([fact["displacement"] for fact in facts])
    conditions = {
        "depth 2": [len(fact["hidden"]) == 2 for fact in facts],
        "width 64": [fact["hidden"][0] == 64 for fact in facts],
        "data: teacher": [fact["task"] == "teacher" for fact in facts],
        "learning rate: upper half": [fact["displacement"] > middle for fact in facts],
    }
    groups = np.array([fact["network"] for fact in facts])
    found: dict[str, Any] = {}
    for name, members in conditions.items():
        new = np.array(members)
        found[name] = {
            kind: grouped_interval(
                model().fit(table[~new], labels[~new]).predict(table[new]) == labels[new], groups[new], seed=0
            )
            for kind, (table, model) in {
                "published recipe": (numbers["raw"], forest),
                "all, scale-free": (numbers["all"], trees),
            }.items()
        }
    return found


def curves(networks: list[Network], labels: np.ndarray) -> dict[str, Any]:
    """Accuracy by noise x subsampling and by snapshots, trained on clean and randomly degraded other networks."""
    tried = np.array([bool(network.grid) for network in networks])
    names = columns([network.clean for network in networks])
    table = np.concatenate(
        [
            filled(matrix([getattr(network, kind) for network in networks], names)[~tried])
            for kind in ("clean", "poorer")
        ]
    )
    model = trees().fit(table, np.concatenate((labels[~tried], labels[~tried])))  # pyright: ignore[reportAttributeAccessIssue]
    chosen = [network for network in networks if network.grid]
    groups = np.array([network.facts["network"] for network in chosen])
    return {
        case: grouped_interval(
            model.predict(filled(matrix([network.grid[case] for network in chosen], names))) == labels[tried],
            groups,
            seed=0,
        )
        for case in chosen[0].grid
    }


def filled(table: np.ndarray) -> np.ndarray:
    """Held inside what trees take; what is missing is far below everything."""
    return np.nan_to_num(table, nan=-1e4).clip(-6e4, 6e4)


def figures(networks: list[Network]) -> dict[str, Any]:
    """All tables."""
    labels = np.array([network.facts["label"] for network in networks])
    groups = np.array([network.facts["network"] for network in networks])
    raw = np.stack([network.raw for network in networks])
    names = columns([network.clean for network in networks])
    white = filled(matrix([network.clean for network in networks], names))
    parts = {"weights": slice(0, 13), "activity": slice(13, 21), "layer-wise change": slice(21, 24)}
    scale_free = relative(raw)
    numbers = {"raw": raw.reshape(len(raw), -1), "all": np.concatenate((white, scale_free), axis=1)}
    return {
        "networks": len(networks),
        "chance": 1 / len(np.unique(labels)),
        "published recipe, 24 statistics": crossed(forest, numbers["raw"], labels, groups),
        "published, by observable": {
            name: crossed(forest, raw[:, :, part].reshape(len(raw), -1), labels, groups) for name, part in parts.items()
        },
        "published, by statistic": {
            name: crossed(functools.partial(forest, 100), raw[:, :, place], labels, groups)
            for place, name in enumerate(STATISTICS)
        },
        "the same statistics, scale-free": crossed(trees, scale_free, labels, groups),
        "single updates": crossed(trees, white, labels, groups),
        "all observables": crossed(trees, numbers["all"], labels, groups),
        "first snapshot only": crossed(forest, raw[:, 0], labels, groups),
        "held out": held_out(numbers, labels, networks),
        "noise x subsampling, snapshots": curves(networks, labels),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--simulation", default="published_protocol", help="or overlapping_steps")
    asked = options.parse_args()
    simulation = read(simulations()[asked.simulation])
    with pool(asked.workers) as map:
        parts = map(functools.partial(measured, grid=True), simulation.jobs())
        networks = [network for part in parts for network in part]
    found = figures(networks)
    written(asked.folder, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
