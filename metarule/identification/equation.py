"""The equation witness: which sum of terms made the recorded weight changes, and what the data cannot say about it.

Every edge is regressed on a vocabulary of local terms and of terms with the layer's error. Where backpropagated errors
do not explain a hidden layer, fixed feedback is fitted. Where weights were seen now and then only, or activity alone,
the coefficients of a one-layer network are fitted through its dynamics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from metarule.collect import unknown
from metarule.identification.dictionary import Normal, normal, spelled, term, vocabulary
from metarule.identification.feedback_fit import Feedback, feedback
from metarule.identification.observables import backpropagated
from metarule.identification.recording import Recording
from metarule.identification.sparse import Selection, select, still
from metarule.identification.trajectory import fit, trajectories
from metarule.identification.updates import Layer, chain, single_updates
from metarule.terms import Term

Sources = Mapping[str, np.ndarray]
"""What feedback may carry: name -> (U B O)."""

ENOUGH = 0.9
"""Share of held-out changes that an equation must explain to be called one."""

OUTPUT, TARGET, ABOVE = "(target - output)", "target", "(error of the layer above)"
"""What fitted feedback may carry."""

MOST = 6
"""Terms that a sparse equation has at the most."""

EXACT = 0.999
"""Share from which on an equation is not said to be an approximation."""

ALWAYS = 0.8
"""Bootstrap frequency below which a term is said not to be sure."""


class _Settings(NamedTuple):
    terms: tuple[Term, ...] | None
    n_boot: int
    seed: int
    method: str


@dataclass(frozen=True)
class EdgeEquation:
    """The equation of one edge, the share that local terms alone explain, and the feedback where one was fitted."""

    edge: str
    selection: Selection
    local_share: float
    method: str
    feedback: Feedback | None = None

    @property
    def found(self) -> bool:
        """Whether a sparse equation explains held-out changes and every coefficient is determined."""
        return self.explains and not self.selection.undetermined and not self.selection.rivals

    @property
    def explains(self) -> bool:
        """Whether few terms explain held-out changes."""
        return 0 < len(self.selection.coefficients) <= MOST and self.selection.r2_held_out >= ENOUGH

    @property
    def text(self) -> str:
        """The equation in a line, or why there is none."""
        selection, start = self.selection, f"dW[{self.edge}]"
        if not self.explains:
            share = _shown(selection.r2_held_out)
            return f"{start}: no sparse equation found in this vocabulary (held-out R2 {share})"
        if selection.undetermined:
            combinations = "; ".join(
                f"{selection.coefficients[name]:.3g} = {combined(selection.combinations[name])}"
                for name in selection.undetermined
            )
            sure = {name: value for name, value in selection.coefficients.items() if name not in selection.combinations}
            rest = f"; what is determined: {written(sure)}" if sure else ""
            return f"{start} cannot be determined: on these data terms are the same; {combinations} is{rest}"
        exact = selection.r2_held_out >= EXACT
        made = f"{start} {'=' if exact else '~'} {written(selection.coefficients)}"
        if self.feedback is not None:
            made += f", error = slope * F {self.feedback.source}, F a fitted fixed matrix"
            if self.feedback.on_weight is not None:
                made += f" (cosine with W^T {_shown(self.feedback.on_weight)})"
        if not exact:
            made += f", which explains {100 * selection.r2_held_out:.1f} % of held-out changes"
        if selection.rivals:
            pairs = "; ".join(f"{spelled(one)} or {spelled(other)}" for one, other in selection.rivals[:3])
            return f"{start} is ambiguous: {pairs} explain the same; one of them is {made}"
        doubtful = [spelled(name) for name in selection.support if selection.frequencies[name] < ALWAYS]
        return made + (f" (not sure of: {', '.join(doubtful)})" if doubtful else "")

    def table(self) -> dict[str, Any]:
        """As it goes to JSON."""
        selection = self.selection
        return {
            "text": self.text,
            "found": self.found,
            "method": self.method,
            "terms": [
                {
                    "name": name,
                    "coefficient": value,
                    "low": selection.low[name],
                    "high": selection.high[name],
                    "frequency": selection.frequencies[name],
                }
                for name, value in selection.coefficients.items()
            ],
            "r2": _number(selection.r2),
            "r2_held_out": _number(selection.r2_held_out),
            "condition_number": _number(selection.condition_number),
            "null_directions": [dict(direction) for direction in selection.null_directions],
            "undetermined": {name: selection.combinations[name] for name in selection.undetermined},
            "rivals": [list(pair) for pair in selection.rivals],
            "local_share": _number(self.local_share),
            "feedback": None if self.feedback is None else self.feedback.table(),
        }


@dataclass(frozen=True)
class Equation:
    """The equations of a recording's edges, bottom up."""

    edges: tuple[EdgeEquation, ...]

    @property
    def text(self) -> str:
        """One line per edge."""
        return "\n".join(edge.text for edge in self.edges)

    def table(self) -> dict[str, Any]:
        """As it goes to JSON: the text, and per edge its terms and what is known of them."""
        return {"text": self.text, "edges": {edge.edge: edge.table() for edge in self.edges}}


def equation(
    recording: Recording,
    edge: str | None = None,
    terms: Sequence[str] | None = None,
    n_boot: int = 50,
    seed: int = 0,
    first: np.ndarray | None = None,
) -> Equation:
    """The equation of every edge of a recording, or of one; `terms` in place of the vocabulary.

    `first` (I J) are the weights before the first update of a layer of which only activity was recorded.
    Raises RecordingError where neither single updates nor, in one layer, the inputs of every update are known, and
    ValueError on an edge or a term that does not exist.
    """
    edges = chain(recording)
    if edge is not None and edge not in edges:
        raise ValueError(unknown("edge", edge, edges))
    chosen = None if terms is None else tuple(term(name) for name in terms)
    if first is not None or coarse(recording):
        selection, local = fit(trajectories(recording, first), chosen, n_boot=n_boot, seed=seed)
        return Equation((EdgeEquation(edges[0], selection, max(local, 0.0), "trajectory"),))
    updates = single_updates(recording)
    settings = _Settings(chosen, n_boot, seed, "inferred weights" if updates.inferred else "single updates")
    output = {} if updates.error is None else {OUTPUT: np.nan_to_num(updates.error)}
    target = {} if updates.target is None else {TARGET: np.nan_to_num(updates.target)}
    backward = backpropagated(updates)
    found: list[EdgeEquation] = []
    above, heard = None, None
    for layer in reversed(updates.layers):
        sources = {**output, **target}
        if above is not None and heard is not None and above is not updates.layers[-1]:
            sources[ABOVE] = heard
        made, heard = _of_layer(layer, above, backward.get(layer.edge), sources, settings)
        found.append(made)
        above = layer
        if layer.edge == edge:
            break
    kept = found[-1:] if edge is not None else found[::-1]
    return Equation(tuple(kept))


def read(recording: Recording, edge: str | None = None) -> tuple[Layer, np.ndarray | None]:
    """The single updates of one edge, the lowest if None, and the backpropagated error (U B I) at its post units."""
    updates = single_updates(recording)
    edges = [layer.edge for layer in updates.layers]
    if edge is not None and edge not in edges:
        raise ValueError(unknown("edge", edge, edges))
    layer = updates.layers[0 if edge is None else edges.index(edge)]
    return layer, backpropagated(updates).get(layer.edge)


def coarse(recording: Recording) -> bool:
    """Whether a one-layer network's weights are unseen at some of the updates, so that its dynamics must be fitted."""
    return len(recording.structure.sizes) == 2 and len(recording.weights) == 1 and not _seen(recording).all()


def _seen(recording: Recording) -> np.ndarray:
    """The snapshots (T) that show weights of every edge; all of them where no weights were recorded."""
    shown = [np.isfinite(array).any(axis=(1, 2)) for array in recording.weights.values()]
    return np.all(shown, axis=0) if shown else np.ones(len(recording.time), dtype=bool)


def _of_layer(
    layer: Layer, above: Layer | None, error: np.ndarray | None, sources: Sources, settings: _Settings
) -> tuple[EdgeEquation, np.ndarray | None]:
    """The equation of a layer, and the error (U B I) that explains it for the layer below to hear."""
    terms = settings.terms or vocabulary(error is not None)
    if error is None:
        terms = tuple(each for each in terms if "error" not in each.factors)
    table = normal(layer, terms, error)
    local = [each.name for each in terms if "error" not in each.factors]
    share = _selected(table.of(local), settings, 0).r2_held_out if local else 0.0
    selection = _selected(table, settings)
    plain = EdgeEquation(layer.edge, selection, max(share, 0.0), settings.method)
    if above is None or not sources or plain.explains:
        return plain, error
    carried = feedback(layer, sources, above)
    if carried is None or not carried.r2_held_out > max(selection.r2_held_out, 0.0):
        return plain, error
    carried = carried.sized(sources[carried.source], above.weight)
    error = carried.carried(sources[carried.source], layer.slope)
    selection = _selected(normal(layer, settings.terms or vocabulary(True), error), settings)
    # the matrix saw all updates: what it foretells of others is what counts
    selection = replace(selection, r2_held_out=min(selection.r2_held_out, carried.r2_held_out))
    fitted = replace(plain, selection=selection, feedback=carried)
    return (fitted, error) if fitted.explains else (plain, error)


def _selected(table: Normal, settings: _Settings, n_boot: int | None = None) -> Selection:
    if not table.energy.sum() > 0:
        return still(table.names)
    return select(table, n_boot=settings.n_boot if n_boot is None else n_boot, seed=settings.seed)


def combined(weights: Mapping[str, float]) -> str:
    """A combination of coefficients: "[post pre] + 0.75 [post pre^2]"."""
    parts = [
        f"{'-' if value < 0 else '+'} {'' if abs(abs(value) - 1) < 1e-6 else f'{abs(value):.3g} '}[{spelled(name)}]"
        for name, value in weights.items()
    ]
    return " ".join(parts).removeprefix("+ ")


def written(coefficients: Mapping[str, float]) -> str:
    """A sum of terms: "0.100 post pre - 0.100 post^2 weight"."""
    parts = [
        f"{'-' if value < 0 else '+'} {abs(value):#.3g} {spelled(name)}".removesuffix(" 1")
        for name, value in coefficients.items()
    ]
    return " ".join(parts).removeprefix("+ ") or "0"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _shown(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"
