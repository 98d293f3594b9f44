"""The domain: what is known of a recording besides its rule, beside the bank's range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from metarule.identification.bank import COVARIATES, Bank
from metarule.identification.recording import Recording
from metarule.identification.simulation import TRIAL

APART = 1.5
"""How far the displacement of a simulated network may be from the one that was drawn for it."""


def _displacement(recording: Recording) -> float | None:
    """|W(20) - W(0)| / |W(0)|, as the bank's steps are measured; None without a snapshot 20 updates after the first."""
    (places,) = np.nonzero(recording.gaps.cumsum() == TRIAL)
    if not recording.weights or not len(places):
        return None
    pairs = [(array[places[0] + 1], array[0]) for array in recording.weights.values()]
    moved, length = (sum(float(np.nansum(each**2)) for each in part) for part in (
        [last - first for last, first in pairs], [first for _, first in pairs],
    ))  # fmt: skip
    return math.sqrt(moved / length) if length else None


def domain_of(
    recording: Recording, snapshots: int | None, bank: Bank, noise: float | None
) -> dict[str, dict[str, Any]]:
    """Each covariate that is known of the recording beside the bank's range; `inside` is None where it is unknown."""
    hidden = list(recording.structure.sizes.values())[1:-1]
    samples = None if recording.input is None else recording.input.shape[1] - recording.probes
    known: dict[str, float | None] = {
        "width": float(np.mean(hidden)) if hidden else None,
        "depth": float(len(hidden)),
        "batch": None if samples is None else float(samples),
        "displacement": _displacement(recording),
        "observed": observed_share(recording),
        "noise": noise,
        "snapshots": None if snapshots is None else float(snapshots),
    }
    rows = bank.views["weights" if recording.weights else "activity"].covariates
    found: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(COVARIATES):
        if name not in known:
            continue
        low, high, value = float(rows[:, place].min()), float(rows[:, place].max()), known[name]
        if name == "displacement":
            low, high = low / APART, high * APART
        inside = None if value is None else bool(low * (1 - 1e-6) <= value <= high * (1 + 1e-6))
        found[name] = {"value": value, "low": low, "high": high, "inside": inside}
    for name, allowed in (("nonlinearity", ("tanh", "relu")), ("output", ("softmax",))):
        value = recording.meta.get(name)
        found[name] = {"value": value, "allowed": list(allowed), "inside": None if value is None else value in allowed}
    return found


def observed_share(recording: Recording) -> float:
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
