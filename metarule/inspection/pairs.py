"""Paired tests on the same held-out episodes, and their correction for how many there are. Needs no torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metarule.intervals import interval

Scores = Mapping[str, Sequence[float]]
"""Metric -> one value per held-out episode, inf where a run diverged."""

TEST = "Student's paired t-test over episodes, two-sided; p-values of a metric's pairs adjusted by Holm's method"
"""What `paired_tests` does, in words."""


def paired_tests(
    names: Sequence[str],
    tasks: Sequence[str],
    scores: Sequence[Scores],
    seeds: int = 1,
    fair: Callable[[int, int], bool] = lambda one, other: True,
) -> list[dict[str, Any]]:
    """{a, b, task, metric, mean, low, high, p, p_holm, episodes, seeds} per metric and pair of learners: a - b.

    Learners are paired by episode where `fair` says that they may be; where one has more episodes than the other, the
    first ones, which both have, count. `p_holm` is adjusted over the pairs of its metric. Numbers are nan where an
    episode diverged, and where there are fewer than two.
    """
    pairs = [pair for pair in itertools.combinations(range(len(names)), 2) if fair(*pair)]
    found = []
    for metric in dict.fromkeys(metric for each in scores for metric in each):
        rows = []
        for one, other in pairs:
            if metric not in scores[one] or metric not in scores[other]:
                continue
            both = list(zip(scores[one][metric], scores[other][metric], strict=False))
            measured = difference([a for a, _ in both], [b for _, b in both])
            row = {"a": names[one], "b": names[other], "task": tasks[one], "metric": metric, **measured}
            rows.append(row | {"episodes": len(both), "seeds": seeds})
        adjusted = holm([row["p"] for row in rows])
        found += [row | {"p_holm": value} for row, value in zip(rows, adjusted, strict=True)]
    return found


def difference(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """{mean, low, high, p} of the differences one - other: mean, 95 % interval and p-value of Student's paired t-test.

    Equal scores have p = 1. All are nan where a score is not finite, interval and p-value also below two pairs.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    if not differences or not all(map(math.isfinite, differences)):
        return dict.fromkeys(("mean", "low", "high", "p"), math.nan)
    mean, low, high = interval(differences)
    if low == high:  # no spread, and no t
        return {"mean": mean, "low": low, "high": high, "p": 1.0 if mean == 0.0 else 0.0}
    from scipy import stats  # half a second, which runs that cannot be paired need not wait

    test: Any = stats.ttest_1samp(differences, 0.0) if len(differences) > 1 else None
    return {"mean": mean, "low": low, "high": high, "p": float(test.pvalue) if test else math.nan}


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted so that all together err with the chance that each alone would (Holm 1979).

    The k-th smallest of n becomes the largest of (n - j + 1) p_j over j <= k, at most 1. One that is nan stays nan and
    does not count.
    """
    order = sorted((place for place, value in enumerate(values) if not math.isnan(value)), key=values.__getitem__)
    adjusted = [math.nan] * len(values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted
