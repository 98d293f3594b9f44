"""Does a learner that transports no weights do what tuned backprop does, on both tasks, and for how many terms?

The rules on the front of a search over structure, each with the numbers that the search found on one task, on held-out
episodes of the digits' autoencoder and, numbers unchanged, of their classification; backprop's rate is tuned on each
task's search split with as many steps and the same batches. Intervals and paired differences over episodes, which have
their own initial weights, feedback and order of images.

    python analysis/structure.py RUN [FOLDER] [--workers N] [--episodes N]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

import metarule as mr
from metarule.evaluation import Battery, Conditions, Contender, compare, tuned
from metarule.inner import Map, in_turn
from metarule.inspection.figures import PALETTE, dress, keep
from metarule.learner import Learner
from metarule.loop import engine_for
from metarule.rng import seed_number
from metarule.spec import Search
from metarule.tasks.digits import Digits
from metarule.workers import pool
from metarule.zoo import algorithm

EPISODES = 20
TUNING = 44
"""Episodes that tuning backprop may cost: four for each rate of its grid."""

TASKS = {"autoencoder": (Digits("autoencoder"), (32, 10, 32)), "digits": (Digits(), (64, 32))}
"""The tasks and networks of the zoo's pages."""

BOUNDS = {"autoencoder": 0.05, "digits": 0.02}
"""How far from tuned backprop a learner may be on each."""

WITHIN = 3.0
"""A rule of the front that loses more than so many times the best one's loss is left out: it does not learn."""


def rows(run: mr.Run) -> list[tuple[dict[str, Any], Search, Float[Tensor, "p"]]]:
    """Every rule of a run's front that learns: what is known of it, its search, its numbers."""
    search = run.search
    leading = search.objectives[0]
    front = run.found["front"]
    best = min(rule["losses"][leading] for rule in front)
    found = []
    for rule in front:
        if rule["losses"][leading] > WITHIN * best:
            continue
        structure = tuple(rule["structure"].values())
        learner = search.family.build[structure]
        values = {param.name: _number(param, rule["theta"][param.name]) for param in learner.params}
        found.append((rule, *search.found(search.family.row(structure, values))))
    return found


def _number(param: Any, value: float | str) -> float:
    return float(param.choices.index(value)) if param.choices else float(value)


def measured(run: mr.Run, task: str, episodes: int, map: Map = in_turn) -> Battery:
    """The rules of the front, the best first, and tuned backprop on one task's held-out episodes."""
    asked, hidden = TASKS[task]
    search = run.search
    conditions = Conditions(engine_for(search, map), search.steps, search.inner.batch)
    contenders = []
    for place, (_, plain, row) in enumerate(rows(run)):
        network = replace(plain.network, hidden=hidden).build(asked)
        learner = Learner(network, plain.credit, plain.rules, plain.synapses, fixed=plain.fixed, start=plain.start)
        contenders.append(Contender(f"rule {place}", learner, row[None]))
    network = replace(search.network, hidden=hidden).build(asked)
    for name in ("backprop", "adam"):
        learner = algorithm(name).learner(network)
        contenders.append(tuned(name, learner, asked, conditions, TUNING, 0, print))
    return compare(contenders, asked, conditions, episodes, [seed_number("analysis", "structure")], lambda text: None)


def numbers(run: mr.Run, episodes: int = EPISODES, map: Map = in_turn) -> dict[str, Any]:
    """Per rule of the front what it is, on each task its mean and interval; and those of tuned baselines."""
    batteries = {task: measured(run, task, episodes, map) for task in TASKS}
    rules = [{key: rule[key] for key in ("structure", "equation", "complexity")} for rule, _, _ in rows(run)]
    scores = {task: _headlines(battery, TASKS[task][0].headline) for task, battery in batteries.items()}
    found = {
        "rules": [rule | {task: scores[task][f"rule {place}"] for task in TASKS} for place, rule in enumerate(rules)],
        "baselines": {name: {task: scores[task][name] for task in TASKS} for name in ("backprop", "adam")},
        "difference": {task: _difference(batteries[task], TASKS[task][0].headline) for task in TASKS},
        "episodes": episodes,
    }
    inside = {task: worse(found["difference"][task]["mean"], task) <= BOUNDS[task] for task in TASKS}
    return found | {"within": inside}


def worse(difference: float, task: str) -> float:
    """By how much the found learner is worse than backprop; negative where it is better."""
    return -difference if TASKS[task][0].metrics[TASKS[task][0].headline] == "max" else difference


def _headlines(battery: Battery, metric: str) -> dict[str, dict[str, float]]:
    return {
        row.learner: {"mean": row.mean, "low": row.low, "high": row.high}
        for row in battery.rows
        if row.metric == metric
    }


def _difference(battery: Battery, metric: str) -> dict[str, float]:
    """The best rule of the front minus tuned backprop, paired; +-inf where one of them diverged."""
    for each in battery.differences:
        if (each.other, each.metric) == ("backprop", metric):
            return {"mean": each.mean, "low": each.low, "high": each.high}
    return dict.fromkeys(("mean", "low", "high"), torch.inf)


def table(found: dict[str, Any]) -> str:
    """The front with its held-out scores, and where its best rule stands beside tuned backprop."""
    lines = [f"held-out means and 95 % intervals over {found['episodes']} episodes; numbers found on the autoencoder"]
    for rule in found["rules"]:
        lines.append(f"{rule['complexity']:.0f} terms: {', '.join(rule['structure'].values())}: {rule['equation']}")
        lines.append("  " + _scores(rule))
    lines += [f"{name}, tuned: {_scores(scores)}" for name, scores in found["baselines"].items()]
    for task, bound in BOUNDS.items():
        each = found["difference"][task]
        lines.append(
            f"best rule - tuned backprop on {task}: {each['mean']:+.3f} [{each['low']:+.3f} to {each['high']:+.3f}], "
            f"{'within' if found['within'][task] else 'NOT within'} {bound}"
        )
    return "\n".join(lines)


def _scores(scores: dict[str, Any]) -> str:
    return ", ".join(
        f"{task} {scores[task]['mean']:.3f} [{scores[task]['low']:.3f} to {scores[task]['high']:.3f}]" for task in TASKS
    )


def figure(found: dict[str, Any]) -> Figure:
    """Held-out scores of the front against the number of terms, with tuned backprop as a line, one panel per task."""
    drawn = Figure(figsize=(7.6, 3.8), layout="constrained")
    panels = list(drawn.subplots(1, len(TASKS), squeeze=False)[0])
    names = list(dict.fromkeys(", ".join(rule["structure"].values()) for rule in found["rules"]))
    for axes, task in zip(panels, TASKS, strict=True):
        for rule in found["rules"]:
            place = names.index(", ".join(rule["structure"].values()))
            each = rule[task]
            bar = [[each["mean"] - each["low"]], [each["high"] - each["mean"]]]
            axes.errorbar([rule["complexity"]], [each["mean"]], yerr=bar, fmt="o", color=PALETTE[place % len(PALETTE)])
        for dash, (name, scores) in zip(("-", "--"), found["baselines"].items(), strict=True):
            axes.axhline(scores[task]["mean"], color="0.4", lw=0.9, ls=dash, label=f"{name}, tuned")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("terms in use, feedback's included")
        axes.set_ylabel("NMSE" if task == "autoencoder" else "accuracy")
        axes.set_title(task, loc="left", fontsize="medium")
        dress(axes)
    for place, name in enumerate(names):
        panels[0].plot([], [], "o", color=PALETTE[place % len(PALETTE)], label=name)
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", nargs="?", default="runs/analysis", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    given = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    with pool(given.workers) as map:
        found = numbers(mr.load(given.run), given.episodes, map)
    print(table(found))
    for file in keep(given.folder, "structure", found, figure):
        print(file)


if __name__ == "__main__":
    main()
