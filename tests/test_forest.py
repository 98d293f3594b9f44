"""A forest as plain arrays answers as scikit-learn's does, and arrays that are no forest are refused."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from metarule.identification import bank as banks
from metarule.identification.bank import VIEWS
from metarule.identification.classifier import trees
from metarule.identification.forest import Forest

FEATURES, CLASSES = 6, 3


def rows(count: int, seed: int, missing: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Rows that lack some features, of classes that no tree tells apart exactly."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(CLASSES, size=count)
    table = np.round(generator.normal(size=(count, FEATURES)) + 0.7 * np.eye(CLASSES, FEATURES)[codes], 1)
    table[generator.random(table.shape) < missing] = np.nan
    return table.astype(np.float32), codes


MODELS = {
    "extra trees": ExtraTreesClassifier(7, random_state=0),
    "leaves that are not sure": ExtraTreesClassifier(7, min_samples_leaf=5, random_state=0),
    "unequal weights": RandomForestClassifier(7, max_depth=3, class_weight="balanced", random_state=0),
    "best splits first": RandomForestClassifier(7, max_leaf_nodes=9, random_state=0),
    "stumps": ExtraTreesClassifier(3, max_depth=1, random_state=0),
    "a single leaf": ExtraTreesClassifier(2, min_samples_leaf=200, random_state=0),
}


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("name", MODELS)
def test_it_answers_as_scikit_learn(name, missing):
    model: Any = MODELS[name].fit(*rows(200, 0, missing))
    forest = Forest.of(model)
    assert forest.fitting(FEATURES, CLASSES) is forest
    assert forest.classes_.tolist() == model.classes_.tolist()
    for other, _ in (rows(300, 1, missing), rows(1, 2, missing), (rows(200, 0, missing))):
        np.testing.assert_allclose(forest.predict_proba(other), model.predict_proba(other), rtol=0, atol=1e-12)


@pytest.mark.skipif(not banks.DEFAULT.exists(), reason="the reference bank is not part of this checkout")
@pytest.mark.parametrize("view", VIEWS)
def test_it_answers_as_scikit_learn_on_rows_of_the_reference_bank(view):
    held = banks.opened().views[view]
    table, codes = held.table.astype(np.float32), np.unique(held.labels, return_inverse=True)[1]
    model: Any = trees(5).fit(table[::10], codes[::10])
    forest = Forest.of(model)
    asked = table[1::20]
    assert np.isnan(asked).any(axis=1).any()
    assert np.array_equal(forest.predict_proba(asked), model.predict_proba(asked))
    filled = np.nan_to_num(asked)
    assert np.array_equal(forest.predict_proba(filled), model.predict_proba(filled))


def test_a_row_at_a_threshold_goes_where_scikit_learn_sends_it():
    # halfway between neighbours of float32 the threshold is none of them
    low = np.float32(1.0)
    high = np.nextafter(low, np.float32(2.0))
    model: Any = RandomForestClassifier(1, bootstrap=False, random_state=0).fit(np.array([[low], [high]]), [0, 1])
    forest = Forest.of(model)
    assert forest.threshold.dtype == np.float32
    for asked in (low, high, np.nextafter(high, np.float32(2.0)), np.float32(0.0)):
        assert np.array_equal(forest.predict_proba(np.array([[asked]])), model.predict_proba([[asked]]))


def test_two_questions_at_once_are_refused():
    table, codes = rows(40, 0)
    with pytest.raises(ValueError, match="the forest was fitted to 2 outputs; a Forest answers one question"):
        Forest.of(ExtraTreesClassifier(2).fit(table, np.column_stack((codes, codes))))


@functools.cache
def whole() -> Forest:
    return Forest.of(ExtraTreesClassifier(3, max_depth=4, random_state=0).fit(*rows(100, 0)))


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (lambda f: {"feature": f.feature.astype(float)}, r"feature has shape \(\d+,\) and dtype float64"),
        (lambda f: {"feature": f.feature.astype(int)}, "feature has shape .* and dtype int64"),
        (lambda f: {"threshold": f.threshold[:, None]}, r"threshold has shape \(\d+, 1\) and dtype float32"),
        (lambda f: {"threshold": f.threshold.astype(str)}, "threshold has shape .* and dtype <U"),
        (lambda f: {"splits": np.array(True)}, r"splits has shape \(\) and dtype bool"),
        (lambda f: {"missing_left": f.missing_left[1:]}, r"missing_left has \d+ entries where splits needs \d+"),
        (lambda f: {"leaf": np.append(f.leaf, f.leaf[:1])}, r"leaf has \d+ entries where splits needs \d+"),
        (lambda f: {"feature": np.full_like(f.feature, FEATURES)}, "feature holds 6, it must lie below 6"),
        (lambda f: {"leaf": np.full_like(f.leaf, len(f.votes))}, r"leaf holds \d+, it must lie below \d+"),
        (lambda f: {"votes": f.votes[:, :2]}, "votes are no probabilities of 3 classes"),
        (lambda f: {"votes": f.votes * np.nan}, "votes are no probabilities of 3 classes"),
        (lambda f: {"votes": f.votes + 1}, "votes are no probabilities of 3 classes"),
        (lambda f: {"votes": f.votes - np.array([2.0, -1.0, -1.0])}, "votes are no probabilities of 3 classes"),
        (lambda f: {"splits": np.sort(f.splits)}, "splits ends amid a tree"),
        (lambda f: {name: array[:0] for name, array in f.arrays.items() if name != "votes"}, "splits ends amid a tree"),
    ],
)
def test_arrays_that_are_no_forest_are_refused(spoilt, why):
    with pytest.raises(ValueError, match=why):
        replace(whole(), **spoilt(whole())).fitting(FEATURES, CLASSES)


def test_whatever_splits_are_read_no_row_walks_for_ever():
    generator = np.random.default_rng(0)
    asked, _ = rows(5, 1)
    read = 0
    for _ in range(300):
        splits = generator.random(generator.integers(1, 12)) < 0.5
        count = int(splits.sum())
        given = Forest(
            splits,
            generator.integers(FEATURES, size=count).astype(np.uint8),
            generator.normal(size=count).astype(np.float32),
            generator.random(count) < 0.5,
            generator.integers(CLASSES, size=len(splits) - count).astype(np.uint8),
            np.eye(CLASSES),
        )
        try:
            given.fitting(FEATURES, CLASSES)
        except ValueError:
            continue
        read += 1
        np.testing.assert_allclose(given.predict_proba(asked).sum(axis=1), 1)
    assert 50 < read < 250
