"""Is a learned optimizer better than tuned ones: on its own problems, on a network for digits, and as an outer loop?

    metarule search learn_to_optimize --seeds 3
    python analysis/learned_optimizer.py runs/learn_to_optimize-seed*

Everybody is judged by the mean loss along the steps, and tuned by it on problems of the search's own side: rates by
steps of 2 until the best has worse ones on both sides, then of sqrt(2). Without runs, the weights that come with
metarule are judged. `--searches N` compares N searches of searches/oja_learned_optimizer.toml with the same ones by
Adam; every rate of a grid of both is tried on two other searches first.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from ship_learned_optimizer import learned

import metarule as mr
from metarule.evaluation import Battery, Conditions, Contender, compare, interval, tuned
from metarule.inner import Reference, Runs
from metarule.learner import ANY, Learner
from metarule.loop import begun, engine_for, generations
from metarule.network import Network
from metarule.outer import OuterLoop
from metarule.outer.learned_optimizer import SHIPPED, LearnedOptimizer, Weights, read
from metarule.outer.meta_gradient import MetaGradient
from metarule.reading import read as read_search
from metarule.reading import shipped
from metarule.rng import seed_number
from metarule.rules.lstm import Lstm
from metarule.spec import Search
from metarule.synapses.sgd import Sgd
from metarule.tasks import Task
from metarule.tasks.digits import Digits
from metarule.tasks.quadratics import Quadratics
from metarule.zoo import algorithm

TUNED = ("adam", "momentum", "backprop")
STEPS, SIZE = 100, 10
POINT = Network.chain((SIZE, 1), output="linear", init="gaussian", init_scale=0.01 * math.sqrt(SIZE))
CLASSIFIER = Network.chain((64, 20, 10), "sigmoid", bias=True)  # 20 hidden units, as the published network had
ALONG = tuple(range(1, STEPS + 1))

HELD_OUT = 50
TRIALS = 1000  # seeds of the searches that rates are tried on begin here
LOOPS: dict[str, Callable[[float], OuterLoop]] = {
    "Adam": lambda rate: MetaGradient(rate=rate),
    "learned": lambda rate: LearnedOptimizer(rate=rate),
}
RATES = {"Adam": (0.003, 0.01, 0.03, 0.1), "learned": (0.03, 0.1, 0.3, 1.0)}


class DigitsByLoss(Digits):
    """Digits, where rates are tuned and learners compared by the loss that all of them descend."""

    @property
    def headline(self):
        return "held_out_loss"


class Ending(NamedTuple):
    """One search: the loss of the rule it ends with on held-out episodes, the mean of those that it heard, and how many
    of them were failures."""

    last: float
    along: float
    failed: int


def quietly(text: str) -> None:
    """Progress that nobody asked for."""


def optimizer(network: Network, weights: Weights) -> Learner:
    """A network whose weights the learned optimizer moves along the gradient."""
    sizes = weights.network
    rule = Lstm(hidden=sizes.hidden, layers=sizes.layers, reach=sizes.reach, rate=weights.step, normalise=False)
    return Learner(network, algorithm("backprop").credit, {ANY: rule}, {ANY: Sgd()})


def compared(
    network: Network,
    task: Task,
    batch: int,
    found: Sequence[Weights],
    tuning: int,
    episodes: int,
    score_at: tuple[int, ...] = ALONG,
) -> Battery:
    """Learned optimizers and tuned ones on the same fresh episodes, judged by the mean loss after `score_at` steps."""
    conditions = Conditions(Reference(block_runs=100), STEPS, batch, score_at)
    contenders = [
        Contender(f"learned {place}", optimizer(network, weights), weights.theta[None])
        for place, weights in enumerate(found)
    ]
    for name in TUNED:
        contenders.append(tuned(name, algorithm(name).learner(network), task, conditions, tuning, 0, quietly))
    return compare(contenders, task, conditions, episodes, [0], quietly)


def lines(battery: Battery) -> list[str]:
    """A battery in sentences: the loss of everybody, the first one's difference from others, all learned ones."""
    loss = [row for row in battery.rows if row.metric == "held_out_loss"]
    said = [f"  {row.learner:10} {shown(row.mean, row.low, row.high)}{_rate(battery, row.learner)}" for row in loss]
    means = [row.mean for row in loss if row.learner.startswith("learned")]
    if len(means) > 1:
        said.append(f"  {len(means)} learned  {shown(*interval(means))} over seeds")
    for each in battery.differences:
        if each.metric == "held_out_loss" and each.other in TUNED:
            said.append(f"  learned 0 - {each.other}: {shown(each.mean, each.low, each.high)}, paired")
    return said


def _rate(battery: Battery, name: str) -> str:
    tuning = battery.tunings.get(name)
    return f", best rate {tuning.best:.4g} of {len(tuning.rates)}" if tuning else ""


def shown(mean: float, low: float, high: float) -> str:
    """A mean with its interval."""
    return f"{mean:.4f} [{low:.4f} to {high:.4f}]"


def searched(search: Search, outer: OuterLoop, seed: int) -> Ending:
    """A search by `outer`: no file, no battery; its rule is tried on fresh episodes, the same for all loops."""
    search = replace(search, outer=outer, search=replace(search.search, seed=seed))
    loop, engine = begun(search), engine_for(search)
    heard = [float(generation.loss[0, 0]) for generation in generations(search, loop, 0, engine)]
    runs = Runs((0,), tuple(range(HELD_OUT)), seed_number(seed, "learned optimizer"))
    steps = range(search.steps)
    outcome = engine.evaluate(search.learner, loop.best[None], search.task.held_out(), runs, steps, search.inner.batch)
    finite = [loss for loss in heard if math.isfinite(loss)]
    along = statistics.fmean(finite) if finite else math.inf
    return Ending(float(outcome.loss.mean()), along, len(heard) - len(finite))


def loops(search: Search, searches: int) -> list[str]:
    """Adam and the learned optimizer over the same searches, each at the best of its rates, in sentences."""
    said, ends = [], {}
    for name, make in LOOPS.items():
        tried = {
            rate: statistics.fmean(searched(search, make(rate), TRIALS + seed).last for seed in range(2))
            for rate in RATES[name]
        }
        best = min(tried, key=lambda rate: tried[rate])
        ends[name] = [searched(search, make(best), seed) for seed in range(searches)]
        grid = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in tried.items())
        said.append(f"  {name}, rates {grid}")
        for part in ("last", "along"):
            values = [getattr(end, part) for end in ends[name]]
            said.append(f"    at {best:g}, {part}: {shown(*interval(values))}, median {statistics.median(values):.4f}")
        said.append(f"    at {best:g}, failed generations: {sum(end.failed for end in ends[name])}")
    for part in ("last", "along"):
        ours, theirs = ([getattr(end, part) for end in ends[name]] for name in ("learned", "Adam"))
        gaps = [one - other for one, other in zip(ours, theirs, strict=True)]
        said.append(f"  learned - Adam, {part}: {shown(*interval(gaps))}, paired")
    return said


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="runs of learn_to_optimize; default the shipped weights")
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--searches", type=int, default=0, help="searches to compare outer loops by; 0 leaves it out")
    given = parser.parse_args()
    found = [learned(mr.load(path)) for path in given.runs] or [read(SHIPPED)]
    print(f"quadratics, {given.episodes} fresh ones, mean of f over {STEPS} steps:")
    print(*lines(compared(POINT, Quadratics(), SIZE, found, 11 * given.episodes, given.episodes)), sep="\n")
    print("the same after the last step:")
    print(*lines(compared(POINT, Quadratics(), SIZE, found, 11 * given.episodes, given.episodes, ())), sep="\n")
    few = max(given.episodes // 20, 2)
    print(f"digits, a network of 20 hidden units, {few} held-out runs, mean cross-entropy over {STEPS} steps:")
    print(*lines(compared(CLASSIFIER, DigitsByLoss(test_size=100), 64, found, 44, few)), sep="\n")
    if given.searches:
        search, _ = read_search(shipped()["oja_learned_optimizer"])
        print(f"outer loops, {given.searches} searches of {search.budget.generations} generations:")
        print(*loops(search, given.searches), sep="\n")


if __name__ == "__main__":
    main()
