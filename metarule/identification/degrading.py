"""Degrading recordings: noise, unobserved units, fewer snapshots, no weights, as real ones are.

Noise is drawn once per recording, independent over time, and stays as it is: no analysis can average it away.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from metarule.identification.recording import Recording


@dataclass(frozen=True)
class Degradation:
    """What is taken from a recording: `fraction` of every hidden population stays observed, noise of `weight_noise`
    times the root mean square of a single update's changes and of `activity_noise` times the standard deviation of a
    population's rates is added, `snapshots` snapshots at the most are kept, in bursts evenly chosen, the last one
    cut, and weights are left out where not `weights`."""

    fraction: float = 1.0
    weight_noise: float = 0.0
    activity_noise: float = 0.0
    snapshots: int | None = None
    weights: bool = True


def drawn(generator: np.random.Generator, weights: bool = True) -> Degradation:
    """A random degradation, as the bank trains on: log-uniform in fraction (.1 to 1), noise and snapshots (5 to 21)."""
    return Degradation(
        fraction=math.exp(generator.uniform(math.log(0.1), 0.0)),
        weight_noise=math.exp(generator.uniform(math.log(1e-2), math.log(1.0))),
        activity_noise=math.exp(generator.uniform(math.log(1e-5), math.log(1e-2))),
        snapshots=round(math.exp(generator.uniform(math.log(5), math.log(21)))),
        weights=weights,
    )


def degraded(recording: Recording, degradation: Degradation, generator: np.random.Generator) -> Recording:
    """The recording as a poorer experiment would have made it."""
    poorer = recording.at(_kept(recording, degradation.snapshots))
    names = list(recording.structure.sizes)
    observed = {name: np.ones(size, dtype=bool) for name, size in recording.structure.sizes.items()}
    for name in names[1:-1]:
        size = len(observed[name])
        count = min(size, max(2, round(degradation.fraction * size)))
        observed[name] = np.zeros(size, dtype=bool)
        observed[name][generator.choice(size, count, replace=False)] = True
    weights, bias = {}, {}
    if degradation.weights:
        for edge, array in recording.weights.items():
            source, _, target = edge.partition("->")
            noisy = _noisy(poorer.weights[edge], degradation.weight_noise * _step(recording, array), generator)
            noisy[:, ~observed[target], :] = np.nan
            noisy[:, :, ~observed[source]] = np.nan
            weights[edge] = noisy
        for name, array in recording.bias.items():
            noisy = _noisy(poorer.bias[name], degradation.weight_noise * _step(recording, array), generator)
            noisy[:, ~observed[name]] = np.nan
            bias[name] = noisy
    activity = {}
    for name, array in recording.activity.items():
        sd = degradation.activity_noise * float(array.std()) if name != names[0] else 0.0
        noisy = _noisy(poorer.activity[name], sd, generator)
        noisy[:, :, ~observed[name]] = np.nan
        activity[name] = noisy
    meta = {**recording.meta, "populations": names}
    return replace(poorer, weights=weights, bias=bias, activity=activity, meta=meta)


def _kept(recording: Recording, snapshots: int | None) -> np.ndarray:
    """Numbers of the snapshots that stay: whole bursts, evenly chosen, until there are enough."""
    total = len(recording.time)
    if snapshots is None or snapshots >= total:
        return np.arange(total)
    starts = np.concatenate(([0], np.flatnonzero(recording.gaps != 1) + 1, [total]))
    bursts = [np.arange(first, last) for first, last in itertools.pairwise(starts)]
    length = max(len(burst) for burst in bursts)
    count = min(len(bursts), max(1, -(-snapshots // length)))
    picked = [bursts[place] for place in np.unique(np.linspace(0, len(bursts) - 1, count).round().astype(int))]
    return np.concatenate(picked)[:snapshots]


def _step(recording: Recording, array: np.ndarray) -> float:
    """The root mean square of a single update's changes."""
    singles = np.flatnonzero(recording.gaps == 1)
    if len(singles) == 0:
        return 0.0
    changes = array[singles + 1] - array[singles]
    return float(np.sqrt(np.nanmean(changes**2)))


def _noisy(array: np.ndarray, sd: float, generator: np.random.Generator) -> np.ndarray:
    noise = generator.normal(size=array.shape) * sd if sd > 0 else 0.0
    return (array + noise).astype(np.float64)
