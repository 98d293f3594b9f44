"""Classify a recording: which rule made it, how sure that is, and by which equation.

Three witnesses are heard: trees over scale-free observables, replay of every rule, and regression on the vocabulary of
terms. What is missing in a recording switches those off that need it, by name.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from metarule.identification import bank as banks
from metarule.identification.bank import COVARIATES, Bank
from metarule.identification.equation import equation as equation_of
from metarule.identification.extractor import LARGEST
from metarule.identification.moments import pieces
from metarule.identification.observables import matrix, observables
from metarule.identification.recording import Recording, RecordingError, load
from metarule.identification.reference import REFERENCE, equivalence_class
from metarule.identification.replay import Replays, replay
from metarule.identification.updates import shown_updates
from metarule.identification.verdict import Discriminative, Fused, Verdict, fused, label_of, summary
from metarule.jobs import versions

FEW = 3
"""Single updates below which a verdict is called insufficient: nothing can be fitted to some and judged on others."""


@runtime_checkable
class Recorded(Protocol):
    """Anything that holds a recording, as a Recorder does."""

    @property
    def recording(self) -> Recording:
        """What was recorded."""
        ...


class _Heard(NamedTuple):
    """What can be asked of a recording: the number of its single updates, and why witnesses are off."""

    updates: int
    off: dict[str, str]


def classify(
    recorded: Recording | Recorded | str | Path,
    bank: str | Path | Bank | None = None,
    alpha: float = 0.1,
    equation: bool = True,
    mapping: str | Path | None = None,
) -> Verdict:
    """The verdict on a recording, a Recorder, a file or a folder of checkpoints.

    Its prediction set covers 1 - `alpha` of networks like the bank's; `equation` = False leaves out the third witness,
    the slow one. Raises RecordingError on bad input, ValueError where alpha does not lie between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha} must lie between 0 and 1; 0.1 leaves one network in ten uncovered")
    recording = _recording(recorded, mapping)
    opened = bank if isinstance(bank, Bank) else banks.opened(banks.DEFAULT if bank is None else Path(bank))
    heard = _heard(recording)
    layers = len(recording.structure.sizes) - 2
    thinned = _thinned(recording, opened)
    domain = _domain(thinned, heard, opened)
    replays = replay(recording, {name: REFERENCE[name] for name in opened.classes if name in REFERENCE})
    trees = None if "discriminative" in heard.off else _discriminative(thinned, opened, alpha)
    if trees is None or heard.updates < FEW:
        lacking = heard.off.get("discriminative") or f"it has {heard.updates} single updates, and {FEW} are needed"
        answer = Fused("insufficient", (), lacking)
    else:
        answer = fused(trees, {row.rule: row.says for row in replays.rows}, layers)
    label, kin = label_of(answer)
    outside = [name for name, entry in domain.items() if entry["inside"] is False]
    found = equation_of(recording).table() if equation and "equation" not in heard.off else None
    return Verdict(
        answer.kind,
        label,
        kin,
        equivalence_class(label, layers) if label in opened.classes else (),
        {} if trees is None else dict(trees.probabilities),
        () if trees is None else trees.prediction_set,
        None if trees is None else trees.novelty_p,
        tuple(row.table() for row in replays.rows),
        found,
        domain,
        {**_used(recording, heard, replays, asked=equation), "snapshots_for_trees": len(thinned.time)},
        _warnings(recording, heard, outside, replays),
        _would_help(recording, heard, answer),
        _provenance(opened, bank, alpha),
        summary(answer, trees, layers, outside),
    )


def classify_file(path: str | Path, **options: Any) -> dict[str, Any]:
    """The verdict on a file or folder as JSON values; options as in `classify`."""
    return classify(path, **options).table()


def _recording(recorded: Recording | Recorded | str | Path, mapping: str | Path | None) -> Recording:
    if isinstance(recorded, Recording):
        return preceding(recorded)
    return preceding(load(recorded, mapping) if isinstance(recorded, (str, Path)) else recorded.recording)


def preceding(recording: Recording) -> Recording:
    """The recording with every snapshot before the update on its samples, where meta says that it follows it.

    Samples move to the snapshot before; activity, which later weights made, is left out where weights are known.
    """
    if recording.meta.get("snapshot") != "after":
        return recording
    moved = {
        name: None if array is None else np.concatenate((array[1:], np.full_like(array[:1], np.nan, dtype=float)))
        for name, array in (("input", recording.input), ("target", recording.target), ("reward", recording.reward))
    }
    activity = {} if recording.weights else recording.activity
    return replace(recording, **moved, activity=activity, meta={**recording.meta, "snapshot": "before"})


def _heard(recording: Recording) -> _Heard:
    off: dict[str, str] = {}
    try:
        updates = len(shown_updates(recording))
    except RecordingError as error:
        updates = 0
        off |= dict.fromkeys(("discriminative", "replay", "equation"), str(error))
    if recording.target is None and "replay" not in off:
        off["error terms"] = "/target is missing: nothing that depends on an error can be judged"
    return _Heard(updates, off)


def _thinned(recording: Recording, bank: Bank) -> Recording:
    """As many snapshots as the bank's recordings have, bursts spread evenly: the trees know no longer recordings."""
    most = int(max(view.covariates[:, COVARIATES.index("snapshots")].max() for view in bank.views.values()))
    try:
        shown = shown_updates(recording)
    except RecordingError:
        return recording
    if len(recording.time) <= most:
        return recording
    # bursts of two updates are three snapshots
    places, _ = pieces(shown, 2 * (most // 3), 2)
    return recording.at(np.unique(np.concatenate((places, places + 1)))[:most])


def _discriminative(recording: Recording, bank: Bank, alpha: float) -> Discriminative | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of what nobody observed
        seen = observables(recording)
    table = matrix([seen], bank.names).clip(-LARGEST, LARGEST).astype(np.float32)
    model = bank.classifier("weights" if recording.weights else "activity")
    chances, inside = model.predict_proba(table)[0], model.predict_set(table, alpha)[0]
    order = np.argsort(-chances, kind="stable")
    names = [str(name) for name in model.classes_]
    return Discriminative(
        {names[k]: float(chances[k]) for k in order},
        tuple(names[k] for k in order if inside[k]),
        float(model.novelty_p(table)[0]),
    )


def _domain(recording: Recording, heard: _Heard, bank: Bank) -> dict[str, dict[str, Any]]:
    """Each covariate that is known of the recording beside the bank's range; `inside` is None where it is unknown."""
    hidden = list(recording.structure.sizes.values())[1:-1]
    samples = None if recording.input is None else recording.input.shape[1] - recording.probes
    known: dict[str, float | None] = {
        "width": float(np.mean(hidden)) if hidden else None,
        "depth": float(len(hidden)),
        "batch": None if samples is None else float(samples),
        "observed": _observed(recording),
        "snapshots": float(len(recording.time)) if heard.updates else None,
    }
    rows = bank.views["weights" if recording.weights else "activity"].covariates
    found: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(COVARIATES):
        if name not in known:
            continue
        low, high, value = float(rows[:, place].min()), float(rows[:, place].max()), known[name]
        inside = None if value is None else bool(low * (1 - 1e-6) <= value <= high * (1 + 1e-6))
        found[name] = {"value": value, "low": low, "high": high, "inside": inside}
    for name, allowed in (("nonlinearity", ("tanh", "relu")), ("output", ("softmax",))):
        value = recording.meta.get(name)
        found[name] = {"value": value, "allowed": list(allowed), "inside": None if value is None else value in allowed}
    return found


def _observed(recording: Recording) -> float:
    """The share of hidden units of which anything is known."""
    names = list(recording.structure.sizes)[1:-1]
    if not names:
        return 1.0
    shares = []
    for name in names:
        rows = [np.isfinite(a).any(axis=(0, 2)) for edge, a in recording.weights.items() if edge.endswith(f"->{name}")]
        if not rows and name in recording.activity:
            rows = [np.isfinite(recording.activity[name]).any(axis=(0, 1))]
        shares.append(float(np.mean(rows)) if rows else 0.0)
    return float(np.mean(shares))


def _used(recording: Recording, heard: _Heard, replays: Replays, asked: bool) -> dict[str, Any]:
    parts = {
        "weights": bool(recording.weights), "activity": bool(recording.activity),
        "input": recording.input is not None, "target": recording.target is not None,
        "reward": recording.reward is not None,
    }  # fmt: skip
    off = dict(heard.off)
    if not asked:
        off["equation"] = "it was not asked for"
    return {
        "snapshots": len(recording.time),
        "single_updates": heard.updates,
        "parts": [name for name, there in parts.items() if there],
        "missing": [name for name, there in parts.items() if not there],
        "switched_off": off,
        "not_replayed": dict(replays.switched_off),
        "noise_share": replays.noise,
    }


def _warnings(recording: Recording, heard: _Heard, outside: list[str], replays: Replays) -> tuple[str, ...]:
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
    if not recording.weights and heard.updates:
        found.append("weights were not recorded; they are inferred from activity, which is exact with enough stimuli")
    if any(row.rule == "adam" and row.says == "excluded" for row in replays.rows):
        found.append("Adam is replayed from update 0 on; where training began before the recording, it cannot fit")
    return tuple(found)


def _would_help(recording: Recording, heard: _Heard, answer: Fused) -> tuple[str, ...]:
    """What to record next, the most telling first."""
    found = []
    if recording.input is None:
        found.append("the inputs of every recorded update: all three witnesses need them")
    if recording.target is None:
        found.append("the targets of every recorded update: error-driven rules cannot be told apart without")
    if heard.updates < FEW:
        found.append("bursts of consecutive updates (mr.Recorder keeps 3 of every 10): only they show exact changes")
    if answer.kind in ("ambiguous", "unknown") and not recording.weights:
        found.append("the weights, or more stimuli per snapshot than a layer has inputs, which determine them")
    if answer.kind == "ambiguous":
        found += _separating(answer.labels, recording)
    if answer.kind == "unknown":
        found.append("the rule's own simulation, if it is known: 'metarule bank add RUN' makes it a class")
    return tuple(dict.fromkeys(found))


def _separating(labels: tuple[str, ...], recording: Recording) -> list[str]:
    """What tells the rules of an ambiguous verdict apart."""
    rivals, found = set(labels), []
    if len(rivals & {"feedback_alignment", "direct_feedback_alignment"}) == 2:
        found.append("a network with two hidden layers or more: with one these are the same rule")
    if rivals & {"momentum", "adam"}:
        found.append("the first updates of training without a gap, when a running average is still empty")
    if rivals & {"node_perturbation", "weight_perturbation", "reinforce"}:
        found.append("the reward of every trial, and repeats of one input: exploration differs from repeat to repeat")
    if rivals & {"feedback_alignment", "kolen_pollack", "information_alignment", "sign_symmetry", "backprop"}:
        found.append("a longer stretch of training with larger steps: fixed feedback stays, learned feedback moves")
    if _observed(recording) < 1:
        found.append("more of the hidden units: replay needs all of them")
    return found or ["more bursts of consecutive updates, at other stages of learning"]


def _provenance(opened: Bank, bank: str | Path | Bank | None, alpha: float) -> dict[str, Any]:
    path = banks.DEFAULT if bank is None else None if isinstance(bank, Bank) else Path(bank)
    return {
        "bank": opened.card.get("name"),
        "bank_sha256": None if path is None else hashlib.sha256(path.read_bytes()).hexdigest(),
        "classes": list(opened.classes),
        "alpha": alpha,
        "versions": versions(),
    }
