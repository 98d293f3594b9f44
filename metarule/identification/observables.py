"""Observables: scale-free numbers of a recording, named, the same for every width and depth.

Three groups. "white": what single updates show of the change at the lowest, the highest hidden and the readout layer,
early and late in the recording. "published": the statistics of Nayebi et al. (2020), each divided by its value in the
first snapshot. A number that a recording does not allow is NaN.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import numpy as np

from metarule.identification.recording import Recording, RecordingError
from metarule.identification.updates import Layer, Updates, rates_of, single_updates

TINY = 1e-30  # far below the products of norms of the slowest learning
LARGEST = 6e4
"""Tables hold observables within this: what float16 holds."""

PLACES = ("low", "high", "readout")
"""The lowest hidden layer, the highest hidden one (the same where there is one), and the readout."""

GROUPS = ("white", "published_weights", "published_activity")
"""Groups of observables; a name begins with its group."""


def observables(recording: Recording, groups: tuple[str, ...] = GROUPS) -> dict[str, float]:
    """Name -> value of every observable in `groups`, NaN where the recording does not allow it.

    Raises RecordingError where nothing can be computed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of what nobody observed
        found = _observed(recording, groups)
    if not any(np.isfinite(value) for value in found.values()):
        raise RecordingError(
            "nothing can be computed from this recording: it has neither consecutive updates with their inputs nor "
            "weights or activity that change"
        )
    return found


def _observed(recording: Recording, groups: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    if "white" in groups:
        try:
            updates = single_updates(recording)
        except RecordingError:
            updates = None
        if updates is not None:
            found |= {f"white.{name}": value for name, value in white(updates).items()}
    shown = published(recording).items()
    return found | {name: value for name, value in shown if any(name.startswith(group) for group in groups)}


def white(updates: Updates) -> dict[str, float]:
    """What single updates show: place.name.when, `when` early or late."""
    layers = updates.layers
    places = {"readout": layers[-1]}
    if len(layers) > 1:
        places["low"] = layers[0]
    if len(layers) > 2:
        places["high"] = layers[-2]
    factors = {layer.edge: post_factor(layer) for layer in layers}
    backward = backpropagated(updates)
    found: dict[str, float] = {}
    early = np.arange(len(updates.times)) < (len(updates.times) + 1) // 2
    for place, layer in places.items():
        above = layers[layers.index(layer) + 1] if place != "readout" else None
        series = _series(updates, layer, factors[layer.edge], backward.get(layer.edge))
        for name, values in series.items():
            found[f"{place}.{name}.early"] = _mean(values[early])
            found[f"{place}.{name}.late"] = _mean(values[~early])
        norms = np.linalg.norm(layer.change.reshape(len(layer.change), -1), axis=1)
        found[f"{place}.variation"] = float(norms.std() / (norms.mean() + TINY))
        for name, value in _maps(updates, layer, factors, above, early).items():
            found[f"{place}.{name}"] = value
    if len(layers) == 2:
        found |= {name.replace("low.", "high.", 1): value for name, value in found.items() if name.startswith("low.")}
    return found


def post_factor(layer: Layer) -> np.ndarray:
    """D (U B I) with dW = D^T pre / B in the least-squares sense: what every event did to every post unit."""
    inverse = np.linalg.pinv(layer.pre, rcond=1e-4)  # U J B
    return layer.pre.shape[1] * (layer.change @ inverse).transpose(0, 2, 1)


def backpropagated(updates: Updates) -> dict[str, np.ndarray]:
    """Edge -> backprop's error (U B I) at its post units through the recorded weights; {} without targets."""
    if updates.error is None:
        return {}
    top, error = updates.layers[-1], np.nan_to_num(updates.error)
    found = {top.edge: error}
    for layer, above in zip(updates.layers[-2::-1], updates.layers[:0:-1], strict=True):
        error = (error @ above.weight) * layer.slope
        found[layer.edge] = error
    return found


def _series(updates: Updates, layer: Layer, factor: np.ndarray, backward: np.ndarray | None) -> dict[str, np.ndarray]:
    """Name -> one number per update."""
    change, weight, events = layer.change, layer.weight, layer.pre.shape[1]
    spanned = factor.transpose(0, 2, 1) @ layer.pre / events
    energy = (change**2).sum(axis=(1, 2)) + TINY**2
    found = {
        "in_span": (spanned**2).sum(axis=(1, 2)) / energy,
        "on_weight": _cosine(change, weight),
        "on_hebb": _cosine(change, layer.post.transpose(0, 2, 1) @ layer.pre),
        "on_post": _cosine(factor, layer.post),
        "on_square": _cosine(factor, layer.post**2),
        "flat": np.abs(change).mean(axis=(1, 2)) ** 2 / (energy / change[0].size),
        "kurtosis": np.log((change**4).mean(axis=(1, 2)) / (energy / change[0].size) ** 2 + TINY),
        "rank": _participation(factor),
        "events": _share_of_largest(factor, axis=2),
        "slope": _cosine(np.abs(factor), layer.slope),
    }
    before = np.full(len(change), np.nan)
    if updates.follows.any():
        before[updates.follows] = _cosine(change[1:], change[:-1])[updates.follows[1:]]
    found["persists"] = before
    if backward is None:
        return found
    gradient = backward.transpose(0, 2, 1) @ layer.pre / events
    found["on_gradient"] = _cosine(change, gradient)
    found["on_error"] = _cosine(factor, backward)
    found["on_sign"] = _cosine(change, np.sign(gradient))
    found["signs"] = np.mean(np.sign(change) * np.sign(gradient), axis=(1, 2))
    explained, on_weight, velocity = _regressed(change, gradient, weight, updates.follows)
    found |= {"by_gradient_and_weight": explained, "decay": on_weight, "velocity": velocity}
    found["rest_in_span"] = _rest_in_span(change, gradient, layer.pre)
    return found


def _regressed(
    change: np.ndarray, gradient: np.ndarray, weight: np.ndarray, follows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dW = a gradient + b W: share explained and b |W| / |dW|; and dW = a gradient + m dW_before: m."""
    explained, decay = _two(change, gradient, weight)
    decay = decay * _norm(weight) / (_norm(change) + TINY)
    velocity = np.full(len(change), np.nan)
    if follows.any():
        places = np.flatnonzero(follows)
        velocity[places] = _two(change[places], gradient[places], change[places - 1])[1]
    return explained, decay, velocity


def _two(target: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per update, the share of `target` that a sum of the two explains, and the coefficient of the second."""
    flat = [each.reshape(len(each), -1) for each in (target, first, second)]
    scales = [np.linalg.norm(each, axis=1, keepdims=True) + TINY for each in flat]
    t, a, b = (each / scale for each, scale in zip(flat, scales, strict=True))
    ab, at, bt = (a * b).sum(1), (a * t).sum(1), (b * t).sum(1)
    determinant = np.maximum(1 - ab**2, 1e-9)
    on_a, on_b = (at - ab * bt) / determinant, (bt - ab * at) / determinant
    return np.clip(on_a * at + on_b * bt, 0, 1), on_b * scales[0][:, 0] / scales[2][:, 0]


def _rest_in_span(change: np.ndarray, gradient: np.ndarray, pre: np.ndarray) -> np.ndarray:
    """Of what the gradient leaves of a change, the share that lies in the span of the batch's pre activity."""
    scale = (change * gradient).sum(axis=(1, 2)) / ((gradient**2).sum(axis=(1, 2)) + TINY**2)
    rest = change - scale[:, None, None] * gradient
    spanned = (rest @ np.linalg.pinv(pre, rcond=1e-4)) @ pre  # by way of events, fewer than units
    energy, left = (change**2).sum(axis=(1, 2)), (rest**2).sum(axis=(1, 2))
    # what rounding leaves has no direction
    return np.where(left > 1e-6 * energy, (spanned**2).sum(axis=(1, 2)) / (left + TINY**2), 1.0)


def _maps(
    updates: Updates, layer: Layer, factors: dict[str, np.ndarray], above: Layer | None, early: np.ndarray
) -> dict[str, float]:
    """How well one fixed linear map makes the post factor of the output's error, of the target, of the layer above.

    Each share is of the later half of the updates by a map that was fitted to the earlier half ("foretold"), and by
    one fitted to the later half itself ("later"): feedback that stays foretells, feedback that learns does not.
    """
    if above is None or updates.error is None or updates.target is None:
        return {}
    slope = np.maximum(layer.slope, 1e-3)
    needed = factors[layer.edge]
    sources = {
        "from_error": np.nan_to_num(updates.error),
        "from_target": np.nan_to_num(updates.target),
        "from_above": factors[above.edge],
        "from_post": layer.post,
    }
    found: dict[str, float] = {}
    for name, source in sources.items():
        first, last = ((source[half], needed[half], slope[half]) for half in (early, ~early))
        if not len(first[0]) or not len(last[0]):
            continue
        before, after = _map(*first), _map(*last)
        found[f"{name}.foretold"] = _explained(before, *last)
        found[f"{name}.later"] = _explained(after, *last)
        found[f"{name}.stays"] = float(_flat_cosine(before, after))
        if name == "from_above":
            late = above.weight[~early].mean(axis=0).T  # I of this layer, J above
            if late.shape == after.shape:
                found["feedback.on_weight"] = float(_flat_cosine(after, late))
                found["feedback.on_weight_before"] = float(_flat_cosine(before, above.weight[early].mean(axis=0).T))
                found["feedback.on_signs"] = float(_flat_cosine(after, np.sign(late)))
                found["feedback.moved_as_weight"] = float(
                    _flat_cosine(after - before, late - above.weight[early].mean(axis=0).T)
                )
    return found


def _map(source: np.ndarray, needed: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """M (I O) with needed ~ slope x (source M^T), by weighted least squares for each post unit alone."""
    flat_source = source.reshape(-1, source.shape[2])
    flat_needed, flat_slope = (each.reshape(-1, each.shape[2]) for each in (needed, slope))
    events, outputs = flat_source.shape
    if events < outputs:  # the same solution from the events' side: N x N in place of O x O per unit
        each = flat_slope.T  # I N
        gram = each[:, :, None] * (flat_source @ flat_source.T) * each[:, None, :]
        size = np.trace(gram, axis1=1, axis2=2) / outputs + TINY
        solved = np.linalg.solve(gram + 1e-4 * size[:, None, None] * np.eye(events), flat_needed.T[:, :, None])
        return (solved[:, :, 0] * each) @ flat_source
    # the sources' products, once for all units: one large product in place of one per unit
    products = (flat_source[:, :, None] * flat_source[:, None, :]).reshape(events, -1)  # N OO
    gram = ((flat_slope**2).T @ products).reshape(-1, outputs, outputs)  # I O O
    size = np.trace(gram, axis1=1, axis2=2) / outputs + TINY
    gram += 1e-4 * size[:, None, None] * np.eye(outputs)
    cross = (flat_slope * flat_needed).T @ flat_source  # I O
    return np.linalg.solve(gram, cross[:, :, None])[:, :, 0]


def _explained(mapping: np.ndarray, source: np.ndarray, needed: np.ndarray, slope: np.ndarray) -> float:
    """Share of `needed` explained by the map, its overall size fitted."""
    made = slope * (source @ mapping.T)
    scale = (made * needed).sum() / ((made**2).sum() + TINY**2)
    return float(np.clip(1 - ((needed - scale * made) ** 2).sum() / ((needed**2).sum() + TINY**2), 0, 1))


def published(recording: Recording) -> dict[str, float]:
    """The admissible statistics of Nayebi et al. (2020) at the middle and the last snapshot over the first, signed log.

    Weights: mean, median, norm, third quartile and variance of raw and absolute values, mean, median and third quartile
    of squares; activity: mean, median, norm and third quartile of raw and absolute values. Mean over layers.
    """
    found: dict[str, float] = {}
    if recording.weights:
        for name, statistic in WEIGHT_STATISTICS.items():
            found |= _relative(f"published_weights.{name}", list(recording.weights.values()), statistic)
    hidden = list(recording.structure.sizes)[1:]
    activity = {name: recording.activity[name] for name in hidden if name in recording.activity}
    if not activity and recording.weights and recording.input is not None:
        rates = rates_of(recording, tuple(recording.structure.sizes))
        activity = {name: rates[name] for name in hidden}
    for name, statistic in ACTIVITY_STATISTICS.items():
        found |= _relative(f"published_activity.{name}", list(activity.values()), statistic)
    return found


def first_snapshot(recording: Recording) -> dict[str, float]:
    """The published statistics of the first snapshot, mean over layers: the control that must know nothing."""
    found = {}
    hidden = list(recording.structure.sizes)[1:]
    activity = [recording.activity[name] for name in hidden if name in recording.activity]
    for arrays, statistics in ((list(recording.weights.values()), WEIGHT_STATISTICS), (activity, ACTIVITY_STATISTICS)):
        group = "weights" if statistics is WEIGHT_STATISTICS else "activity"
        for name, statistic in statistics.items():
            values = [statistic(np.asarray(array[0], dtype=np.float64).reshape(1, -1))[0] for array in arrays]
            found[f"{group}.{name}"] = float(np.mean(values)) if values else np.nan
    return found


Statistic = Callable[[np.ndarray], np.ndarray]


def _statistics(names: tuple[str, ...], shape: str, change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Statistic]:
    functions: dict[str, Callable[..., np.ndarray]] = {
        "mean": np.nanmean,
        "median": np.nanmedian,
        "third": lambda values, axis: np.nanquantile(values, 0.75, axis=axis),
        "variance": np.nanvar,
        "norm": lambda values, axis: np.sqrt(np.nansum(values**2, axis=axis)),
    }
    return {f"{shape}_{name}": lambda values, f=functions[name]: f(change(values), axis=1) for name in names}


_FIVE = ("mean", "median", "norm", "third", "variance")
WEIGHT_STATISTICS: dict[str, Statistic] = {
    **_statistics(_FIVE, "abs", np.abs),
    **_statistics(_FIVE, "raw", lambda values: values),
    **_statistics(("mean", "median", "third"), "square", np.square),
}
ACTIVITY_STATISTICS: dict[str, Statistic] = {
    **_statistics(_FIVE[:4], "abs", np.abs),
    **_statistics(_FIVE[:4], "raw", lambda values: values),
}


def _relative(name: str, arrays: list[np.ndarray], statistic: Statistic) -> dict[str, float]:
    ratios = []
    for array in arrays:
        picked = np.asarray(array)[[0, len(array) // 2, -1]].reshape(3, -1).astype(np.float64)
        values = statistic(picked)
        ratios.append((values[1:] - values[0]) / (np.abs(values[0]) + TINY))
    if not ratios:
        return {f"{name}.{when}": np.nan for when in ("middle", "last")}
    middle, last = np.mean([np.sign(ratio) * np.log1p(np.abs(ratio)) for ratio in ratios], axis=0)
    return {f"{name}.middle": float(middle), f"{name}.last": float(last)}


def _norm(values: np.ndarray) -> np.ndarray:
    return np.linalg.norm(values.reshape(len(values), -1), axis=1)


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Per update."""
    return (one * other).reshape(len(one), -1).sum(1) / (_norm(one) * _norm(other) + TINY)


def _flat_cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other) + TINY))


def _participation(factor: np.ndarray) -> np.ndarray:
    """(sum s^2)^2 / sum s^4 over the singular values s of the post factor, over its largest possible value."""
    values = np.linalg.svd(factor, compute_uv=False) ** 2
    return values.sum(1) ** 2 / ((values**2).sum(1) + TINY**2) / values.shape[1]


def _share_of_largest(factor: np.ndarray, axis: int) -> np.ndarray:
    """Share of the post factor's energy in the quarter of the events that have most of it."""
    energy = np.sort((factor**2).sum(axis=axis), axis=1)[:, ::-1]
    count = max(1, energy.shape[1] // 4)
    return energy[:, :count].sum(1) / (energy.sum(1) + TINY**2)


def _mean(values: np.ndarray) -> float:
    fine = values[np.isfinite(values)]
    return float(fine.mean()) if len(fine) else np.nan


def columns(rows: list[dict[str, float]]) -> tuple[str, ...]:
    """Every name that any of the rows has, sorted."""
    return tuple(sorted(set(itertools.chain.from_iterable(rows))))


def matrix(rows: list[dict[str, float]], names: tuple[str, ...]) -> np.ndarray:
    """(rows, names) within LARGEST, NaN where a row has no such observable."""
    found = np.array([[row.get(name, np.nan) for name in names] for row in rows], dtype=np.float64)
    return found.clip(-LARGEST, LARGEST)
