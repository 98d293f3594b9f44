"""Can the rule be told? All classes of the bank on networks that it never saw, with controls and intervals.

Accuracies by kind of recording, on held-out widths, depths and data; controls that must know nothing; calibration,
coverage, declared equivalents. Networks of the test simulations are made where they are not yet in the folder.

    python analysis/identification.py runs/analysis/identification --workers 2
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from asked import parser, written
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import StratifiedGroupKFold

from metarule.identification import bank as banks
from metarule.identification.bank import COVARIATES, Bank, Row, rows_of
from metarule.identification.calibrated import Calibrated
from metarule.identification.classifier import RuleClassifier, trees
from metarule.identification.metrics import auroc, ece, grouped_interval
from metarule.identification.observables import matrix
from metarule.identification.recipe import RECIPE, held
from metarule.identification.reference import EQUIVALENT, merged
from metarule.identification.simulation import read
from metarule.inner import Map
from metarule.reading import simulations
from metarule.records import jsonable
from metarule.rng import seed_number
from metarule.workers import pool

CONTROLS: dict[str, Callable[[str], bool]] = {
    "first snapshot only": lambda name: name.startswith("start."),
    "learning rate only (drawn, as displacement)": lambda name: name == "displacement",
    "learning rate only (raw number of the engine)": lambda name: name == "rate",
    "final accuracy only": lambda name: name == "accuracy",
}
"""Control -> the numbers that it may look at."""

ALPHA = 0.1
SEED = 0

Rows = list[Row]


TESTS = ("test", "wide_test", "equivalents")
"""Simulations that the bank never saw: its own ranges, wide networks, the declared equivalents; seeds of their own."""


def simulated_rows(name: str, folder: Path, workers: int) -> Rows:
    """The rows of a test simulation, from the folder or made now."""
    return kept(folder / f"{name}.json", lambda map: rows_of(read(simulations()[name]).jobs(), map), workers)


def kept(path: Path, made: Callable[[Map], Rows], workers: int) -> Rows:
    """Rows from a file, or made now and written to it."""
    if not path.exists():
        with pool(workers) as map:
            rows = made(map)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(jsonable([row._asdict() for row in rows])))
    return [Row(**_restored(entry)) for entry in json.loads(path.read_text())]


def _restored(entry: dict[str, Any]) -> dict[str, Any]:
    numbers = {key: np.nan if value is None else value for key, value in entry["observables"].items()}
    controls = {key: np.nan if value is None else value for key, value in entry["controls"].items()}
    return {**entry, "covariates": tuple(entry["covariates"]), "observables": numbers, "controls": controls}


def table(bank: Bank, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(observables, labels, networks) of rows."""
    observed = matrix([row.observables for row in rows], bank.names)
    return (
        observed.astype(np.float16).astype(np.float32),
        np.array([row.label for row in rows]),
        np.array([row.network for row in rows]),
    )


def picked(rows: Rows, view: str, *qualities: str, **conditions: Any) -> Rows:
    """The rows of a view and of some qualities, whose covariates are as asked for."""
    found = [row for row in rows if row.view == view and (not qualities or row.quality in qualities)]
    for name, fits in conditions.items():
        place = COVARIATES.index(name)
        found = [row for row in found if fits(row.covariates[place])]
    return found


def accuracy(predicted: np.ndarray, rows: Rows) -> dict[str, Any]:
    """Accuracy with its interval, and the same where rules that were declared the same in such a network are one."""
    networks = np.array([row.network for row in rows])
    depths = [int(row.covariates[COVARIATES.index("depth")]) for row in rows]
    exact = [str(name) == row.label for name, row in zip(predicted, rows, strict=True)]
    together = [
        merged(str(name), depth) == merged(row.label, depth)
        for name, row, depth in zip(predicted, rows, depths, strict=True)
    ]
    return {
        "merged": grouped_interval(np.array(together), networks, seed=SEED),
        "unmerged": grouped_interval(np.array(exact), networks, seed=SEED),
        "networks": len(np.unique(networks)),
    }


def of_kinds(bank: Bank, rows: Rows, wide: Rows) -> dict[str, Any]:
    """Accuracy by kind of recording, with the bank's own trees."""
    cases = {
        "weights and activity": picked(rows, "weights", "clean"),
        "activity, inputs and targets": picked(rows, "activity", "clean"),
        "weights and activity, degraded at random": picked(rows, "weights", "drawn"),
        "activity, degraded at random": picked(rows, "activity", "drawn"),
        "a tenth of 256 units or more, five snapshots": picked(wide, "weights", "sparse"),
        "a tenth of 256 units or more, five snapshots, no weights": picked(wide, "activity", "sparse"),
    }
    found = {}
    for name, chosen in cases.items():
        observed, _, _ = table(bank, chosen)
        found[name] = accuracy(predictions(bank.classifier(chosen[0].view), observed), chosen)
    return found


def predictions(model: Calibrated, observed: np.ndarray) -> np.ndarray:
    """The most probable class; nothing is rejected here."""
    return model.classes[model.probabilities(observed).argmax(axis=1)]


def fitted(bank: Bank, rows: Rows) -> Calibrated:
    """A classifier like the bank's on other rows."""
    observed, labels, networks = table(bank, rows)
    model = RuleClassifier(n_estimators=banks.TREES, random_state=0).fit(observed, labels, groups=networks)
    return model.calibrated_


def of_held_out(bank: Bank, rows: Rows, digits: set[int]) -> dict[str, Any]:
    """Accuracy, coverage of answered cases and abstentions where a condition was never trained on."""
    known = held(bank)
    conditions = {
        "width 64": ({"width": lambda width: width < 64}, {"width": lambda width: width == 64}),
        "depth 2": ({"depth": lambda depth: depth == 1}, {"depth": lambda depth: depth == 2}),
        "largest steps": ({"displacement": lambda d: d < 0.06}, {"displacement": lambda d: d >= 0.06}),
    }
    cases = {
        name: (picked(known, "weights", "clean", "drawn", **seen), picked(rows, "weights", "clean", **unseen))
        for name, (seen, unseen) in conditions.items()
    }
    small = [row for row in picked(known, "weights", "clean", "drawn") if row.network in digits]
    other = [row for row in picked(rows, "weights", "clean") if row.network not in digits]
    cases["data (trained on digits, tested on teachers)"] = (small, other)
    found = {}
    for name, (trained, tested) in cases.items():
        model = fitted(bank, trained)
        found[name] = {**answered(bank, model, tested), "trained": len(trained), "tested": len(tested)}
    return found


def answered(bank: Bank, model: Calibrated, rows: Rows) -> dict[str, Any]:
    """Accuracy, calibration error, coverage, size of sets, abstentions."""
    observed, labels, networks = table(bank, rows)
    chances, sets = model.probabilities(observed), model.prediction_set(observed, ALPHA)
    abstains = model.novelty_p(observed) < 0.05
    inside = sets[np.arange(len(labels)), np.searchsorted(model.classes, labels)]
    return {
        "accuracy": accuracy(model.classes[chances.argmax(axis=1)], rows),
        "ece": ece(chances, labels, model.classes),
        "coverage": grouped_interval(inside, networks, seed=SEED),
        "coverage of answered": grouped_interval(inside[~abstains], networks[~abstains], seed=SEED),
        "median set": float(np.median(sets.sum(axis=1))),
        "abstains": float(abstains.mean()),
    }


def of_controls(bank: Bank, rows: Rows) -> dict[str, Any]:
    """What must know nothing, cross-fitted by network on the test rows; chance is one over the classes."""
    chosen = picked(rows, "weights", "clean")
    observed, labels, networks = table(bank, chosen)
    shuffled = np.random.default_rng(SEED).permutation(labels)
    found: dict[str, Any] = {"chance": 1 / len(np.unique(labels))}
    for name, fits in CONTROLS.items():
        names = tuple(sorted(key for key in chosen[0].controls if fits(key)))
        found[name] = _crossed(matrix([row.controls for row in chosen], names), labels, networks)
    found["shuffled labels"] = _crossed(observed, shuffled, networks)
    return found


def _crossed(numbers: np.ndarray, labels: np.ndarray, networks: np.ndarray) -> Any:
    right = np.zeros(len(labels), dtype=bool)
    numbers = np.nan_to_num(numbers, nan=0.0, posinf=1e6, neginf=-1e6).clip(-1e6, 1e6)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=SEED).split(numbers, labels, networks)
    for train, test in folds:
        trees = ExtraTreesClassifier(200, random_state=SEED).fit(numbers[train], labels[train])
        right[test] = trees.predict(numbers[test]) == labels[test]
    return grouped_interval(right, networks, seed=SEED)


def of_equivalents(bank: Bank, same: Rows, rows: Rows) -> dict[str, Any]:
    """Feedback alignment against its direct form, by trees that are taught these two alone, grouped by network."""
    deeper = [
        row for row in picked(rows, "weights", "clean", depth=lambda depth: depth == 2) if row.label in EQUIVALENT[0]
    ]
    found = {}
    for name, chosen in (("one hidden layer", picked(same, "weights", "clean")), ("two hidden layers", deeper)):
        observed, labels, networks = table(bank, chosen)
        score, observed = np.zeros(len(labels)), np.nan_to_num(observed, nan=-1e4)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=SEED).split(observed, labels, networks)
        for train, test in folds:
            score[test] = trees(300).fit(observed[train], labels[train]).predict_proba(observed[test])[:, 1]
        values = bootstrapped(score, labels == np.unique(labels)[1])
        found[name] = {"auroc": values, "networks": len(np.unique(networks))}
    return found


def bootstrapped(score: np.ndarray, positive: np.ndarray, times: int = 1000) -> tuple[float, float, float]:
    """AUROC with its 95 % interval by bootstrap over networks, one row each."""
    generator = np.random.default_rng(SEED)
    drawn = generator.integers(len(score), size=(times, len(score)))
    values = [auroc(score[chosen], positive[chosen]) for chosen in drawn if 0 < positive[chosen].sum() < len(chosen)]
    low, high = np.quantile(values, [0.025, 0.975])
    return auroc(score, positive), float(low), float(high)


def digits_networks() -> set[int]:
    """Networks that learned digits: seeds say it, as they are a function of the data's name."""
    found = set()
    for simulation in (read(simulations()[name]) for name in (*RECIPE, *TESTS)):
        for job in simulation.jobs():
            if job.task == "digits":
                found |= {
                    seed_number(simulation.seed, job.rule, job.task, *job.hidden, job.block, run, bits=62)
                    for run in range(simulation.runs)
                }
    return found


def main() -> None:
    asked = parser(__doc__, bank=True).parse_args()
    bank = banks.load(asked.bank)
    rows, wide, same = (simulated_rows(name, asked.folder, asked.workers) for name in TESTS)
    digits = digits_networks()
    found: dict[str, Any] = {}
    for name, compute in (
        ("accuracy", lambda: of_kinds(bank, rows, wide)),
        ("controls", lambda: of_controls(bank, rows)),
        ("in distribution", lambda: {
            view: answered(bank, bank.classifier(view), picked([*rows, *wide], view)) for view in banks.VIEWS
        }),
        ("held out", lambda: of_held_out(bank, rows, digits)),
        ("declared equivalents", lambda: of_equivalents(bank, same, rows)),
    ):  # fmt: skip
        found[name] = compute()
        print(json.dumps(jsonable({name: found[name]}), indent=1), flush=True)
    written(asked.folder, found)


if __name__ == "__main__":
    main()
