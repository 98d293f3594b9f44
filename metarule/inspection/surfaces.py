"""Response surfaces: the change of a synapse as a function of two of the signals that its rule reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.inspection.observed import Observed, evaluated, observed, typical
from metarule.inspection.subject import Subject
from metarule.rng import noise_for
from metarule.rules import Rule
from metarule.signals import SIGNALS, Signals
from metarule.terms import FACTORS, spelled

GRID = 33
"""Values of a signal on a surface, from 2 standard deviations below to 2 above its mean on the task."""

REACH = 2.0

FEW = 4
"""A signal that takes so many values or fewer is shown at these."""

PAIRS = 6
"""Surfaces of a rule, those of the signals that move the change most."""

Answer = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Signal -> (N) values: the changes (N)."""

NUMBERS = 1 << 22
"""Numbers at synapses that are computed at once."""

SLIGHT = 1e-9
"""Share of the change's variance below which a signal is not read at all."""


def surfaces(subject: Subject, equations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The section "surfaces" of an inspection, as JSON values.

    Of every rule: its first change at one synapse and event, over pairs of signals, all others held at their means on
    the task. `equations` are shown beside rules that have none of their own, by the rule's key.
    """
    found: list[dict[str, Any]] = []
    sentences = []
    columns = subject.learner.columns(subject.theta.to(torch.float64))
    for key, rule in subject.learner.rules.items():
        seen = observed(subject, key)
        if seen is None:
            if typical(subject.learner, key) is not None:
                sentences.append(f"The rule of {key} has no surface: no run on its task is left that did not diverge.")
            continue
        theta = columns.rules[key][0]
        said = equation_of(rule, theta, seen) or (equations or {}).get(key)
        made = of_rule(rule, theta, seen)
        found += [{"rule": key, **each, "equation": said} for each in made]
        if not made:
            sentences.append(f"The rule of {key} depends on fewer than two signals: it has no surface.")
        elif not rule.local and rule.equation(theta, seen.shape) is None:
            sentences.append(
                f"The rule of {key} reads sums over the units of a layer: its surfaces are of a layer with one unit."
            )
    return {"surfaces": found, "sentences": sentences}


def of_rule(rule: Rule, theta: Float[Tensor, "P"], seen: Observed) -> list[dict[str, Any]]:
    """The surfaces of one rule at one row of theta, those that matter most first."""
    own = rule.equation(theta, seen.shape)
    if own is None or rule.local:
        names = [name for name in SIGNALS if name in {*rule.reads, "weight"}]

        def answer(signals: Mapping[str, np.ndarray]) -> np.ndarray:
            return changes(rule, theta, signals, seen.shape)
    else:  # sums over units are signals of their own
        names = [name for name in seen.signals if name in {str(symbol) for symbol in own.free_symbols}]

        def answer(signals: Mapping[str, np.ndarray]) -> np.ndarray:
            return evaluated(own, signals)

    signals = {name: seen.signals[name] for name in names}
    influence = influences(answer, signals)
    read = [name for name in sorted(signals, key=lambda name: -influence[name]) if influence[name] > SLIGHT]
    pairs = sorted(itertools.combinations(read, 2), key=lambda pair: -(influence[pair[0]] + influence[pair[1]]))
    means = {name: float(values.mean()) for name, values in signals.items()}
    made = []
    for x, y in pairs[:PAIRS]:
        across, up = axis(signals[x]), axis(signals[y])
        grid = {name: np.full((len(up), len(across)), value) for name, value in means.items()}
        grid[x], grid[y] = np.broadcast_to(across, grid[x].shape), np.broadcast_to(up[:, None], grid[y].shape)
        change = answer({name: values.ravel() for name, values in grid.items()})
        made.append(
            {
                "at": seen.at,
                "x": x,
                "y": y,
                "held": {name: value for name, value in means.items() if name in read and name not in (x, y)},
                "influence": {name: influence[name] for name in (x, y)},
                "x_values": across.tolist(),
                "y_values": up.tolist(),
                "change": change.reshape(len(up), len(across)).tolist(),
            }
        )
    return made


def axis(values: np.ndarray) -> np.ndarray:
    """Where a signal is shown: its few values, or a grid about its mean."""
    few = np.unique(values)
    if len(few) <= FEW:
        return few
    mean, deviation = values.mean(), values.std()
    return np.linspace(mean - REACH * deviation, mean + REACH * deviation, GRID)


def influences(answer: Answer, signals: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Signal -> half the mean squared difference that exchanging it between the synapses observed makes, as a share of
    the change's variance (Jansen 1999): shares of signals that act together add to more than 1.
    """
    before = answer(signals)
    variance = float(before.var())
    moved = {}
    for name, values in signals.items():
        gap = float(np.mean((before - answer({**signals, name: np.roll(values, len(values) // 2)})) ** 2)) / 2
        moved[name] = gap / variance if variance else 0.0
    return moved


def changes(
    rule: Rule, theta: Float[Tensor, "P"], signals: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    """The first change of N synapses, each at one event of its own, in an I x J projection.

    As many as fit stand on the diagonal of one projection: where a rule is local they do not hear of each other, unless
    by what all of them share, as a reward. One that is not local is asked of layers of one unit.
    """
    size_out, size_in = shape if rule.local else (1, 1)
    run, slot = _places(signals, min(size_out, size_in))
    together = max(NUMBERS // (size_out * size_in * max(rule.per_synapse, 1)), 1)
    found = np.empty(len(run))
    for first in range(0, int(run.max()) + 1, together):
        here = np.flatnonzero((run >= first) & (run < first + together))
        rows, units = torch.as_tensor(run[here] - first), torch.as_tensor(slot[here])
        count = int(rows.max()) + 1
        given = {}
        for name, values in signals.items():
            value = torch.as_tensor(values[here], dtype=torch.float64)
            side = FACTORS[name].side
            width = {"pre": size_in, "post": size_out}.get(side, 1)
            whole = torch.zeros(count, *((size_out, size_in) if side == "synapse" else (1, width)), dtype=torch.float64)
            at = units if side in ("pre", "post", "synapse") else torch.zeros_like(units)
            whole[rows, at if side == "synapse" else torch.zeros_like(at), at] = value
            given[name] = whole
        single = Signals(**{"weight": torch.zeros(count, size_out, size_in, dtype=torch.float64), **given})
        numbers = theta.to(torch.float64).expand(count, -1)
        noise = noise_for([("surfaces", first + place) for place in range(count)])
        with torch.no_grad():
            change = rule.delta(numbers, single, rule.init(numbers, single.weight), noise)[0].tensor(single.weight)
        found[here] = change[rows, units, units].numpy()
    return found


def _places(signals: Mapping[str, np.ndarray], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Run and place on its diagonal of every synapse: those of a run agree in what is broadcast to all."""
    count = len(next(iter(signals.values())))
    shared = [values for name, values in signals.items() if FACTORS[name].side == "event"]
    group = (
        np.unique(np.stack(shared, axis=1), axis=0, return_inverse=True)[1] if shared else np.zeros(count, dtype=int)
    )
    order = np.argsort(group, kind="stable")
    ordered = group.reshape(-1)[order]
    rank = np.empty(count, dtype=int)
    rank[order] = np.arange(count) - np.searchsorted(ordered, ordered)
    pieces = np.stack((group.reshape(-1), rank // side), axis=1)
    run = np.unique(pieces, axis=0, return_inverse=True)[1].reshape(-1)
    return run, rank % side


def equation_of(rule: Rule, theta: Float[Tensor, "P"], seen: Observed) -> str | None:
    """The rule's own equation at the projection where it was observed; None where it has none."""
    own = rule.equation(theta, seen.shape)
    parts = rule.expressions(theta) if own is None else {"dW": own}
    return "; ".join(f"{name} = {spelled(part)}" for name, part in parts.items()) or None
