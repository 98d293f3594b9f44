"""Rivals: rules that the data cannot tell apart, each pair with an experiment that would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metarule.identification.dictionary import columns, normal, term, usable, vocabulary
from metarule.identification.equation import ENOUGH, read, written
from metarule.identification.recording import Recording, RecordingError
from metarule.identification.sparse import rest_of, select, solved

ALIKE = 0.01
"""Rules are rivals where they explain the changes equally well, within this share, and better than ENOUGH."""

APART = 0.1
"""An experiment separates two rules where one leaves at least this share of the other's changes, whatever its size."""

SAMPLES = 64


@dataclass(frozen=True, eq=False)
class Experiment:
    """Inputs (S J) under which two rules part: what they are in words, and by how much predicted changes differ."""

    name: str
    inputs: np.ndarray
    difference: float


@dataclass(frozen=True, eq=False)
class Rivalry:
    """Two rules, term -> coefficient, that explain the same share, how they differ now, and a cure."""

    first: Mapping[str, float]
    second: Mapping[str, float]
    names: tuple[str, str]
    share: float
    difference: float
    experiment: Experiment | None

    @property
    def text(self) -> str:
        """A sentence for people."""
        said = f"ambiguous: {self.names[0]} and {self.names[1]} both explain {100 * self.share:.1f} % of the changes"
        if self.experiment is None:
            return f"{said}, and no inputs that were tried would separate them"
        share = 100 * self.experiment.difference
        return (
            f"{said}; {self.experiment.name} would separate them ({share:.0f} % of one's changes are not the other's)"
        )

    def table(self) -> dict[str, Any]:
        """As it goes to JSON."""
        proposed = None
        if self.experiment is not None:
            proposed = {"name": self.experiment.name, "difference": self.experiment.difference}
        return {
            "text": self.text,
            "rules": {name: dict(rule) for name, rule in zip(self.names, (self.first, self.second), strict=True)},
            "share": self.share,
            "difference": self.difference,
            "experiment": proposed,
        }


def rivals(
    recording: Recording,
    edge: str | None = None,
    rules: Mapping[str, Mapping[str, float]] | None = None,
    terms: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[Rivalry, ...]:
    """Pairs of rules that explain the changes of an edge, the lowest if None, equally well.

    `rules` name -> {term: coefficient}, up to a common factor, are compared with one another; None: the sparse
    equation with every equation that has one of its terms exchanged for another one. Raises RecordingError where no
    weights were recorded.
    """
    if not recording.weights:
        raise RecordingError("/weights are missing; what separates two rules is predicted from weights")
    layer, error = read(recording, edge)
    needed = {name for rule in (rules or {}).values() for name in rule}
    known = [term(name) for name in (terms or sorted(needed))] or list(vocabulary(error is not None))
    table = normal(layer, known, error)
    gram, cross, energy = table.total()

    def share(theta: np.ndarray) -> float:
        return 1 - rest_of(gram, cross, energy, theta) / energy

    def vector(rule: Mapping[str, float]) -> np.ndarray:
        return np.array([rule.get(name, 0.0) for name in table.names])

    if rules is None:
        pairs = _exchanged(recording, edge, table, seed)
    else:
        scaled = {}
        for name, rule in rules.items():
            theta = vector(rule)
            size = theta @ gram @ theta
            factor = float(theta @ cross / size) if size > 0 else 0.0
            scaled[name] = {key: factor * value for key, value in rule.items()}
        names = list(scaled)
        pairs = [((a, b), scaled[a], scaled[b]) for k, a in enumerate(names) for b in names[k + 1 :]]
    found = []
    for names, first, second in pairs:
        one, other = vector(first), vector(second)
        least = min(share(one), share(other))
        apart = one - other
        difference = float(np.sqrt(max(apart @ gram @ apart, 0.0) / energy))
        if least >= ENOUGH and abs(share(one) - share(other)) < ALIKE and difference < APART:
            experiment = separating(recording, first, second, edge, seed)
            found.append(Rivalry(first, second, names, least, difference, experiment))
    return tuple(found)


def _exchanged(
    recording: Recording, edge: str | None, table: Any, seed: int
) -> list[tuple[tuple[str, str], dict[str, float], dict[str, float]]]:
    """The sparse equation beside those in which another term stands for one of its own."""
    gram, cross, _ = table.total()
    selection = select(table, n_boot=0, seed=seed)
    swaps = list(selection.rivals)
    for name in selection.undetermined:
        swaps += [(name, other) for other in selection.combinations[name] if other != name]
    found = []
    for name, other in dict.fromkeys(swaps):
        support = [table.names.index(other if each == name else each) for each in selection.support]
        theta = solved(gram, cross, support)
        second = {table.names[k]: float(theta[k]) for k in support}
        first = selection.coefficients
        found.append(((written(first), written(second)), first, second))
    return found


def separating(
    recording: Recording,
    first: Mapping[str, float],
    second: Mapping[str, float],
    edge: str | None = None,
    seed: int = 0,
) -> Experiment | None:
    """Of several input statistics, those under which two rules' predicted changes differ most; None where none does."""
    found = [
        Experiment(name, inputs, difference(recording, first, second, inputs, edge))
        for name, inputs in _candidates(recording, seed).items()
    ]
    best = max(found, key=lambda each: each.difference)
    return best if best.difference >= APART else None


def difference(
    recording: Recording,
    first: Mapping[str, float],
    second: Mapping[str, float],
    inputs: np.ndarray,
    edge: str | None = None,
) -> float:
    """The sine of the angle between two rules' predicted changes of an edge on inputs (S J), at the last weights.

    It is what a rule leaves of the other one's changes whatever its size, 0 where nothing tells them apart. Targets,
    where there are any, are the recorded ones in turn.
    """
    layer, error = read(_shown(recording, inputs), edge)
    rows, cols = usable(layer, error)
    heard = None if error is None else error[0][:, rows]
    made = []
    for rule in (first, second):
        design = columns(
            [term(name) for name in rule],
            layer.post[0][:, rows],
            layer.pre[0][:, cols],
            layer.weight[0][np.ix_(rows, cols)],
            heard,
        )
        made.append(np.tensordot(np.array(list(rule.values())), design, 1))
    one, other = (each.ravel() / (np.linalg.norm(each) or 1.0) for each in made)
    return float(np.sqrt(max((one @ one) * (other @ other) - (one @ other) ** 2, 0.0)))


def _shown(recording: Recording, inputs: np.ndarray) -> Recording:
    """The network as it was last, shown other inputs."""
    places = [-1, 0]
    target = None
    if recording.target is not None:
        shown = recording.target[:, recording.probes :]
        flat = shown.reshape(-1, shown.shape[2])
        flat = flat[np.isfinite(flat).all(axis=1)]
        picked = flat[np.arange(len(inputs)) % len(flat)]
        target = np.stack([picked, picked])
    return replace(
        recording,
        time=np.array([0.0, 1.0]),
        weights={name: array[places] for name, array in recording.weights.items()},
        bias={name: array[places] for name, array in recording.bias.items()},
        activity={},
        input=np.stack([inputs, inputs]),
        target=target,
        reward=None,
        meta={**recording.meta, "probes": 0, "updates_per_snapshot": 1},
    )


def _candidates(recording: Recording, seed: int) -> dict[str, np.ndarray]:
    """Input statistics to try, by name."""
    assert recording.input is not None
    shown = np.asarray(recording.input, dtype=np.float64)[:, recording.probes :]
    flat = shown.reshape(-1, shown.shape[2])
    flat = flat[np.isfinite(flat).all(axis=1)]
    generator = np.random.default_rng(seed)
    picked = flat[generator.integers(len(flat), size=SAMPLES)]
    mean, spread, top = float(flat.mean()), float(flat.std()) or 1.0, float(np.abs(flat).max()) or 1.0
    size = picked.shape
    return {
        "the same inputs at half their strength": 0.5 * picked,
        "the same inputs at twice their strength": 2 * picked,
        "the same inputs with a strength of their own, from 0 to 2 times": picked
        * generator.uniform(0, 2, (size[0], 1)),
        "the same inputs with reversed sign": -picked,
        f"inputs uniform between 0 and {top:.3g}": generator.uniform(0, top, size),
        f"Gaussian inputs with mean 0 and s.d. {spread:.3g}": generator.normal(0, spread, size),
        f"Gaussian inputs with mean {mean:.3g} and s.d. {spread:.3g}": generator.normal(mean, spread, size),
        f"sparse inputs, one unit in ten between 0 and {top:.3g}": generator.uniform(0, top, size)
        * (generator.random(size) < 0.1),
        "inputs that are alike in all units": np.repeat(generator.normal(mean, spread, (size[0], 1)), size[1], axis=1),
    }
