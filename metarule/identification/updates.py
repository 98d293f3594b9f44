"""Single updates: what a recording shows of each weight change, and of the batch that made it.

Two snapshots one update apart give dW exactly. Where weights were not recorded they are inferred from activity: the
drive of every unit is the inverse of its nonlinearity, and weights are the least-squares map from pre rates to drives.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from metarule.identification.recording import Recording, RecordingError
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS, Nonlinearity

FAR = 1 - 1e-6
"""Rates are held this far inside the range of their nonlinearity before it is inverted."""

RIDGE = 1e-6
"""Share of the mean square of pre rates that keeps the inferred weights finite where units are silent."""


class Layer(NamedTuple):
    """One edge of the chain over U single updates: `weight` before and `change` (U I J), `pre` (U B J), `post` (U B I).

    `slope` (U B I) is the slope of the post units' nonlinearity, 1 at the output.
    """

    edge: str
    weight: np.ndarray
    change: np.ndarray
    pre: np.ndarray
    post: np.ndarray
    slope: np.ndarray


@dataclass(frozen=True, eq=False)
class Updates:
    """All single updates of a recording: its layers bottom up, the output error and target (U B O), and their times.

    `follows[u]` says whether update u comes right after update u - 1. `error` and `target` are None where no targets
    were recorded. `inferred` is True where weights come from activity.
    """

    layers: tuple[Layer, ...]
    error: np.ndarray | None
    target: np.ndarray | None
    times: np.ndarray
    follows: np.ndarray
    inferred: bool


def single_updates(recording: Recording) -> Updates:
    """The single updates of a recording, with the units of which something is known.

    Raises RecordingError where inputs are missing, no two snapshots are one update apart, the network is no chain of
    layers, or nothing is known of a population.
    """
    fine = shown_updates(recording)
    names = tuple(recording.structure.sizes)
    edges = chain(recording)
    inferred = not recording.weights
    rates = rates_of(recording, names)
    seen = {name: np.isfinite(rates[name]).any(axis=(0, 1)) for name in names}
    weights = inferred_weights(recording, names, rates, seen) if inferred else dict(recording.weights)
    whole = {edge: np.asarray(weights[edge], dtype=np.float64) for edge in edges}
    if not inferred:
        for edge, (source, target) in zip(edges, itertools.pairwise(names), strict=True):
            seen[target] = seen[target] & np.isfinite(whole[edge]).any(axis=(0, 2))
            seen[source] = seen[source] & np.isfinite(whole[edge]).any(axis=(0, 1))
        whole = {
            edge: whole[edge][:, seen[target]][:, :, seen[source]]
            for edge, (source, target) in zip(edges, itertools.pairwise(names), strict=True)
        }
    for name in names:
        if not seen[name].any():
            raise RecordingError(
                f"nothing is known of population '{name}'; record the activity or weights of its units"
            )
    fine = fine[complete(whole, fine)]
    if len(fine) == 0:
        raise RecordingError(
            "no single update has all its weights, or activity that tells them; record both ends of one"
        )
    batch = slice(recording.probes, None)
    layers = []
    for edge, (source, target) in zip(edges, itertools.pairwise(names), strict=True):
        weight = whole[edge]
        post = rates[target][fine][:, batch][:, :, seen[target]]
        layers.append(
            Layer(
                edge,
                np.nan_to_num(weight[fine]),
                np.nan_to_num(weight[fine + 1] - weight[fine]),
                rates[source][fine][:, batch][:, :, seen[source]],
                post,
                _slope(recording, target == names[-1], post),
            )
        )
    error = target = None
    if recording.target is not None:
        # of units that were not seen neither the error nor what it changed is known
        target = np.asarray(recording.target, dtype=np.float64)[fine][:, batch][:, :, seen[names[-1]]]
        error = target - layers[-1].post
    follows = np.concatenate(([False], np.diff(fine) == 1))
    return Updates(tuple(layers), error, target, recording.time[fine], follows, inferred)


def chain(recording: Recording) -> list[str]:
    """The edges of a chain of layers, bottom up; raises RecordingError where the network is none."""
    names = tuple(recording.structure.sizes)
    edges = [f"{source}->{target}" for source, target in itertools.pairwise(names)]
    if recording.weights and {*recording.weights} != {*edges}:
        raise RecordingError(
            f"/weights: {', '.join(recording.weights)} is no chain of layers; single updates are read on chains only"
        )
    return edges


def complete(weights: Mapping[str, np.ndarray], places: np.ndarray) -> np.ndarray:
    """Whether the weights before and after each update are there, but for those that never are."""
    found = np.ones(len(places), dtype=bool)
    for array in weights.values():
        missing = np.asarray(np.isnan(array))
        never = np.asarray(missing.all(axis=0))
        lacking = np.asarray((missing & ~never).any(axis=(1, 2)) | missing.all(axis=(1, 2)))
        found &= ~lacking[places] & ~lacking[places + 1]
    return found


def shown_updates(recording: Recording) -> np.ndarray:
    """The snapshots right before a single update whose batch was recorded.

    Raises RecordingError where inputs are missing or no two snapshots are one update apart.
    """
    moments = recording.singles
    if len(moments) == 0:
        raise RecordingError(
            "/time: no two snapshots are one update apart; record bursts of consecutive updates, as mr.Recorder does"
        )
    if recording.input is None:
        raise RecordingError("/input is missing: what made a change cannot be said; record the inputs of every update")
    fine = moments
    for name, batches in (("input", recording.input), ("target", recording.target)):
        if batches is not None:
            fine = fine[np.isfinite(batches[fine, recording.probes :]).all(axis=(1, 2))]
        if len(fine) == 0:
            raise RecordingError(
                f"/{name}: no update has all of its batch; record what the updates themselves were shown"
            )
    fine = fine[complete(recording.weights, fine)]
    if len(fine) == 0:
        raise RecordingError("/weights: every single update lacks some before or after it; record both")
    return fine


def rates_of(recording: Recording, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Population -> rates (T S units): as recorded, else by the forward pass through recorded weights."""
    assert recording.input is not None
    rates = {names[0]: np.asarray(recording.input, dtype=np.float64)}
    for source, target in itertools.pairwise(names):
        if target in recording.activity:
            rates[target] = np.asarray(recording.activity[target], dtype=np.float64)
            continue
        edge = f"{source}->{target}"
        if edge not in recording.weights:
            raise RecordingError(f"/activity/{target} and /weights/{edge} are both missing; record one of them")
        # units whose weights are missing have rates that nobody knows
        drive = rates[source] @ np.asarray(recording.weights[edge], dtype=np.float64).transpose(0, 2, 1)
        if target in recording.bias:
            drive = drive + np.asarray(recording.bias[target], dtype=np.float64)[:, None]
        rates[target] = _rate(recording, target == names[-1], drive)
    return rates


def inferred_weights(
    recording: Recording, names: tuple[str, ...], rates: dict[str, np.ndarray], seen: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Edge -> weights (T, I, J) of the units that were seen, from drives and pre rates; an always-on unit is fitted.

    Behind a silent relu there may be any drive: only the events at which a unit is active tell of its weights.
    """
    found = {}
    for source, target in itertools.pairwise(names):
        pre = rates[source][:, :, seen[source]]
        post = rates[target][:, :, seen[target]]
        drive = _drive(recording, target == names[-1], post)
        fine = np.isfinite(pre).all(axis=2, keepdims=True) & np.isfinite(drive).all(axis=2, keepdims=True)
        pre = np.where(fine, np.concatenate((pre, np.ones_like(pre[:, :, :1])), axis=2), 0.0)
        drive = np.where(fine, drive, 0.0)
        rectified = target != names[-1] and recording.meta.get("nonlinearity") == "relu"
        telling = (post > _silence(post)) & fine if rectified else None
        solved = [_solved(pre[t], drive[t], None if telling is None else telling[t]) for t in range(len(pre))]
        found[f"{source}->{target}"] = np.stack(solved)[:, :, :-1]
    return found


def _solved(pre: np.ndarray, drive: np.ndarray, telling: np.ndarray | None) -> np.ndarray:
    """W (I J) with drive (S I) ~ pre (S J) W^T, by ridge regression; per unit over the events that tell of it."""
    samples, units = pre.shape
    if not pre.any():
        return np.full((drive.shape[1], units), np.nan)
    ridge = RIDGE * float((pre**2).sum()) / units
    if telling is None:
        return np.linalg.solve(pre.T @ pre + ridge * np.eye(units), pre.T @ drive).T
    mask, wanted = telling.T.astype(float), (drive * telling).T  # I S
    if samples < units:
        gram = (pre @ pre.T) * mask[:, :, None] * mask[:, None, :] + ridge * np.eye(samples)
        return np.linalg.solve(gram, wanted[:, :, None])[:, :, 0] @ pre
    gram = (mask[:, None, :] * pre.T) @ pre + ridge * np.eye(units)
    return np.linalg.solve(gram, (wanted @ pre)[:, :, None])[:, :, 0]


def _silence(rate: np.ndarray) -> float:
    """The rate up to which a unit behind a relu may be silent: below 0 there is nothing but noise."""
    below = np.minimum(np.nan_to_num(rate), 0.0)
    return 3 * float(np.sqrt(2 * (below**2).mean()))


def _rate(recording: Recording, top: bool, drive: np.ndarray) -> np.ndarray:
    given = torch.as_tensor(drive)
    if top:
        return OUTPUTS[recording.meta.get("output", "softmax")](given).numpy()
    return _hidden(recording).rate(given, _beta(recording)).numpy()


def _hidden(recording: Recording) -> Nonlinearity:
    return NONLINEARITIES[recording.meta.get("nonlinearity", "tanh")]


def _beta(recording: Recording) -> float:
    return float(recording.meta.get("beta", 1.0))


def _drive(recording: Recording, top: bool, rate: np.ndarray) -> np.ndarray:
    """The drive behind a rate; up to a constant per event behind a softmax, and 0 behind a silent relu."""
    kind = recording.meta.get("output", "softmax") if top else recording.meta.get("nonlinearity", "tanh")
    beta = 1.0 if top else _beta(recording)
    tiny = 1 - FAR
    if kind == "softmax":
        logarithm = np.log(np.clip(rate, tiny**2, 1.0))
        return logarithm - logarithm.mean(axis=-1, keepdims=True)
    if kind == "sigmoid":
        held = np.clip(rate, tiny, FAR)
        return np.log(held / (1 - held)) / beta
    return {
        "tanh": lambda: np.arctanh(np.clip(rate, -FAR, FAR)),
        "softplus": lambda: np.log(np.expm1(np.maximum(beta * rate, tiny))) / beta,
        "relu": lambda: rate,
        "linear": lambda: rate,
    }[kind]()


def _slope(recording: Recording, top: bool, rate: np.ndarray) -> np.ndarray:
    if top:
        return np.ones_like(rate)
    # of a silent relu noise leaves a rate that is not 0
    telling = rate * (rate > _silence(rate)) if recording.meta.get("nonlinearity") == "relu" else rate
    return _hidden(recording).slope(torch.as_tensor(telling), _beta(recording)).numpy()
