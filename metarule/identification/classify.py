"""Classify a recording: which rule made it, how sure that is, and by which equation.

Three witnesses are heard: trees over scale-free observables, replay of every rule, and regression on the vocabulary of
terms. What is missing in a recording switches those off that need it, by name.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from metarule.identification import bank as banks
from metarule.identification.advice import FEW, warnings_of, would_help
from metarule.identification.bank import COVARIATES, Bank
from metarule.identification.domain import domain_of
from metarule.identification.equation import equation as equation_of
from metarule.identification.moments import pieces
from metarule.identification.observables import matrix, observables
from metarule.identification.recording import Recording, RecordingError, load
from metarule.identification.reference import REFERENCE, equivalence_class
from metarule.identification.replay import Replays, replay
from metarule.identification.spoken import spoken
from metarule.identification.updates import chain, shown_updates
from metarule.identification.verdict import Discriminative, Fused, Verdict, fused, label_of, summary
from metarule.jobs import versions


@runtime_checkable
class Recorded(Protocol):
    """Anything that holds a recording, as a Recorder does."""

    @property
    def recording(self) -> Recording:
        """What was recorded."""
        ...


class _Heard(NamedTuple):
    """What can be asked of a recording: the snapshots before its single updates, and why witnesses are off."""

    shown: np.ndarray
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
    updates, thinned = len(heard.shown), _thinned(recording, heard.shown, opened)
    replays = replay(recording, {name: REFERENCE[name] for name in opened.classes if name in REFERENCE})
    # noise of weights in units of an update's change, from its share in what was seen
    noise = math.sqrt(replays.noise / (2 * max(1 - replays.noise, 1e-6))) if replays.rows else None
    domain = domain_of(recording, len(thinned.time) if updates else None, opened, noise)
    trees = None if "discriminative" in heard.off else _discriminative(thinned, opened, alpha)
    found = equation_of(recording) if equation and "equation" not in heard.off else None
    says = {} if found is None else spoken(found)
    if updates < FEW:
        lacking = heard.off.get("discriminative") or f"it has {updates} single updates, and {FEW} are needed"
        answer = Fused("insufficient", (), lacking)
    else:
        answer = fused(trees, {row.rule: row.says for row in replays.rows}, layers, says)
    label, kin = label_of(answer)
    outside, unsaid = ([name for name, e in domain.items() if e["inside"] is state] for state in (False, None))
    return Verdict(
        answer.kind,
        label,
        kin,
        equivalence_class(label, layers) if label in opened.classes else (),
        {} if trees is None else dict(trees.probabilities),
        () if trees is None else trees.prediction_set,
        None if trees is None else trees.novelty_p,
        tuple(row.table() for row in replays.rows),
        None if found is None else {**found.table(), "says": says},
        domain,
        _used(recording, thinned, heard, replays, asked=equation),
        warnings_of(recording, outside, replays, () if trees is None else trees.prediction_set),
        would_help(recording, updates, answer, found),
        _provenance(opened, bank, alpha),
        summary(answer, trees, layers, outside, unsaid, bool(says)),
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

    Samples move to the snapshot before; activity, which later weights made, is left out. Raises RecordingError where
    there is nothing else.
    """
    if recording.meta.get("snapshot") != "after":
        return recording
    if not recording.weights:
        raise RecordingError("/meta: snapshot = 'after' beside activity alone; record activity before each update")
    moved = {
        name: None if array is None else np.concatenate((array[1:], np.full_like(array[:1], np.nan, dtype=float)))
        for name, array in (("input", recording.input), ("target", recording.target), ("reward", recording.reward))
    }
    return replace(recording, **moved, activity={}, meta={**recording.meta, "snapshot": "before"})


def _heard(recording: Recording) -> _Heard:
    off: dict[str, str] = {}
    try:
        shown = shown_updates(recording)
    except RecordingError as error:
        shown = np.zeros(0, dtype=int)
        off |= dict.fromkeys(("discriminative", "replay", "equation"), str(error))
    try:
        chain(recording)
    except RecordingError as error:
        off |= {name: off.get(name, str(error)) for name in ("discriminative", "equation")}
    if recording.target is None:
        # without targets the bank has no network to compare with
        off.setdefault("discriminative", "/target is missing, and every network of the bank has targets")
        off.setdefault("error terms", "/target is missing: nothing that depends on an error can be judged")
    return _Heard(shown, off)


def _thinned(recording: Recording, shown: np.ndarray, bank: Bank) -> Recording:
    """As many snapshots as the bank's recordings have, bursts spread evenly: the trees know no longer recordings."""
    most = int(max(view.covariates[:, COVARIATES.index("snapshots")].max() for view in bank.views.values()))
    if len(recording.time) <= most or not len(shown):
        return recording
    # bursts of two updates are three snapshots
    places, _ = pieces(shown, 2 * (most // 3), 2)
    return recording.at(np.unique(np.concatenate((places, places + 1)))[:most])


def _discriminative(recording: Recording, bank: Bank, alpha: float) -> Discriminative | None:
    table = matrix([observables(recording)], bank.names).astype(np.float32)
    model = bank.classifier("weights" if recording.weights else "activity")
    chances, inside = model.probabilities(table)[0], model.prediction_set(table, alpha)[0]
    order = np.argsort(-chances, kind="stable")
    names = [str(name) for name in model.classes]
    return Discriminative(
        {names[k]: float(chances[k]) for k in order},
        tuple(names[k] for k in order if inside[k]),
        float(model.novelty_p(table)[0]),
    )


def _used(recording: Recording, thinned: Recording, heard: _Heard, replays: Replays, asked: bool) -> dict[str, Any]:
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
        "snapshots_for_trees": len(thinned.time),
        "single_updates": len(heard.shown),
        "parts": [name for name, there in parts.items() if there],
        "missing": [name for name, there in parts.items() if not there],
        "switched_off": off,
        "not_replayed": dict(replays.switched_off),
        "noise_share": replays.noise,
    }


def _provenance(opened: Bank, bank: str | Path | Bank | None, alpha: float) -> dict[str, Any]:
    path = banks.DEFAULT if bank is None else None if isinstance(bank, Bank) else Path(bank)
    return {
        "bank": opened.card.get("name"),
        "bank_sha256": None if path is None else hashlib.sha256(path.read_bytes()).hexdigest(),
        "classes": list(opened.classes),
        "alpha": alpha,
        "versions": versions(),
    }
