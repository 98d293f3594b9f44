"""How much better than chance does evolution write learning rules? Acceptable programs per program evaluated.

A program is acceptable where 1 - RMSE exceeds .9999 (a loss below 1e-8). As Real, Liang, So and Le (2020) count, a run
of evolution ends with its first acceptable program, and its success rate is acceptable programs over programs
evaluated, all runs together; random search goes on, and each of its acceptable programs counts. Intervals are
bootstraps over runs; where random search found nothing, its rate is at most 3 over its programs (95 %).

    python analysis/evolution_against_random.py runs/evolved-seed* runs/random-seed*
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np
import torch

import metarule as mr
from metarule.symbolic import simplified

ACCEPTABLE = 1e-8
DRAWS = 10_000


class Count(NamedTuple):
    """Acceptable programs of one run, and the programs that it evaluated for them."""

    acceptable: int
    evaluated: int


def counted(losses: list[list[float | None]], stops: bool) -> Count:
    """Counts from the losses of all generations; a run that `stops` ends at its first acceptable program."""
    acceptable = evaluated = 0
    for loss in (one for generation in losses for one in generation):
        evaluated += 1
        acceptable += loss is not None and loss < ACCEPTABLE
        if stops and acceptable:
            break
    return Count(acceptable, evaluated)


def rate(counts: list[Count]) -> float:
    """Acceptable programs per program; where there is none, the rate that would have shown one in 95 of 100."""
    acceptable, evaluated = (sum(part) for part in zip(*counts, strict=True))
    return (acceptable or 3) / evaluated


def interval(evolved: list[Count], random: list[Count]) -> tuple[float, float, float]:
    """The ratio of success rates, and its 95 % interval over runs."""
    generator = np.random.default_rng(0)

    def drawn(counts: list[Count]) -> list[Count]:
        return [counts[place] for place in generator.integers(len(counts), size=len(counts))]

    ratios = [rate(drawn(evolved)) / rate(drawn(random)) for _ in range(DRAWS)]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return rate(evolved) / rate(random), float(low), float(high)


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    counts: dict[str, list[Count]] = {}
    for path in paths:
        run = mr.load(path)
        scheme = run.search.outer.scheme  # pyright: ignore
        one = counted([line["loss"] for line in run.log], stops=scheme != "random")
        counts.setdefault("random" if scheme == "random" else "evolution", []).append(one)
        theta = torch.tensor(list(run.theta.values()), dtype=torch.float64)[None]
        rule = run.rule.expressions(run.learner.columns(theta).rules["forward"][0])["dW"]  # pyright: ignore
        best = min((line["loss_best"] for line in run.log if line["loss_best"] is not None), default=math.inf)
        print(f"{path} ({scheme}): {one.acceptable} of {one.evaluated}, best {best:.1e}: {simplified(rule)}")
    for name, every in counts.items():
        found = sum(count.acceptable for count in every)
        runs = sum(count.acceptable > 0 for count in every)
        bound = "" if found else " at most"
        print(f"{name}: {found} acceptable in {sum(count.evaluated for count in every)} programs ", end="")
        print(f"({runs} of {len(every)} runs), a rate of{bound} {rate(every):.2g}")
    if counts.keys() == {"evolution", "random"}:
        ratio, low, high = interval(counts["evolution"], counts["random"])
        print(f"evolution over random search: {ratio:.1f} [{low:.1f} to {high:.1f}]")


if __name__ == "__main__":
    main(sys.argv[1:])
