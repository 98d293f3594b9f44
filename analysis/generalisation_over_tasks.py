"""Does a rule that was searched on a few tasks learn new ones? Error on both against the number of training tasks.

A task is a Boolean function or a problem of the plane; a search over the parametric rule sees the first few of an
order that belongs to its seed, always from fresh initial weights. The rule found is then tried from fresh weights on
those tasks and on held-out ones: with few training tasks a rule may suit them and no others (Bengio, Bengio, Cloutier
and Gecsei 1992, whose theory bounds the gap by the ratio of the rule's parameters to training tasks). Backprop has its
rate tuned on the whole search split with the episodes of one search.

    python analysis/generalisation_over_tasks.py [FOLDER] [SEARCH] [KEY=VALUE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from metarule.evaluation import Conditions, interval, tuned
from metarule.inner import Runs
from metarule.inspection.figures import PALETTE, dress, keep
from metarule.learner import Learner
from metarule.loop import begun, engine_for, generations
from metarule.reading import find, read
from metarule.rng import seed_number
from metarule.spec import Search
from metarule.tasks import Task
from metarule.zoo import ZOO

COUNTS = (1, 2, 4, 8, 16)
SEEDS = 5
SHORTER = ("inner.steps=100", "outer.generations=40")
"""A third of the search's own budget: 25 searches within minutes."""

WHERE = ("training tasks", "new tasks")
METRICS = {"error": "accuracy", "loss": "held_out_loss"}


def restricted(name: str, count: int, seed: int, overrides: Sequence[str]) -> Search:
    """The search called `name` on `count` tasks that belong to `seed`."""
    own = f"task.problems={count}", f"task.shuffle={seed}", f"search.seed={seed}"
    return read(find(name), (*overrides, *own))[0]


def rule_found(search: Search) -> Float[Tensor, "1 P"]:
    """What the search hands over at its end."""
    outer = begun(search)
    for _ in generations(search, outer, 0, engine_for(search)):
        pass
    return outer.best[None]


def tried(
    learner: Learner, theta: Float[Tensor, "1 P"], task: Task, search: Search, seed: int, episodes: int
) -> dict[str, float]:
    """Mean error and loss of a rule over fresh episodes of a task; the loss is inf where a run diverged."""
    runs = Runs((0,), tuple(range(episodes)), seed_number("analysis", "generalisation", seed))
    outcome = engine_for(search).evaluate(learner, theta, task, runs, range(search.steps), search.inner.batch)
    return {
        "error": 1 - float(outcome.scores["accuracy"].mean()),
        "loss": float(outcome.scores["held_out_loss"].mean()),
    }


def numbers(
    name: str = "bengio_boolean",
    counts: Sequence[int] = COUNTS,
    seeds: int = SEEDS,
    episodes: int = 200,
    overrides: Sequence[str] = SHORTER,
) -> dict[str, Any]:
    """Everything that the figure shows: by place, metric and number of training tasks, one value per seed."""
    found: dict[str, Any] = {place: {metric: {count: [] for count in counts} for metric in METRICS} for place in WHERE}
    whole = read(find(name), tuple(overrides))[0]
    for count in counts:
        for seed in range(seeds):
            search = restricted(name, count, seed, overrides)
            theta = rule_found(search)
            for place, task in zip(WHERE, (search.task, search.task.held_out()), strict=True):
                scores = tried(search.learner, theta, task, search, seed, episodes)
                for metric, value in scores.items():
                    found[place][metric][count].append(value)
    return {
        "search": name,
        "overrides": list(overrides),
        "counts": list(counts),
        "episodes": episodes,
        "parameters": len(whole.learner.params),
        **found,
        "backprop": backprop(whole, seeds, episodes),
    }


def backprop(search: Search, seeds: int, episodes: int) -> dict[str, list[float]]:
    """Tuned backprop on the same held-out episodes, one value per seed."""
    budget = search.budget.generations * search.budget.candidates * search.inner.episodes
    conditions = Conditions(engine_for(search), search.steps, search.inner.batch)
    learner = ZOO["backprop"].learner(search.network.build(search.task))
    best = tuned("backprop", learner, search.task, conditions, budget, 0, lambda text: None)
    rows = [tried(learner, best.theta, search.task.held_out(), search, seed, episodes) for seed in range(seeds)]
    return {metric: [row[metric] for row in rows] for metric in METRICS}


def table(found: dict[str, Any]) -> str:
    """Means and 95 % intervals over seeds, a line per number of training tasks; the gap in error is paired by seed."""
    lines = [f"{found['search']}, {len(found['backprop']['error'])} seeds: mean [95 % interval]"]
    for metric in METRICS:
        for count in found["counts"]:
            both = "; ".join(f"{_spoken(found[place][metric][count])} on {place}" for place in WHERE)
            lines.append(f"  {count:3d} training tasks: {metric} {both}")
            if metric == "error":
                pairs = zip(*(found[place][metric][count] for place in WHERE), strict=True)
                lines[-1] += f"; gap {_spoken([new - seen for seen, new in pairs])}"
        lines.append(f"  tuned backprop: {metric} {_spoken(found['backprop'][metric])} on new tasks")
    return "\n".join(lines)


def figure(found: dict[str, Any]) -> Figure:
    """Error on training and on new tasks against the number of training tasks; every dot is a search."""
    drawn = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = drawn.subplots()
    counts = found["counts"]
    for color, place, shift in zip(PALETTE, WHERE, (0.97, 1.03), strict=False):
        across = [count * shift for count in counts]
        values = [found[place]["error"][count] for count in counts]
        means, lows, highs = zip(*map(interval, values), strict=True)
        for x, dots in zip(across, values, strict=True):
            axes.plot([x] * len(dots), dots, "o", color=color, alpha=0.3, ms=4, mec="none")
        axes.plot(across, means, "-o", color=color, ms=5, label=f"on the {place}")
        axes.vlines(across, lows, highs, color=color, lw=2)
    mean, low, high = interval(found["backprop"]["error"])
    axes.axhline(mean, color="0.4", ls="--", lw=1, label="tuned backprop, new tasks")
    axes.axhspan(low, high, color="0.85", zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("number of training tasks")
    axes.set_ylabel("error, fraction of wrong answers")
    axes.legend(frameon=False)
    dress(axes)
    title = f"{found['search']}: {found['parameters']} parameters, means and 95 % intervals"
    axes.set_title(title, loc="left", fontsize="medium")
    return drawn


def _spoken(values: Sequence[float]) -> str:
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    overrides = [each for each in arguments if "=" in each]
    given = [each for each in arguments if "=" not in each]
    folder, name = (*given, *("runs/analysis", "bengio_boolean")[len(given) :])
    found = numbers(name, overrides=(*SHORTER, *overrides))
    print(table(found))
    for file in keep(Path(folder), f"generalisation_over_tasks_{name}", found, figure):
        print(file)


if __name__ == "__main__":
    main(sys.argv[1:])
