"""Is a rule that the bank does not know told from those that it knows? One class left out at a time, and found rules.

Networks of a simulation of their own, weights and activity seen. Two scores: the trees' novelty alone, and the same
with replay's say: a recording whose changes a known rule explains is not new, one whose leading class it excludes is.
Beside them stands how often `metarule classify`, at its own thresholds, says "unknown" of the new and of the known.

    python analysis/unknown_rules.py runs/analysis/unknown_rules --runs runs/first_rule runs/oja --workers 2
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from asked import parser, written
from identification import ALPHA, fitted, picked, table

from metarule.identification import bank as banks
from metarule.identification.bank import COVARIATES, Bank, Row, covariates
from metarule.identification.calibrated import Calibrated
from metarule.identification.degrading import Degradation
from metarule.identification.metrics import auroc
from metarule.identification.observables import observables
from metarule.identification.recipe import discovered, held
from metarule.identification.reference import REFERENCE, merged
from metarule.identification.replay import candidates, judged
from metarule.identification.simulation import Job, read, simulated
from metarule.identification.verdict import Discriminative, fused
from metarule.reading import simulations
from metarule.records import jsonable
from metarule.workers import pool
from metarule.zoo import Algorithm

FALSE = 0.05
"""Share of known recordings that may be rejected."""


class Heard(NamedTuple):
    """One network: its clean row, and what replay says of each rule where one (its name; "": none) is unknown."""

    row: Row
    says: dict[str, dict[str, str]]


def heard(job: Job, row: Algorithm | None = None) -> list[Heard]:
    """Every network of a block; `row` in place of the rule's own."""
    torch.set_num_threads(1)
    found = []
    for recording in simulated(job, row):
        facts = covariates(recording, Degradation())
        seen = Row("weights", job.rule, int(recording.meta["network"]), "clean", facts, observables(recording))
        fits, off = candidates(recording, REFERENCE)
        says = {}
        for label in ("", *(fit.rule for fit in fits)):
            answers = judged([fit for fit in fits if fit.rule != label], off).rows
            says[label] = {answer.rule: answer.says for answer in answers}
        found.append(Heard(seen, says))
    return found


def known_networks(workers: int) -> list[Heard]:
    """Networks of every class of the bank, that neither bank nor test has."""
    with pool(workers) as map:
        return [each for part in map(heard, read(simulations()["unknown"]).jobs()) for each in part]


def found_networks(run: Path, workers: int) -> list[Heard]:
    """The same networks, learning by the rule that a run found."""
    label = run.resolve().name
    jobs = read(simulations()["unknown"]).jobs()
    own = {(job.task, job.hidden, job.block): job._replace(rule=label) for job in jobs}
    with pool(workers) as map:
        return [each for part in map(functools.partial(heard, row=discovered(run)), [*own.values()]) for each in part]


class Scores(NamedTuple):
    """Of each network: the trees' novelty, the same with replay's say, and whether the verdict is "unknown"."""

    trees: np.ndarray
    together: np.ndarray
    unknown: np.ndarray


def scores(bank: Bank, model: Calibrated, networks: list[Heard], left_out: str = "") -> Scores:
    """What a model that does not know one class makes of each network."""
    observed, _, _ = table(bank, [network.row for network in networks])
    alone, chances = model.novelty_score(observed), model.probabilities(observed)
    inside, novelty = model.prediction_set(observed, ALPHA), model.novelty_p(observed)
    together, unknown = alone.copy(), np.zeros(len(networks), dtype=bool)
    names = [str(name) for name in model.classes]
    depth = COVARIATES.index("depth")
    for place, network in enumerate(networks):
        says = network.says.get(left_out, network.says[""])
        trees = Discriminative(
            dict(zip(names, chances[place].tolist(), strict=True)),
            tuple(name for name, there in zip(names, inside[place], strict=True) if there),
            float(novelty[place]),
        )
        if "explains" in says.values():
            together[place] -= alone.max()
        elif says.get(trees.leading) == "excluded":
            together[place] += alone.max()
        unknown[place] = fused(trees, says, int(network.row.covariates[depth])).kind == "unknown"
    return Scores(alone, together, unknown)


def figures_of(found: Scores, new: np.ndarray) -> dict[str, Any]:
    """Everything that is said of one unknown rule."""
    return {
        "trees": told_apart(found.trees, new),
        "trees and replay": told_apart(found.together, new),
        "said to be unknown": {"new": float(found.unknown[new].mean()), "known": float(found.unknown[~new].mean())},
        "networks": int(new.sum()),
    }


def told_apart(score: np.ndarray, new: np.ndarray) -> dict[str, float]:
    """AUROC, and the share of new ones rejected where 5 % of the known are."""
    return {"auroc": auroc(score, new), "rejected": float((score[new] > np.quantile(score[~new], 1 - FALSE)).mean())}


def left_out(label: str, bank: Bank, networks: list[Heard]) -> dict[str, Any]:
    """One class of the bank unknown to it."""
    torch.set_num_threads(1)
    rows = [row for row in picked(held(bank), "weights", "clean", "drawn") if row.label != label]
    new = np.array([network.row.label == label for network in networks])
    return figures_of(scores(bank, fitted(bank, rows), networks, label), new)


def of_found(run: Path, bank: Bank, networks: list[Heard], workers: int) -> dict[str, Any]:
    """A rule that a search found, unknown to the bank as it is."""
    own = found_networks(run, workers)
    new = np.arange(len(networks) + len(own)) >= len(networks)
    return figures_of(scores(bank, bank.classifier("weights"), [*networks, *own]), new)


def mean(found: Mapping[str, Any]) -> dict[str, Any]:
    """Over rules, with the interval of that mean by bootstrap over rules."""
    generator = np.random.default_rng(0)
    answer: dict[str, Any] = {}
    asked = {
        "trees": ("auroc", "rejected"),
        "trees and replay": ("auroc", "rejected"),
        "said to be unknown": ("new", "known"),
    }
    for kind, keys in asked.items():
        for key in keys:
            values = np.array([entry[kind][key] for entry in found.values()])
            drawn = values[generator.integers(len(values), size=(2000, len(values)))].mean(axis=1)
            answer[f"{kind}: {key}"] = (float(values.mean()), *np.quantile(drawn, [0.025, 0.975]).tolist())
    return answer


def main() -> None:
    options = parser(__doc__, bank=True)
    options.add_argument("--runs", type=Path, nargs="*", default=[], help="runs whose rules are unknown to the bank")
    asked = options.parse_args()
    bank = banks.load(asked.bank)
    networks = known_networks(asked.workers)
    # another name of the same rule stays in the bank: the declared equivalents are no unknowns
    labels = [label for label in bank.classes if merged(label) == label]
    with pool(asked.workers) as map:
        answers = map(functools.partial(left_out, bank=bank, networks=networks), labels)
        found: dict[str, Any] = dict(zip(labels, answers, strict=True))
    for run in asked.runs:
        found[f"found by a search: {run.resolve().name}"] = of_found(run, bank, networks, asked.workers)
    figures = {"known networks": len(networks), "rules": found, "mean over rules": mean(found)}
    print(json.dumps(jsonable(figures), indent=1))
    written(asked.folder, figures)


if __name__ == "__main__":
    main()
