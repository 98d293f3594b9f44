"""Mechanism probes of a rule: what it does to weights, units and errors while it learns, and what its terms are for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from metarule.evaluation import interval
from metarule.inner import Map
from metarule.inspection.contrasts import Contrast, contrasts, reduced, terms_of
from metarule.inspection.probe_words import (
    angles_sentence,
    contrast_sentence,
    curl_sentence,
    curve_sentence,
    rest_sentence,
)
from metarule.inspection.small_copy import Draws, curls
from metarule.inspection.subject import Subject
from metarule.inspection.walks import PROBES, Numbers, Walk, Walked, moments, walk

EPISODES = 20
"""Held-out episodes that every number is a mean of."""

AT_ONCE = 5
"""Episodes of a job; the same for any number of workers."""

DRAWS = 8
"""Random small networks of which the curl is taken."""

CONTRASTED = ("error_angle", "angle_to_backprop", "orthonormality")
"""What is measured of a rule without one of its terms, at the end of its training."""

EARLY = 0.1
"""The fraction of the training after which the drift is compared with that at its end."""

EXACT = 0.1
"""Degrees; in float32 the angle of a vector to itself is up to a few hundredths."""

ALL = "mean of layers"

Series = dict[str, dict[str, list[Numbers]]]
"""Probe -> layer -> moment -> a number per episode."""


def probes(subject: Subject, map: Map, progress: Callable[[str], None]) -> dict[str, Any]:
    """The section "probes" of an inspection, as JSON values; means with 95 % intervals over `EPISODES` episodes.

    Curves over training, one per probe of `walks.PROBES` that has an answer; the curl of the update in small random
    copies of the network; where each layer would come to rest; and, of rules that are sums of terms, every term's
    effect on alignment and orthonormality, paired on the same episodes.
    """
    coefficients = terms_of(subject.learner, subject.theta)
    pairs = contrasts(coefficients)
    whole = frozenset(coefficients)
    subsets = list(dict.fromkeys(each for pair in pairs for each in (pair.with_it, pair.without) if each != whole))
    steps = subject.conditions.steps
    when = moments(steps)
    jobs = _jobs(subject, tuple(PROBES), when, rests=True)
    for kept in subsets:
        learner, theta = reduced(subject.learner, subject.theta, kept, whole)
        part = _jobs(subject, CONTRASTED, (steps,))
        jobs += [job._replace(learner=learner, theta=theta) for job in part]
    done: list[int] = []

    def arrived(place: int, result: Any, /) -> None:
        done.append(place)
        progress(f"probes: {len(done)} of {len(jobs)} trainings of {AT_ONCE} episodes")

    progress(f"probes: {len(jobs)} trainings of {AT_ONCE} episodes, {steps} steps each")
    walked = list(map(walk, jobs, arrived))
    size = -(-EPISODES // AT_ONCE)
    groups = [_joined(walked[first : first + size]) for first in range(0, len(walked), size)]
    first = groups[0]
    exact = _backprops(first.found)
    if exact:  # an angle that is 0 by construction is no finding
        groups = [group._replace(found={**group.found, "error_angle": {}}) for group in groups]
        first = groups[0]
    ends = {whole: _last(first.found)} | {kept: each.found for kept, each in zip(subsets, groups[1:], strict=True)}
    progress(f"probes: the curl of {DRAWS} small copies")
    curl = _curl(subject, map)
    curves = [_curve(name, layers, when) for name, layers in first.found.items() if layers]
    fixed = [_fixed(layer, rest, first.found["drift"][layer], when) for layer, rest in first.rests.items()]
    hidden = {p.name for p in subject.network.projections if p.target != subject.network.output_name}
    compared = [row for pair in pairs for row in _contrast(pair, ends, hidden)]
    taught = any(curve["name"] == "angle_to_backprop" for curve in curves)
    return {
        "curves": curves,
        "curl": curl,
        "fixed_points": fixed,
        "contrasts": compared,
        "episodes": EPISODES,
        "steps": steps,
        "sentences": [
            *(["The errors that its units hear are those of backprop."] if exact else []),
            *angles_sentence(curves, taught),
            *([curl["sentence"]] if curl else []),
            *dict.fromkeys(row["sentence"] for row in compared if row["sentence"]),
            *(each["sentence"] for each in fixed),
        ],
    }


def _backprops(found: Series) -> bool:
    """True where the errors are backprop's at every moment, to rounding."""
    angles = [value for series in found["error_angle"].values() for numbers in series for value in numbers]
    return bool(angles) and all(value < EXACT for value in angles)


def _jobs(subject: Subject, names: tuple[str, ...], when: tuple[int, ...], rests: bool = False) -> list[Walk]:
    runs = subject.runs(EPISODES, "probes")
    dtype = getattr(subject.conditions.engine, "dtype", torch.float32)
    return [
        Walk(
            subject.learner, subject.theta, subject.task.held_out(), runs.episodes[first : first + AT_ONCE], runs.seed,
            subject.conditions.batch, when, names, dtype, rests,
        )
        for first in range(0, EPISODES, AT_ONCE)
    ]  # fmt: skip


def _joined(parts: Sequence[Walked]) -> Walked:
    """The numbers of several groups of episodes, one after the other."""
    found = {
        name: {
            layer: [_chained(part.found[name][layer][place] for part in parts) for place in range(len(series))]
            for layer, series in layers.items()
        }
        for name, layers in parts[0].found.items()
    }
    rests = {
        layer: {name: _chained(part.rests[layer][name] for part in parts) for name in numbers}
        for layer, numbers in parts[0].rests.items()
    }
    return Walked(found, rests)


def _chained(parts: Iterable[Numbers]) -> Numbers:
    return list(itertools.chain.from_iterable(parts))


def _last(found: Series) -> Series:
    return {name: {layer: series[-1:] for layer, series in layers.items()} for name, layers in found.items()}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and 95 % interval of the finite values; None where there are too few."""
    finite = [value for value in values if math.isfinite(value)]
    numbers = interval(finite) if finite else (math.nan,) * 3
    return {
        name: number if math.isfinite(number) else None
        for name, number in zip(("mean", "low", "high"), numbers, strict=True)
    }


def _curve(name: str, layers: dict[str, list[Numbers]], when: tuple[int, ...]) -> dict[str, Any]:
    probe = PROBES[name]
    shown: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for layer, series in layers.items():
        rows = [spread(values) for values in series]
        shown[layer] = {"steps": list(when)} | {key: [row[key] for row in rows] for key in ("mean", "low", "high")}
        changes[layer] = spread([last - first for first, last in zip(series[0], series[-1], strict=True)])
    return {
        "name": name,
        "label": probe.label,
        "unit": probe.unit,
        "layers": shown,
        "change": changes,
        "sentence": curve_sentence(probe.label, probe.unit, shown, changes),
    }


def _curl(subject: Subject, map: Map) -> dict[str, Any] | None:
    runs = subject.runs(DRAWS, "curl")
    draws = Draws(
        subject.learner, subject.theta, subject.task.held_out(), subject.conditions.batch, runs.episodes, runs.seed
    )
    (found,) = map(curls, [draws])
    if isinstance(found, str):
        return {"asymmetry": None, "draws": 0, "sentence": f"Curl was not measured: {found}."}
    asymmetry = spread(found)
    return {"asymmetry": asymmetry, "draws": DRAWS, "sentence": curl_sentence(asymmetry, DRAWS)}


def _fixed(layer: str, rest: dict[str, Numbers], drift: list[Numbers], when: tuple[int, ...]) -> dict[str, Any]:
    early = min(range(len(when)), key=lambda place: abs(when[place] - EARLY * when[-1]))
    ratio = [last / first if first > 0 else math.nan for first, last in zip(drift[early], drift[-1], strict=True)]
    there = [value for value in rest["point"] if math.isfinite(value)]
    found = {
        "layer": layer,
        "drift": spread(drift[-1]),
        "drift_ratio": spread(ratio),
        "since": when[early],
        "norm": spread(rest["norm"]),
        "rest": spread(there),
        "runs_with_rest": len(there),
        "grows_when_large": spread(rest["grows_when_large"])["mean"],
        "grows_when_small": spread(rest["grows_when_small"])["mean"],
    }
    return found | {"sentence": rest_sentence(found, EPISODES)}


def _contrast(pair: Contrast, ends: dict[frozenset[str], Series], hidden: set[str]) -> list[dict[str, Any]]:
    """One row per probe and layer, and one for the mean of the hidden layers, which says what the term does."""
    rows = []
    for probe in CONTRASTED:
        one, other = (ends[kept].get(probe, {}) for kept in (pair.with_it, pair.without))
        if not one or not other:
            continue
        if pair.kind == "knock-in" and not any(map(math.isfinite, next(iter(other.values()))[0])):
            continue  # the leading term alone diverges: there is nothing to add to
        chosen = [layer for layer in one if probe == "error_angle" or layer in hidden] or list(one)
        values = {layer: (one[layer][0], other[layer][0]) for layer in one}
        values[ALL] = _means([one[layer][0] for layer in chosen]), _means([other[layer][0] for layer in chosen])
        for layer, (left, right) in values.items():
            rows.append(
                {
                    "term": pair.term.rpartition(".")[2],
                    "kind": pair.kind,
                    "to": sorted(name.rpartition(".")[2] for name in pair.without),
                    "probe": probe,
                    "layer": layer,
                    "with": spread(left)["mean"],
                    "without": spread(right)["mean"],
                    "difference": spread([a - b for a, b in zip(left, right, strict=True)]),
                    "diverged": sum(not math.isfinite(value) for value in right),
                    "diverged_with": sum(not math.isfinite(value) for value in left),
                    "sentence": "",
                }
            )
    means = {row["probe"]: row for row in rows if row["layer"] == ALL}
    if means:
        next(iter(means.values()))["sentence"] = contrast_sentence(means, EPISODES)
    return rows


def _means(layers: list[Numbers]) -> Numbers:
    return [sum(values) / len(values) for values in zip(*layers, strict=True)]
