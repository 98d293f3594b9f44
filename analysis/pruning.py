"""What does pruning save, and what does it cost? The same search with and without its pruner, seed by seed.

Inner steps that candidates ran, and the accuracy of the rule found on held-out episodes that both searches of a pair
share; intervals are over the pairs (Student's t).

    python analysis/pruning.py [FOLDER] [--workers N] [SEARCH] [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

from metarule.evaluation import interval
from metarule.inner import Runs
from metarule.inspection.figures import PALETTE, dress, keep
from metarule.loop import begun, engine_for, generations
from metarule.reading import find, read
from metarule.rng import seed_number
from metarule.spec import Search
from metarule.workers import pool

FIRST = 10
"""The first seed: how early the pruner stops was chosen on lower ones."""

SEEDS = 10
EPISODES = 40
"""Held-out episodes on which each rule found is tested."""


class Job(NamedTuple):
    """One search: its name, what is changed in it, its seed, and whether its pruner is at work."""

    name: str
    overrides: tuple[str, ...]
    seed: int
    pruned: bool
    episodes: int


class Outcome(NamedTuple):
    """What one search cost and what came of it."""

    run_steps: int
    headline: float
    failed: int


def searched(job: Job) -> Outcome:
    """Run one search without files, and test what it found."""
    torch.set_num_threads(1)
    search = _search(job)
    outer, engine = begun(search), engine_for(search)
    done = list(generations(search, outer, 0, engine))
    plain, row = search.found(outer.best)
    runs = Runs((0,), tuple(range(job.episodes)), seed_number(job.seed, "analysis", "pruning"))
    outcome = engine.evaluate(
        plain.learner, row[None], search.task.held_out(), runs, range(search.steps), search.inner.batch
    )
    lost = sum(int((~each.loss.isfinite()).sum()) for each in done)
    steps = sum(each.run_steps for each in done)
    return Outcome(steps, float(outcome.scores[search.task.headline].mean()), lost)


def _search(job: Job) -> Search:
    search = read(find(job.name), (*job.overrides, f"search.seed={job.seed}"))[0]
    if job.pruned:
        return search
    outer: Any = search.outer
    return replace(search, outer=replace(outer, pruner=None, pruning={}))


def numbers(name: str, seeds: int, workers: int, overrides: Sequence[str] = (), episodes: int = EPISODES) -> Any:
    """Both searches of every seed, paired: {seeds, pruned, whole, saved, difference} with intervals."""
    jobs = [
        Job(name, tuple(overrides), seed, pruned, episodes)
        for seed in range(FIRST, FIRST + seeds)
        for pruned in (True, False)
    ]
    with pool(workers) as map:
        found = list(map(searched, jobs))
    pruned, whole = found[::2], found[1::2]
    saved = [1 - a.run_steps / b.run_steps for a, b in zip(pruned, whole, strict=True)]
    differences = [a.headline - b.headline for a, b in zip(pruned, whole, strict=True)]
    return {
        "search": name,
        "pruned": [each._asdict() for each in pruned],
        "whole": [each._asdict() for each in whole],
        "saved": {"values": saved, "interval": interval(saved)},
        "difference": {"values": differences, "interval": interval(differences)},
    }


def table(found: dict[str, Any]) -> str:
    """The outcome in three lines."""
    ours, theirs = ([each["headline"] for each in found[side]] for side in ("pruned", "whole"))
    lines = [f"{found['search']}, {len(ours)} pairs of searches:"]
    mean, low, high = found["saved"]["interval"]
    lines.append(f"  inner steps saved: {100 * mean:.1f} % [{100 * low:.1f} to {100 * high:.1f}]")
    mean, low, high = found["difference"]["interval"]
    lines.append(
        f"  accuracy on held-out episodes: {sum(ours) / len(ours):.4f} with pruning, {sum(theirs) / len(theirs):.4f} "
        f"without; difference {100 * mean:+.2f} points [{100 * low:+.2f} to {100 * high:+.2f}]"
    )
    return "\n".join(lines)


def figure(found: dict[str, Any]) -> Figure:
    """Every pair: inner steps against held-out accuracy, the search with pruning joined to the one without."""
    drawn = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = drawn.subplots()
    pairs = list(zip(found["pruned"], found["whole"], strict=True))
    for one, other in pairs:
        axes.plot(
            [one["run_steps"], other["run_steps"]], [one["headline"], other["headline"]], color="0.8", lw=0.8, zorder=1
        )
    for place, side in enumerate(("pruned", "whole")):
        across = [each["run_steps"] for each in found[side]]
        up = [each["headline"] for each in found[side]]
        axes.plot(across, up, "o", color=PALETTE[place], label={"pruned": "with pruning", "whole": "without"}[side])
    axes.set_xlim(left=0)
    axes.set_xlabel("inner steps of all candidates")
    axes.set_ylabel("held-out accuracy of the rule found")
    axes.legend(frameon=False)
    dress(axes)
    axes.set_title(f"{found['search']}: {len(pairs)} pairs of searches", loc="left", fontsize="medium")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="runs/analysis", type=Path)
    parser.add_argument("search", nargs="?", default="pruned_terms")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_intermixed_args()
    found = numbers(given.search, given.seeds, given.workers, given.overrides)
    print(table(found))
    for file in keep(given.folder, "pruning", found, figure):
        print(file)


if __name__ == "__main__":
    main()
