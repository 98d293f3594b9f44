"""Advice: what to be careful about in a verdict, and what to record next."""

from __future__ import annotations

import numpy as np

from metarule.identification.domain import observed_share
from metarule.identification.equation import Equation
from metarule.identification.recording import Recording
from metarule.identification.replay import Replays
from metarule.identification.rivals import rivals
from metarule.identification.verdict import Fused

FEW = 3
"""Single updates below which a verdict is called insufficient: nothing can be fitted to some and judged on others."""


def warnings_of(recording: Recording, outside: list[str], replays: Replays, likely: tuple[str, ...]) -> tuple[str, ...]:
    """What to be careful about: `outside` are covariates beyond the bank's range, `likely` the prediction set."""
    found = []
    if outside:
        found.append(
            f"{', '.join(outside)}: outside the bank's calibration domain, so that probabilities and the coverage of "
            "the prediction set are not guaranteed"
        )
    for name in ("nonlinearity", "output"):
        if name not in recording.meta:
            taken = {"nonlinearity": "tanh", "output": "softmax"}[name]
            found.append(f"/meta does not say the {name}; {taken} was taken for granted")
    if not recording.weights:
        widest = max(list(recording.structure.sizes.values())[:-1])
        samples = max((array.shape[1] for array in recording.activity.values()), default=0)
        enough = samples > widest
        found.append(
            f"weights were not recorded; they are inferred from activity at {samples} stimuli, "
            + ("which determine them" if enough else f"too few to determine those of a layer with {widest} inputs")
        )
    still = [edge for edge, array in recording.weights.items() if not np.nanmax(np.abs(array - array[:1]), initial=0.0)]
    if still:
        found.append(f"{', '.join(still)}: these weights never change, and speak for no rule")
    if "adam" in likely and any(row.rule == "adam" and row.says == "excluded" for row in replays.rows):
        found.append("Adam is replayed from update 0 on; where training began before the recording, it cannot fit")
    return tuple(found)


def would_help(recording: Recording, updates: int, answer: Fused, equation: Equation | None) -> tuple[str, ...]:
    """What to record next, the most telling first."""
    found = []
    if recording.input is None:
        found.append("the inputs of every recorded update: all three witnesses need them")
    if recording.target is None:
        found.append("the targets of every recorded update: error-driven rules cannot be told apart without")
    if updates < FEW:
        found.append("bursts of consecutive updates (mr.Recorder keeps 3 of every 10): only they show exact changes")
    if answer.kind in ("ambiguous", "unknown") and not recording.weights:
        found.append("the weights, or more stimuli per snapshot than a layer has inputs, which determine them")
    if answer.kind == "ambiguous":
        found += _separating(answer.labels, recording)
    for edge in () if equation is None else equation.edges:
        if recording.weights and (edge.selection.rivals or edge.selection.undetermined):
            found += [f"{edge.edge}: {each.text}" for each in rivals(recording, edge.edge)[:1]]
    if answer.kind == "unknown":
        found.append("the rule's own simulation, if it is known: 'metarule bank add RUN' makes it a class")
    return tuple(dict.fromkeys(found))


def _separating(labels: tuple[str, ...], recording: Recording) -> list[str]:
    """What tells the rules of an ambiguous verdict apart."""
    several, found = set(labels), []
    if len(several & {"feedback_alignment", "direct_feedback_alignment"}) == 2:
        found.append("a network with two hidden layers or more: with one these are the same rule")
    if several & {"momentum", "adam"}:
        found.append("the first updates of training without a gap, when a running average is still empty")
    if several & {"feedback_alignment", "kolen_pollack", "information_alignment", "sign_symmetry", "backprop"}:
        found.append("a longer stretch of training with larger steps: fixed feedback stays, learned feedback moves")
    if observed_share(recording) < 1:
        found.append("more of the hidden units: replay needs all of them")
    return found or ["more bursts of consecutive updates, at other stages of learning"]
