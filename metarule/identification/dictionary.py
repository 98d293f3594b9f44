"""The dictionary of an equation: candidate terms, and what each of them would have done to every synapse.

A term is a monomial of post, error, pre and weight, named as `rules.polynomial` names it: "post_pre", "post2_weight".
Regressions need only the normal equations of a design matrix, so that large layers cost no memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarule.collect import unknown
from metarule.identification.recording import RecordingError
from metarule.identification.updates import Layer
from metarule.rules.polynomial import Polynomial
from metarule.terms import Monomial, Term, monomial

FACTORS = ("post", "error", "pre", "weight")
"""What a candidate term is made of."""

ENTRIES = 1_500_000
"""Weight changes that are read of a layer at most; larger layers are read at evenly spaced units and updates."""

UPDATES = 300
"""Updates that are read at most."""

CLUSTERS = 8
"""Parts at least that the changes are cut into, for intervals and held-out shares: updates, or units of each."""


def taylor(**degrees: int) -> tuple[Term, ...]:
    """All monomials up to the degree of each factor, the constant among them; taylor(pre=2, post=2, weight=2) is 27."""
    return Polynomial(degrees, constant=True).weighted


def vocabulary(taught: bool) -> tuple[Term, ...]:
    """The terms an equation is sought in: monomials of degree 3 at most, with the error where targets are known."""
    local = Polynomial({"post": 2, "pre": 2, "weight": 2}, total=3, constant=True).weighted
    if not taught:
        return local
    taught_by = Polynomial({"post": 1, "error": 1, "pre": 2, "weight": 1}, total=3).weighted
    return local + tuple(term for term in taught_by if "error" in term.factors)


def term(name: str) -> Term:
    """The monomial of a name, "post2_weight"; raises ValueError where a factor is not one of FACTORS."""
    if name == "constant":
        return Term(name, ((1.0, ()),))
    powers: dict[str, int] = {}
    for part in name.split("_"):
        factor, power = re.fullmatch(r"(.*?)(\d*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        if factor not in FACTORS:
            raise ValueError(unknown(f"term '{name}'", factor, (*FACTORS, "constant")))
        powers[factor] = powers.get(factor, 0) + int(power or 1)
    return Term(name, ((1.0, monomial(**powers)),))


def degree(name: str) -> int:
    """How many factors a term multiplies; 1 for a column that is no term."""
    try:
        return sum(power for _, power in term(name).parts[0][1])
    except ValueError:
        return 1


def spelled(name: str) -> str:
    """A term as it stands in an equation: "post^2 weight"."""
    if name == "constant":
        return "1"
    return " ".join(re.sub(r"^(post|error|pre|weight)(\d+)$", r"\1^\2", part) for part in name.split("_"))


@dataclass(frozen=True, eq=False)
class Normal:
    """What a regression needs of a design X and a target y, per cluster c: X'X (C K K), X'y (C K) and y'y (C).

    `freedom` is how many of the numbers in y count as independent.
    """

    names: tuple[str, ...]
    gram: np.ndarray
    cross: np.ndarray
    energy: np.ndarray
    freedom: float

    def of(self, names: Sequence[str]) -> Normal:
        """The normal equations of some of the columns."""
        places = [self.names.index(name) for name in names]
        gram = self.gram[:, places][:, :, places]
        return Normal(tuple(names), gram, self.cross[:, places], self.energy, self.freedom)

    def total(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, float]:
        """The normal equations over all clusters, each counted `weights` times."""
        weights = np.ones(len(self.energy)) if weights is None else weights
        return np.tensordot(weights, self.gram, 1), weights @ self.cross, float(weights @ self.energy)


def normal_of(names: Sequence[str], design: np.ndarray, target: np.ndarray, clusters: np.ndarray) -> Normal:
    """The normal equations of a design (N K) and a target (N); `clusters` (N) numbers the part each row belongs to."""
    parts = [clusters == cluster for cluster in np.unique(clusters)]
    return Normal(
        tuple(names),
        np.array([design[part].T @ design[part] for part in parts]),
        np.array([design[part].T @ target[part] for part in parts]),
        np.array([target[part] @ target[part] for part in parts]),
        float(len(target)),
    )


def joined(parts: Sequence[Normal]) -> Normal:
    """The normal equations of several recordings with the same terms."""
    return Normal(
        parts[0].names,
        np.concatenate([part.gram for part in parts]),
        np.concatenate([part.cross for part in parts]),
        np.concatenate([part.energy for part in parts]),
        sum(part.freedom for part in parts),
    )


def columns(
    terms: Sequence[Term], post: np.ndarray, pre: np.ndarray, weight: np.ndarray, error: np.ndarray | None
) -> np.ndarray:
    """What each term says of one update (K I J): the mean over the events of post, error (B I) and pre (B J)."""
    signals = {"post": post, "pre": pre} | ({} if error is None else {"error": error})
    events, known = len(pre), {}

    def side(part: Monomial, names: tuple[str, ...]) -> np.ndarray | None:
        key = tuple((name, power) for name, power in part if name in names)
        if key not in known:
            known[key] = math.prod(signals[name] ** power for name, power in key) if key else None
        return known[key]

    found = np.empty((len(terms), *weight.shape))
    outer: dict[Monomial, np.ndarray] = {}
    for k, each in enumerate(terms):
        (_, part), *_ = each.parts
        key = tuple((name, power) for name, power in part if name != "weight")
        if key not in outer:
            left, right = side(part, ("post", "error")), side(part, ("pre",))
            left = np.ones((events, 1)) if left is None else left
            right = np.ones((events, 1)) if right is None else right
            outer[key] = left.T @ right / events
        found[k] = outer[key] * weight ** dict(part).get("weight", 0)
    return found


def usable(layer: Layer, error: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The post and pre units that were seen at every event; raises RecordingError where none was."""
    rows = np.isfinite(layer.post).all(axis=(0, 1))
    if error is not None:
        rows &= np.isfinite(error).all(axis=(0, 1))
    seen = np.flatnonzero(rows), np.flatnonzero(np.isfinite(layer.pre).all(axis=(0, 1)))
    if not len(seen[0]) or not len(seen[1]):
        raise RecordingError(
            f"/activity at {layer.edge}: no unit was seen at every event; record some of them throughout"
        )
    return seen


def normal(layer: Layer, terms: Sequence[Term], error: np.ndarray | None = None) -> Normal:
    """The normal equations of a layer's changes on `terms`, a cluster per update; `error` (U B I) is the post units'.

    Layers with more than ENTRIES changes are read at evenly spaced units, the same at every call.
    """
    rows, cols = usable(layer, error)
    updates = _spread(np.arange(len(layer.change)), UPDATES)
    room = ENTRIES / len(updates)
    side = math.sqrt(min(1.0, room / (len(rows) * len(cols))))
    rows, cols = (_spread(units, max(8, int(side * len(units)))) for units in (rows, cols))
    blocks = np.array_split(rows, min(len(rows), math.ceil(CLUSTERS / len(updates))))
    gram, cross, energy = [], [], []
    for update in updates:
        for block in blocks:
            weight = layer.weight[update][np.ix_(block, cols)]
            heard = None if error is None else error[update][:, block]
            design = columns(terms, layer.post[update][:, block], layer.pre[update][:, cols], weight, heard)
            change = layer.change[update][np.ix_(block, cols)]
            # a synapse that was not seen at this update reads as 0 in both
            seen = ((weight != 0) | (change != 0)).ravel()
            design, change = design.reshape(len(terms), -1)[:, seen], change.ravel()[seen]
            gram.append(design @ design.T)
            cross.append(design @ change)
            energy.append(change @ change)
    # a batch's changes share its events: far fewer of them are independent than there are synapses
    freedom = len(updates) * min(len(rows) + len(cols), len(rows) * len(cols))
    names = tuple(each.name for each in terms)
    return Normal(names, np.array(gram), np.array(cross), np.array(energy), float(freedom))


def _spread(items: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the items, evenly spaced."""
    return items if len(items) <= most else items[np.linspace(0, len(items) - 1, most).round().astype(int)]
