"""Bank: observables of simulated networks whose rule is known, as plain arrays; what a recording is compared with.

A bank is made by a recipe (two simulation files) and holds no pickle: the trees that were grown from its rows are plain
arrays too, and are grown where a file has none. Out-of-fold probabilities are stored, so that calibration is cheap.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metarule.identification import npz
from metarule.identification.calibrated import Calibrated
from metarule.identification.degrading import Degradation, degraded, drawn
from metarule.identification.forest import KINDS, Forest
from metarule.identification.observables import columns, first_snapshot, matrix, observables
from metarule.identification.recording import Recording, RecordingError
from metarule.identification.simulation import Job, simulated
from metarule.inner import Map, in_turn
from metarule.rng import seed_number
from metarule.zoo import Algorithm

SCHEMA = "metarule-bank/1"
DEFAULT = Path(__file__).parent / "default_bank.npz"
"""The bank that comes with metarule."""

VIEWS = ("weights", "activity")
"""What a recording has: weights (and maybe activity), or activity alone."""

COVARIATES = ("width", "depth", "batch", "displacement", "observed", "snapshots", "noise")
"""What is known of a recording besides its rule; the domain check compares these with the bank's."""

SPARSE_FROM = 256
"""Width from which on networks are also seen sparsely: a tenth of the hidden units, five snapshots."""

TREES = 60


class Row(NamedTuple):
    """One recording of one network as a bank keeps it."""

    view: str
    label: str
    network: int
    quality: str
    covariates: tuple[float, ...]
    observables: dict[str, float]
    controls: dict[str, float] = {}  # noqa: RUF012 - read only; what must not tell the rule, kept by no bank


@dataclass(frozen=True, eq=False)
class View:
    """Rows of one view: `table` (rows, observables), their labels, networks, covariates and quality.

    `out_of_fold` (rows, classes) are probabilities by trees that never saw the row's network.
    """

    table: np.ndarray
    labels: np.ndarray
    networks: np.ndarray
    quality: np.ndarray
    covariates: np.ndarray
    out_of_fold: np.ndarray


@dataclass(frozen=True, eq=False)
class Bank:
    """`names` of the observables, a `View` per kind of recording, and what the model card says."""

    names: tuple[str, ...]
    views: dict[str, View]
    card: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(np.unique(self.views[VIEWS[0]].labels).tolist())

    @functools.cached_property
    def _forests(self) -> dict[str, Forest]:
        """Of the views whose trees are there: no other bank has these, not even one made from this by `replace`."""
        return {}

    @functools.cached_property
    def _classifiers(self) -> dict[str, Calibrated]:
        return {}

    def forest(self, view: str) -> Forest:
        """The trees of a view: its file's, or those that are grown when they are first asked for."""
        if view not in self._forests:
            from metarule.identification.classifier import (
                trees,
            )  # brings scikit-learn, which most banks are read without

            table, codes = self._known(view)
            self._forests[view] = Forest.of(trees(TREES).fit(table, codes))
        return self._forests[view]

    def classifier(self, view: str) -> Calibrated:
        """The trees of a view, calibrated when they are first asked for."""
        if view not in self._classifiers:
            rows, (table, codes) = self.views[view], self._known(view)
            networks = np.unique(rows.networks, return_inverse=True)[1]
            self._classifiers[view] = Calibrated.fitted(
                self.forest(view), np.unique(rows.labels), table, codes, networks, rows.out_of_fold
            )
        return self._classifiers[view]

    def _known(self, view: str) -> tuple[np.ndarray, np.ndarray]:
        """(rows, observables) as trees see them, and the numbers of their classes."""
        rows = self.views[view]
        return rows.table.astype(np.float32), np.unique(rows.labels, return_inverse=True)[1]

    def save(self, path: Path) -> Path:
        """Write the bank and its trees as an .npz of plain arrays; grows those that are not there."""
        arrays: dict[str, np.ndarray] = {
            "names": np.array(self.names),
            "card": np.array(json.dumps({**self.card, "schema": SCHEMA})),
        }
        for name, view in self.views.items():
            arrays |= {f"{name}/{field}": value for field, value in vars(view).items()}
            arrays |= {f"{name}/trees/{field}": value for field, value in self.forest(name).arrays.items()}
            arrays[f"{name}/trees/of"] = np.array(_digest(view))
        with path.open("wb") as handle:
            np.savez_compressed(handle, **arrays)  # pyright: ignore[reportArgumentType]
        return path


def load(path: Path = DEFAULT) -> Bank:
    """A bank from its file; raises RecordingError where it is not one. No pickle is loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {entry.filename.removesuffix(".npy"): npz.member(archive, entry) for entry in archive.infolist()}
        card, wrong = npz.parsed(str(arrays.pop("card")))
        if wrong:
            raise ValueError("its card is no table")
        if card.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {card.get('schema')!r}, this version reads '{SCHEMA}'")
        names = tuple(arrays.pop("names").tolist())
        fields = View.__dataclass_fields__
        views = {name: View(**{field: arrays[f"{name}/{field}"] for field in fields}) for name in VIEWS}
        _fitting(names, views)
        bank = Bank(names, views, card)
        bank._forests.update(_forests(bank, arrays))
    except (KeyError, *npz.DAMAGED) as error:
        raise RecordingError(
            f"{path} is no bank ({error}); build one with 'metarule bank build', or leave out --bank"
        ) from error
    return bank


def _forests(bank: Bank, arrays: dict[str, np.ndarray]) -> dict[str, Forest]:
    """The trees by view among a file's arrays; raises ValueError where they cannot have been grown from its rows."""
    found = {}
    for name, view in bank.views.items():
        if not any(key.startswith(f"{name}/trees/") for key in arrays):
            continue
        try:
            found[name] = Forest(**{field: arrays[f"{name}/trees/{field}"] for field in KINDS})
            found[name].fitting(len(bank.names), len(np.unique(view.labels)))
            if str(arrays[f"{name}/trees/of"]) != _digest(view):
                raise ValueError("they were grown from other rows")
        except ValueError as error:
            raise ValueError(f"{name}/trees: {error}; a file without them has them grown") from error
    return found


def _digest(view: View) -> str:
    """Of what trees are grown from."""
    digest = hashlib.sha256(repr((view.table.shape, view.table.dtype.str, view.labels.tolist())).encode())
    digest.update(view.table.tobytes())
    return digest.hexdigest()


def _fitting(names: tuple[str, ...], views: dict[str, View]) -> None:
    """Raises ValueError where the arrays of a bank do not fit each other."""
    for name, view in views.items():
        if view.table.ndim != 2 or view.table.shape[1] != len(names):
            raise ValueError(f"{name}/table has shape {view.table.shape}, its columns are {len(names)} names")
        for field, array in vars(view).items():
            if np.shape(array)[:1] != (len(view.table),):
                raise ValueError(f"{name}/{field} has shape {np.shape(array)}, {name}/table {len(view.table)} rows")


@functools.lru_cache(maxsize=2)
def opened(path: Path = DEFAULT) -> Bank:
    """A bank that is read, and whose trees are calibrated, once."""
    return load(path)


def measured(job: Job, row: Algorithm | None = None) -> list[Row]:
    """The rows of a block of networks: each one clean, degraded at random and, where wide, sparse; with and without
    weights."""
    torch.set_num_threads(1)
    found = []
    for recording in simulated(job, row):
        network = int(recording.meta["network"])
        generator = np.random.default_rng(seed_number("degrading", network, bits=62))
        beforehand = {name: float(recording.meta[name]) for name in ("accuracy", "displacement", "rate")}
        beforehand |= {f"start.{name}": value for name, value in first_snapshot(recording).items()}
        for view in VIEWS:
            kept = view == "weights"
            degradations = {"clean": Degradation(weights=kept), "drawn": drawn(generator, kept)}
            if min(recording.meta["hidden"]) >= SPARSE_FROM:
                # without weights wide layers cannot be inferred from few stimuli, but for a tenth of them
                degradations = degradations if kept else {}
                degradations["sparse"] = Degradation(fraction=0.1, snapshots=5, weights=kept)
            for quality, degradation in degradations.items():
                poorer = degraded(recording, degradation, generator)
                facts = covariates(recording, degradation)
                try:
                    seen = observables(poorer)
                except RecordingError:
                    continue
                found.append(Row(view, job.rule, network, quality, facts, seen, beforehand))
    return found


def covariates(recording: Recording, degradation: Degradation) -> tuple[float, ...]:
    """The covariates of a simulated recording, in the order of COVARIATES."""
    meta = recording.meta
    kept = min(degradation.snapshots or len(recording.time), len(recording.time))
    return (
        float(np.mean(meta["hidden"])), float(len(meta["hidden"])), float(meta["batch"]), float(meta["displacement"]),
        degradation.fraction, float(kept), degradation.weight_noise,
    )  # fmt: skip


def rows_of(jobs: Sequence[Job], map: Map = in_turn, row: Algorithm | None = None) -> list[Row]:
    """Every row of some blocks of networks, wherever they are computed; `row` in place of the rules' own."""
    return [each for part in map(functools.partial(measured, row=row), jobs) for each in part]


def made(rows: list[Row], card: dict[str, Any]) -> Bank:
    """A bank of rows; cross-fits the classifier of every view once for the out-of-fold probabilities."""
    from metarule.identification.classifier import RuleClassifier

    names, views, forests = columns([row.observables for row in rows]), {}, {}
    for view in VIEWS:
        members = [row for row in rows if row.view == view]
        table = matrix([row.observables for row in members], names).astype(np.float16)
        labels = np.array([row.label for row in members])
        networks = np.array([row.network for row in members])
        model = RuleClassifier(n_estimators=TREES, random_state=0)
        model.fit(table.astype(np.float32), labels, groups=networks)
        forests[view] = Forest.of(model.model_)
        views[view] = View(
            table,
            labels,
            networks,
            np.array([row.quality for row in members]),
            np.array([row.covariates for row in members], dtype=np.float32),
            np.asarray(model.out_of_fold_, dtype=np.float16),
        )
    bank = Bank(names, views, card)
    bank._forests.update(forests)
    return bank


def compared(bank: Bank, rows: list[Row]) -> tuple[int, float]:
    """How many rows of a rebuilt sample the bank holds too, and the share of their observables that agree to 1 %."""
    found, agree, total = 0, 0, 0
    for view, held in bank.views.items():
        place = {(int(n), str(q)): k for k, (n, q) in enumerate(zip(held.networks, held.quality, strict=True))}
        for row in rows:
            if row.view != view or (row.network, row.quality) not in place:
                continue
            found += 1
            own = matrix([row.observables], bank.names)[0]
            other = held.table[place[row.network, row.quality]].astype(np.float64)
            close = np.isclose(own, other, rtol=1e-2, atol=1e-2, equal_nan=True)
            agree, total = agree + int(close.sum()), total + len(close)
    return found, agree / max(total, 1)
