"""Paired tests are Student's, adjusted by Holm's procedure."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from metarule.inspection.pairs import difference, holm, paired_tests
from metarule.intervals import interval


def test_holm_is_the_published_procedure():
    # Holm (1979) by hand: 4 x 0.01, 3 x 0.02, 2 x 0.03, 1 x 0.04, each at least the one before
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    some = holm([math.nan, 0.01, 0.04])
    assert math.isnan(some[0])
    assert some[1:] == [0.02, 0.04]


def test_a_paired_difference_is_students():
    one, other = [0.9, 0.7, 0.8, 0.85], [0.6, 0.65, 0.7, 0.9]
    measured = difference(one, other)
    expected = stats.ttest_rel(one, other)
    assert measured["p"] == pytest.approx(expected.pvalue)
    assert (measured["low"], measured["high"]) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert (measured["mean"], measured["low"], measured["high"]) == interval(
        [a - b for a, b in zip(one, other, strict=True)]
    )
    assert difference([1.0, 2.0], [0.5, 1.5])["p"] == 0.0
    assert math.isnan(difference([1.0], [0.5])["p"])


def test_holm_is_over_the_pairs_of_a_metric_and_only_fair_pairs_count():
    scores = [{"m": [1.0, 2.0, 3.5]}, {"m": [0.9, 1.7, 3.3]}, {"m": [0.0, 0.5, 0.1]}, {"n": [1.0, 1.0, 1.0]}]
    rows = paired_tests(list("abcd"), ["t"] * 4, scores, 1, lambda one, other: (one, other) != (1, 2))
    assert [(row["a"], row["b"]) for row in rows] == [("a", "b"), ("a", "c")]
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])
