"""The classifier of rules: a scikit-learn classifier whose probabilities, sets and rejections mean what they say."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from metarule.identification.calibration import confidence_of, p_values, temperature_of, tempered, threshold_of
from metarule.identification.classifier import FOLDS, RuleClassifier
from metarule.identification.extractor import ObservableExtractor
from metarule.identification.metrics import auroc, ece, grouped_interval
from metarule.identification.observables import LARGEST, observables
from metarule.identification.recording import Recording, RecordingError
from metarule.identification.simulation import Simulation, simulated
from metarule.identification.splitters import LeaveOneArchitectureOut, LeaveOneRuleOut

RULES = ("backprop", "drift")


@functools.cache
def recordings(runs: int = 6) -> tuple[Recording, ...]:
    """Networks that learn by two rules which nobody confuses."""
    simulation = Simulation(
        RULES, ("digits",), ((8,),), batch=(8,), init_scale=(1.0,), blocks=1, runs=runs, updates=8, bursts=2,
        probes=4, taught=0,
    )  # fmt: skip
    return tuple(each for job in simulation.jobs() for each in simulated(job))


def labels() -> list[str]:
    return [recording.meta["label"] for recording in recordings()]


def blobs(rows: int, seed: int, spread: float = 1.0, names: tuple[str, ...] = ("adam", "bcm", "oja")):
    """Exchangeable rows: normal ones about a corner per class."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(len(names), size=rows)
    table = 2.0 * np.eye(4)[codes] + spread * generator.normal(size=(rows, 4))
    return table, np.array(names)[codes]


def forest(**settings) -> RuleClassifier:
    return RuleClassifier(**{"n_estimators": 30, **settings})


@parametrize_with_checks([RuleClassifier(n_estimators=5)])
def test_it_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


def test_a_clone_has_the_settings_and_nothing_learned():
    table, names = blobs(60, 0)
    model = forest(alpha=0.2, reject=True, rejection=0.01).fit(table, names)
    again: Any = clone(model)
    assert again.get_params() == model.get_params()
    assert not hasattr(again, "model_")
    assert np.array_equal(again.fit(table, names).predict_proba(table), model.predict_proba(table))


def test_it_is_the_last_step_of_a_pipeline_over_a_table_and_over_recordings():
    table, names = blobs(90, 0)
    over_table = make_pipeline(StandardScaler(), forest()).fit(table, names)
    assert over_table.score(table, names) > 0.9
    steps = Pipeline([("observe", ObservableExtractor()), ("classify", forest())])
    groups = [recording.meta["network"] for recording in recordings()]
    steps.fit(list(recordings()), labels(), classify__groups=groups)
    assert steps.predict(list(recordings())).tolist() == labels()


def test_a_grid_search_chooses_among_its_settings():
    table, names = blobs(60, 0)
    search = GridSearchCV(RuleClassifier(), {"n_estimators": [2, 10], "alpha": [0.1]}, cv=2).fit(table, names)
    assert search.best_params_["n_estimators"] in (2, 10)
    assert search.predict(table).shape == names.shape


def test_fitted_to_a_list_of_recordings_it_takes_recordings_and_their_table():
    given = list(recordings())
    model = forest().fit(given, labels())
    assert model.classes_.tolist() == sorted(RULES)
    assert model.predict(given).tolist() == labels()
    table = ObservableExtractor().fit(given).transform(given)
    assert np.array_equal(model.predict_proba(table), model.predict_proba(given))
    # a table fitted later leaves no extractor of the recordings behind
    model.fit(table, labels())
    assert not hasattr(model, "extractor_")


def test_recordings_that_share_a_network_need_groups():
    given = list(recordings())
    with pytest.raises(ValueError, match=r"groups is missing .* share a network .*pass groups=\[\.\.\.\]"):
        forest().fit([*given, given[0]], [*labels(), labels()[0]])
    groups = [recording.meta["network"] for recording in (*given, given[0])]
    model = forest().fit([*given, given[0]], [*labels(), labels()[0]], groups=groups)
    assert len(model.out_of_fold_) == len(given) + 1
    nameless = [replace(each, meta={k: v for k, v in each.meta.items() if k != "network"}) for each in given]
    assert np.array_equal(forest().fit(nameless, labels()).classes_, model.classes_)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"groups": ["a", "b"]}, "groups has 2 entries for 12 rows; give one per row"),
        ({"out_of_fold": np.ones((12, 5))}, r"out_of_fold has shape \(12, 5\); \(12, 3\) fits 12 rows of 3 classes"),
    ],
)
def test_what_does_not_fit_the_rows_is_refused(settings, sentence):
    table, names = blobs(12, 0)
    assert len({*names}) == 3
    with pytest.raises(ValueError, match=sentence):
        forest().fit(table, names, **settings)


def test_one_class_is_none_to_tell_apart():
    with pytest.raises(ValueError, match="needs at least 2 classes; y has 1 class, 'adam'"):
        forest().fit(np.eye(4), ["adam"] * 4)


def test_probabilities_are_those_of_the_sorted_classes():
    table, names = blobs(90, 0)
    table[::7, 1] = np.nan
    model = forest().fit(table, names)
    assert model.classes_.tolist() == ["adam", "bcm", "oja"]
    chances = model.predict_proba(table)
    assert chances.shape == (90, 3)
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-12)
    assert (chances > 0).all()  # no vote is no proof
    assert np.array_equal(model.predict(table), model.classes_[chances.argmax(axis=1)])


def test_far_rows_are_unknown_where_it_may_reject():
    table, names = blobs(200, 0)
    far = np.full((3, 4), 40.0)
    assert forest(reject=True).fit(table, names).predict(far).tolist() == ["unknown"] * 3
    assert {*forest(reject=False).fit(table, names).predict(far)} <= {*names}
    numbers = np.unique(names, return_inverse=True)[1]
    assert {*forest(reject=True).fit(table, numbers).predict(far)} <= {0, 1, 2}


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_prediction_sets_cover_exchangeable_rows(alpha):
    # what is expected is 1 - alpha and more; its sampling error over 400 + 400 rows is below 2.2 %
    model = forest(alpha=alpha).fit(*blobs(400, 0))
    table, names = blobs(400, 1)
    inside = model.predict_set(table)
    covered = inside[np.arange(400), np.searchsorted(model.classes_, names)].mean()
    assert covered > 1 - alpha - 3 * 0.022
    assert inside.any(axis=1).all()
    assert np.array_equal(inside, model.predict_set(table, alpha))
    assert model.predict_set(table, 0.01).sum() > inside.sum()
    assert inside[np.arange(400), model.predict_proba(table).argmax(axis=1)].all()


def test_a_set_that_too_few_rows_allow_to_narrow_holds_every_class():
    table, names = blobs(12, 0)
    assert forest().fit(table, names).predict_set(table, 0.01).all()


def test_no_group_is_both_trained_and_calibrated_on():
    # labels are coin tosses; three copies of each row tell its label to whoever has seen one of them
    generator = np.random.default_rng(0)
    table, names = generator.normal(size=(60, 4)), generator.choice(["adam", "oja"], size=60)
    copied, copies = np.repeat(table, 3, axis=0), np.repeat(names, 3)
    groups = np.repeat(np.arange(60), 3)
    right = {}
    for given, of in (("apart", None), ("together", groups)):
        model = forest().fit(copied, copies, groups=of)
        right[given] = np.mean(model.classes_[model.out_of_fold_.argmax(axis=1)] == copies)
    assert right["apart"] > 0.95
    # a coin's sampling error over 60 rows is 6.5 %
    assert right["together"] < 0.5 + 3 * 0.065


def test_the_rows_of_a_group_are_foretold_by_one_model_that_saw_none_of_them():
    class Memory(KNeighborsClassifier):
        """Remembers every row that it was fitted to."""

        seen: ClassVar[list[frozenset[float]]] = []
        asked: ClassVar[list[frozenset[float]]] = []

        def fit(self, X, y):
            Memory.seen.append(frozenset(X[:, 0].tolist()))
            return super().fit(X, y)

        def predict_proba(self, X):
            Memory.asked.append(frozenset(X[:, 0].tolist()))
            return super().predict_proba(X)

    groups = np.repeat(np.arange(20), 3)
    table = np.column_stack((groups, np.zeros(60)))
    RuleClassifier(Memory(1)).fit(table, np.array(["adam", "oja"])[groups % 2], groups=groups)
    assert len(Memory.asked) == FOLDS
    assert frozenset().union(*Memory.asked) == frozenset(range(20))
    for seen, asked in zip(Memory.seen, Memory.asked, strict=False):
        assert not seen & asked
    assert Memory.seen[-1] == frozenset(range(20))  # what answers has seen all


def test_a_class_of_one_group_is_calibrated_on_what_it_was_grown_from():
    table, names = blobs(30, 0)
    names[:] = "adam"
    names[:3] = "oja"
    groups = np.maximum(np.arange(30), 2)
    model = forest().fit(table, names, groups=groups)
    assert np.array_equal(model.out_of_fold_, model.model_.predict_proba(table.astype(np.float32)))


def test_the_out_of_fold_probabilities_of_an_earlier_fit_give_the_same_model():
    table, names = blobs(90, 0)
    first = forest(reject=True).fit(table, names)
    again = forest(reject=True).fit(table, names, out_of_fold=first.out_of_fold_)
    other, _ = blobs(40, 1)
    assert again.calibrated_.temperature == first.calibrated_.temperature
    for ask in ("predict_proba", "predict_set", "novelty_p", "predict"):
        assert np.array_equal(getattr(first, ask)(other), getattr(again, ask)(other)), ask


def test_novelty_is_uniform_or_more_for_rows_like_those_known_and_small_for_far_ones():
    model = forest().fit(*blobs(400, 0))
    p = np.sort(model.novelty_p(blobs(400, 1)[0]))
    # Dvoretzky-Kiefer-Wolfowitz: both samples of 400 stay within .096 of their law in 99 cases of 100 each
    above = np.arange(1, 401) / 400 - p
    assert above.max() < 2 * 0.096
    assert 0.4 < p.mean() < 0.75
    assert model.novelty_p(np.full((5, 4), 50.0)) == pytest.approx(1 / 401)
    score = model.novelty_score(np.full((2, 4), [[10.0], [50.0]]))
    assert score[0] > model.calibrated_.novelty_scores.max()


def test_missing_observables_alone_are_not_novel():
    table, names = blobs(300, 0)
    generator = np.random.default_rng(2)
    table[generator.random(table.shape) < 0.3] = np.nan
    model = forest().fit(table, names)
    other, _ = blobs(100, 1)
    other[generator.random(other.shape) < 0.3] = np.nan
    assert model.novelty_p(other).mean() > 0.4


def test_the_temperature_calms_votes_that_are_too_sure():
    # copies of the same few observables count as evidence again and again for naive Bayes
    def copied(rows, seed):
        table, names = blobs(rows, seed, spread=2.0)
        return np.tile(table, (1, 12)), names

    model = RuleClassifier(GaussianNB()).fit(*copied(600, 0))
    table, names = copied(600, 1)
    raw = model.model_.predict_proba(table.astype(np.float32))
    assert model.calibrated_.temperature > 1.5
    assert ece(model.predict_proba(table), names, model.classes_) < 0.5 * ece(raw, names, model.classes_)


def test_confidence_rises_as_scikit_learns_isotonic_regression_does():
    generator = np.random.default_rng(0)
    votes = np.round(generator.dirichlet((1.0, 1.0, 1.0), size=500), 2) + 1e-16 * generator.random((500, 3))
    codes = np.where(generator.random(500) < votes.max(axis=1), votes.argmax(axis=1), 0)
    theirs = IsotonicRegression(y_min=0.0, y_max=1 - 1 / 502, out_of_bounds="clip")
    theirs.fit(votes.max(axis=1), votes.argmax(axis=1) == codes)
    asked = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(confidence_of(votes, codes)(asked), theirs.predict(asked), rtol=0, atol=1e-12)


def test_tempering_keeps_the_order_and_a_high_temperature_levels():
    votes = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    for temperature in (0.2, 1.0, 5.0):
        made = tempered(votes, temperature)
        np.testing.assert_allclose(made.sum(axis=1), 1)
        assert np.array_equal(np.argsort(made[0]), np.argsort(votes[0]))
    np.testing.assert_allclose(tempered(votes, 1e6), 1 / 3, atol=1e-5)
    np.testing.assert_allclose(tempered(votes, 1.0), votes, atol=1.1e-3)  # the floor


def test_the_temperature_of_votes_that_were_sharpened_is_how_much():
    generator = np.random.default_rng(0)
    true = generator.dirichlet(np.ones(3), size=20_000)
    codes = np.array([generator.choice(3, p=row) for row in true])
    sharp = true**2 / (true**2).sum(axis=1, keepdims=True)
    assert temperature_of(true, codes) == pytest.approx(1, abs=0.05)
    assert temperature_of(sharp, codes) == pytest.approx(2, abs=0.1)


def test_p_values_by_hand():
    known = np.array([3.0, 1.0, 2.0, 2.0])
    # (1 + how many of the four are as large) / 5
    assert p_values(np.array([0.0, 1.0, 2.0, 2.5, 3.0, 4.0]), known) * 5 == pytest.approx([5, 5, 4, 2, 2, 1])
    assert p_values(np.array([7.0]), np.zeros(0)) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("alpha", "rank"), [(0.1, 9), (0.5, 5), (0.55, 5), (0.2, 8), (0.9, 1), (0.05, None), (0.01, None)]
)
def test_the_threshold_is_the_conformal_rank(alpha, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 10.0))  # 1 to 9: a score is its rank
    assert threshold_of(scores, alpha) == (float("inf") if rank is None else rank)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 2.0])
def test_an_alpha_that_is_no_share_is_refused(alpha):
    with pytest.raises(ValueError, match=f"alpha = {alpha} must lie between 0 and 1"):
        threshold_of(np.arange(9.0), alpha)


def test_the_calibration_error_by_hand():
    classes = np.array(["adam", "oja"])
    chances = np.array([[0.9, 0.1], [0.95, 0.05], [0.35, 0.65], [1.0, 0.0]])
    # the last bin: mean confidence .95, 2 of 3 right; the seventh: .65 and right
    truth = np.array(["adam", "oja", "oja", "adam"])
    assert ece(chances, truth, classes) == pytest.approx(0.75 * (0.95 - 2 / 3) + 0.25 * 0.35)
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert ece(sure, classes, classes) == 0
    assert ece(sure, classes[::-1], classes) == 1


def test_auroc_counts_pairs_and_ties_half():
    score, positive = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])
    assert auroc(score, positive) == pytest.approx(3.5 / 4)
    assert auroc(-score, positive) == pytest.approx(0.5 / 4)


def test_the_interval_is_over_groups_and_not_over_their_rows():
    generator = np.random.default_rng(0)
    right = generator.random(200) < 0.8
    mean, low, high = grouped_interval(right, np.arange(200))
    assert mean == right.mean()
    # the normal approximation of a binomial share
    wide = 1.96 * np.sqrt(mean * (1 - mean) / 200)
    assert (mean - low, high - mean) == (pytest.approx(wide, rel=0.2), pytest.approx(wide, rel=0.2))
    many = grouped_interval(np.repeat(right, 50), np.repeat(np.arange(200), 50))
    assert many == pytest.approx((mean, low, high), abs=1e-12)
    assert grouped_interval(right, np.zeros(200)) == pytest.approx((mean, mean, mean))
    assert np.isnan(grouped_interval(np.zeros(0), np.zeros(0))).all()
    assert grouped_interval(right, np.arange(200), seed=1)[1:] != (low, high)


def test_every_rule_is_left_out_once_and_never_trained_on():
    names = np.array(["adam", "oja", "bcm", "oja", "adam", "bcm"])
    splitter = LeaveOneRuleOut()
    parts = list(splitter.split(np.zeros((6, 1)), names))
    assert splitter.get_n_splits(y=names) == len(parts) == 3
    for (train, test), left in zip(parts, ("adam", "bcm", "oja"), strict=True):
        assert {*names[test]} == {left}
        assert left not in names[train]
        assert sorted([*train, *test]) == list(range(6))
    with pytest.raises(ValueError, match="y has 2 classes; at least 3"):
        next(splitter.split(None, names[:2]))
    with pytest.raises(ValueError, match="y is missing"):
        splitter.get_n_splits()


def test_every_architecture_is_left_out_once():
    groups = np.array(["24", "24-24", "24", "32"])
    parts = list(LeaveOneArchitectureOut().split(np.zeros((4, 1)), groups=groups))
    assert [{*groups[test]} for _, test in parts] == [{"24"}, {"24-24"}, {"32"}]
    assert all(not {*groups[train]} & {*groups[test]} for train, test in parts)


def test_the_extractors_columns_are_the_observables_in_alphabetical_order():
    given = list(recordings())
    extractor = ObservableExtractor().fit(given)
    names = extractor.get_feature_names_out().tolist()
    assert names == sorted(names)
    table = extractor.transform(given)
    assert table.shape == (len(given), len(names))
    for recording, row in zip(given, table, strict=True):
        seen = observables(recording)
        np.testing.assert_array_equal(row, np.clip([seen.get(name, np.nan) for name in names], -LARGEST, LARGEST))
    assert np.nanmax(np.abs(table)) <= LARGEST


def test_the_extractor_keeps_to_its_groups():
    given = list(recordings(2))
    copied: Any = clone(ObservableExtractor(("published_weights",)))
    extractor = copied.fit(given)
    names = extractor.get_feature_names_out()
    assert len(names)
    assert all(name.startswith("published_weights.") for name in names)
    with pytest.raises(ValueError, match=r"groups = 'whit'.* did you mean 'white'"):
        ObservableExtractor(("whit",)).fit(given)


def test_what_a_recording_does_not_allow_is_missing():
    given = list(recordings(2))
    extractor = ObservableExtractor().fit(given)
    still = replace(given[0], input=None, target=None, activity={}, meta={**given[0].meta, "probes": 0})
    row = dict(zip(extractor.get_feature_names_out(), extractor.transform([still])[0], strict=True))
    assert all(np.isfinite(value) == name.startswith("published_weights") for name, value in row.items())
    # columns are those of the fit, whatever else a recording has
    narrow = ObservableExtractor().fit([still])
    assert narrow.transform(given).shape == (len(given), len(narrow.get_feature_names_out()))


def test_the_extractor_refuses_what_are_no_recordings_and_what_shows_nothing():
    extractor = ObservableExtractor()
    with pytest.raises(ValueError, match="takes a list of Recordings; ndarray was given"):
        extractor.fit(np.eye(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="not fitted"):
        extractor.transform(list(recordings(2)))
    still = replace(recordings(2)[0], input=None, target=None)
    with pytest.raises(RecordingError, match="nothing can be computed from this recording"):
        ObservableExtractor(("white",)).fit([still])
