"""Shooting: one layer simulated under a weighted sum of terms, with the sensitivity of all that was observed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from metarule.identification.recording import Recording, RecordingError
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS
from metarule.terms import Term


class Trajectory(NamedTuple):
    """One stretch of learning from known weights: `weight` (I J), `input` (T S J), what was observed, and the layer.

    `activity` (T S I) before and `after` (T I J), the weights after, each update are NaN where nothing was observed.
    `target` (T S I) where there is one; `drive` (T I) is what an always-on unit adds.
    """

    weight: np.ndarray
    input: np.ndarray
    activity: np.ndarray
    after: np.ndarray
    target: np.ndarray | None = None
    drive: np.ndarray | None = None
    nonlinearity: str = "sigmoid"
    beta: float = 1.0


def trajectories(recording: Recording, first: np.ndarray | None = None) -> list[Trajectory]:
    """The stretches between snapshots with weights; each starts from what was seen, the inputs of all updates known.

    A recording without weights is one stretch, from weights `first` (I J) before its first update.
    Raises RecordingError where there are hidden layers, where an input is missing or no weights were ever seen.
    """
    if len(recording.structure.sizes) != 2:
        raise RecordingError("/weights: coefficients are fitted through the dynamics of one layer only")
    source, name = recording.structure.sizes
    edge = f"{source}->{name}"
    weights = _weights(recording, edge, first)
    if recording.input is None or not np.isfinite(recording.input[:-1, recording.probes :]).all():
        raise RecordingError("/input is missing at some updates; between snapshots the inputs of all are needed")
    if (recording.gaps != 1).any():
        raise RecordingError("/time skips updates; give every update its time, its inputs, and NaN for what is unknown")
    seen = np.flatnonzero(np.isfinite(weights).all(axis=(1, 2)))
    if not len(seen):
        raise RecordingError(f"/weights/{edge}: no snapshot shows all weights; the first ones at least are needed")
    batch = slice(recording.probes, None)
    shown = np.asarray(recording.input, dtype=np.float64)[:, batch]
    rates = np.full((*shown.shape[:2], weights.shape[1]), np.nan)
    if name in recording.activity:
        rates = np.asarray(recording.activity[name], dtype=np.float64)[:, batch]
    target = None if recording.target is None else np.asarray(recording.target, dtype=np.float64)[:, batch]
    drive = np.asarray(recording.bias[name], dtype=np.float64) if name in recording.bias else None
    if drive is not None and not np.isfinite(drive).all():
        raise RecordingError(f"/bias/{name} is missing at some updates; leave it out where there is none")
    found = []
    for start, last in itertools.pairwise([*seen, len(weights) - 1]):
        if last > start:
            stretch = slice(start, last)
            found.append(
                Trajectory(
                    weights[start],
                    shown[stretch],
                    rates[stretch],
                    weights[start + 1 : last + 1],
                    None if target is None else target[stretch],
                    None if drive is None else drive[stretch],
                    str(recording.meta.get("output", "softmax")),
                )
            )
    return found


def _weights(recording: Recording, edge: str, first: np.ndarray | None) -> np.ndarray:
    """Weights (T I J), NaN where they were not seen."""
    if recording.weights:
        return np.asarray(recording.weights[edge], dtype=np.float64)
    width, units = recording.structure.sizes.values()
    weights = np.full((len(recording.time), units, width), np.nan)
    if first is not None:
        if first.shape != weights.shape[1:]:
            raise RecordingError(f"the first weights have shape {first.shape}, the layer has {weights.shape[1:]}")
        weights[0] = first
    return weights


class Evaluation(NamedTuple):
    """Per cluster of observations: J'J (C K K), J'r (C K) and r'r (C) of the residuals r and their Jacobian J."""

    gram: np.ndarray
    cross: np.ndarray
    energy: np.ndarray


class _Power(NamedTuple):
    post: int
    error: int
    pre: int
    weight: int


@dataclass(frozen=True, eq=False)
class Shooting:
    """Trajectories of the same shape side by side (N first), their terms, step size and clusters of observations."""

    groups: tuple[Trajectory, ...]
    terms: tuple[Term, ...]
    step: float
    chunks: int
    scales: tuple[float, float]
    freedom: float

    @classmethod
    def of(cls, observed: Sequence[Trajectory], terms: Sequence[Term], step: float, clusters: int) -> Shooting:
        """Trajectories are grouped by shape and padded in time; what was observed is scaled by what learning did."""
        if not observed:
            raise RecordingError("no stretch of learning was observed; at least one update is needed")
        shapes: dict[tuple, list[Trajectory]] = {}
        for each in observed:
            key = (*each.weight.shape, each.input.shape[1], each.target is None, each.drive is None, *each[6:])
            shapes.setdefault(key, []).append(each)
        groups = tuple(_stacked(members) for members in shapes.values())
        count = sum(np.isfinite(group.activity).sum() + np.isfinite(group.after).sum() for group in groups)
        if count == 0:
            raise RecordingError("neither activity nor weights were observed after the first snapshot")
        chunks = -(-clusters // len(observed))
        bare = cls(groups, tuple(terms), step, chunks, (1.0, 1.0), float(count))
        return cls(groups, tuple(terms), step, chunks, bare._sizes(), float(count))

    def evaluate(self, theta: np.ndarray, columns: list[int]) -> Evaluation:
        """Residuals at `theta` with their sensitivities to the coefficients `columns`; infinite where they diverge."""
        with np.errstate(over="ignore", invalid="ignore"):
            parts = [self._simulated(group, theta, columns) for group in self.groups]
        return Evaluation(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _sizes(self) -> tuple[float, float]:
        """Root mean squares of what learning did to activity and to weights."""
        squares, counts = np.zeros(2), np.zeros(2)
        for group in self.groups:
            still = _rates(group, group.weight, slice(None))[0]
            for place, rest in enumerate((group.activity - still, group.after - group.weight[:, None])):
                squares[place] += np.nansum(rest**2)
                counts[place] += np.isfinite(rest).sum()
        found = np.sqrt(squares / np.maximum(counts, 1))
        return (float(found[0]) or 1.0, float(found[1]) or 1.0)

    def _simulated(self, group: Trajectory, theta: np.ndarray, columns: list[int]) -> Evaluation:
        runs, steps = group.input.shape[:2]
        weight = group.weight.copy()
        wide = len(columns)
        turn = np.zeros((*weight.shape, wide))
        shape = (runs, self.chunks)
        gram, cross, energy = np.zeros((*shape, wide, wide)), np.zeros((*shape, wide)), np.zeros(shape)

        def observe(chunk: int, rest: np.ndarray, slope: np.ndarray, scale: float) -> None:
            fine = np.isfinite(rest) | np.isinf(rest)
            rest = np.where(fine, rest, 0.0).reshape(runs, -1) / scale
            energy[:, chunk] += (rest**2).sum(1)
            if wide:
                flat = (slope * fine[..., None]).reshape(runs, -1, wide) / scale
                gram[:, chunk] += flat.transpose(0, 2, 1) @ flat
                cross[:, chunk] += (flat.transpose(0, 2, 1) @ rest[:, :, None])[:, :, 0]

        for time in range(steps):
            chunk = time * self.chunks // steps
            rate, tangent = _rates(group, weight, time)
            moved = tangent(group.input[:, time][:, None] @ turn) if wide else turn[:, :, :0]  # N I S K
            slopes = moved.transpose(0, 2, 1, 3) if wide else turn
            observe(chunk, group.activity[:, time] - rate, slopes, self.scales[0])
            change, turned = self._change(group, time, weight, rate, theta, columns, turn, moved)
            weight = weight + self.step * change
            if not np.isfinite(weight).all():
                energy[:] = np.inf
                break
            turn = turn + self.step * turned if wide else turn
            if np.isfinite(group.after[:, time]).any():
                observe(chunk, group.after[:, time] - weight, turn, self.scales[1])
        clusters = runs * self.chunks
        return Evaluation(gram.reshape(clusters, wide, wide), cross.reshape(clusters, wide), energy.reshape(clusters))

    def _change(
        self,
        group: Trajectory,
        time: int,
        weight: np.ndarray,
        rate: np.ndarray,
        theta: np.ndarray,
        columns: list[int],
        turn: np.ndarray,
        moved: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """sum_k theta_k term_k (N I J) and its derivative to the coefficients (N I J K)."""
        pre = group.input[:, time]
        error = rate * 0 if group.target is None else group.target[:, time] - rate
        events = pre.shape[1]
        known: dict[tuple[int, int, int], np.ndarray] = {}

        def outer(power: _Power) -> np.ndarray:
            key = power[:3]
            if key not in known:
                left = rate**power.post * error**power.error
                known[key] = left.transpose(0, 2, 1) @ pre**power.pre / events
            return known[key]

        powers = [_power(each) for each in self.terms]
        change = np.zeros_like(weight)
        by_weight = np.zeros_like(weight)
        by_post: dict[tuple[int, int], np.ndarray] = {}
        for k in np.flatnonzero(theta):
            power = powers[k]
            change += theta[k] * outer(power) * weight**power.weight
            if not columns:
                continue
            if power.weight:
                by_weight += theta[k] * power.weight * outer(power) * weight ** (power.weight - 1)
            slope = 0.0
            if power.post:
                slope = power.post * rate ** (power.post - 1) * error**power.error
            if power.error:
                slope = slope - power.error * rate**power.post * error ** (power.error - 1)
            if power.post or power.error:
                key = (power.pre, power.weight)
                by_post[key] = by_post.get(key, 0.0) + theta[k] * slope
        if not columns:
            return change, turn
        turned = np.stack([outer(powers[k]) * weight ** powers[k].weight for k in columns], axis=-1)
        turned += by_weight[..., None] * turn
        if by_post:
            through = np.zeros((*weight.shape, events))  # N I J S
            for (pre_power, weight_power), slope in by_post.items():
                sides = slope.transpose(0, 2, 1)[:, :, None] * (pre**pre_power).transpose(0, 2, 1)[:, None]
                through += sides * (weight**weight_power)[..., None]
            turned += through @ moved / events
        return change, turned


def _power(each: Term) -> _Power:
    powers = dict(each.parts[0][1])
    return _Power(*(powers.get(name, 0) for name in _Power._fields))


def _rates(
    group: Trajectory, weight: np.ndarray, time: int | slice
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Rates (N S I), or (N T S I) for a slice, and the function that turns drive derivatives (N I S K) into theirs."""
    turned = weight.transpose(0, 2, 1)
    drive = group.input[:, time] @ (turned[:, None] if isinstance(time, slice) else turned)
    if group.drive is not None:
        drive = drive + group.drive[:, time][..., None, :]
    if group.nonlinearity == "softmax":
        rate = OUTPUTS["softmax"](torch.from_numpy(drive)).numpy()

        def of_softmax(by: np.ndarray) -> np.ndarray:
            share = rate.transpose(0, 2, 1)[..., None]
            return share * (by - (share * by).sum(axis=1, keepdims=True))

        return rate, of_softmax
    kind = NONLINEARITIES[group.nonlinearity]
    rate = kind.rate(torch.from_numpy(drive), group.beta).numpy()
    slope = kind.slope(torch.from_numpy(rate), group.beta).numpy()
    return rate, lambda by: slope.transpose(0, 2, 1)[..., None] * by


def _stacked(members: list[Trajectory]) -> Trajectory:
    """Trajectories side by side; the shorter ones go on unobserved, on silent inputs."""
    longest = max(len(each.input) for each in members)

    def padded(arrays: list[np.ndarray], value: float) -> np.ndarray:
        return np.stack([_longer(array, longest, value) for array in arrays])

    first = members[0]
    return Trajectory(
        np.stack([each.weight for each in members]),
        padded([each.input for each in members], 0.0),
        padded([each.activity for each in members], np.nan),
        padded([each.after for each in members], np.nan),
        None if first.target is None else padded([_given(each.target) for each in members], 0.0),
        None if first.drive is None else padded([_given(each.drive) for each in members], 0.0),
        *first[6:],
    )


def _given(array: np.ndarray | None) -> np.ndarray:
    assert array is not None
    return array


def _longer(array: np.ndarray, length: int, value: float) -> np.ndarray:
    missing = np.full((length - len(array), *array.shape[1:]), value)
    return np.concatenate((array, missing))
