"""Equations: the planted rule is found with its coefficients, and what the data leave open is never told as sure."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from metarule.identification.dictionary import columns, normal, normal_of, spelled, taylor, term, vocabulary
from metarule.identification.equation import equation, read
from metarule.identification.feedback_fit import feedback
from metarule.identification.record import record
from metarule.identification.recording import Recording, RecordingError
from metarule.identification.regressor import RuleRegressor
from metarule.identification.rivals import rivals
from metarule.identification.shooting import Shooting, Trajectory, trajectories
from metarule.identification.sparse import select
from metarule.identification.trajectory import fit
from metarule.identification.updates import single_updates
from metarule.tasks.digits import Digits

EDGE = "input->output"
OJA = {"post_pre": 1.0, "post2_weight": -1.0}
RULES = {
    "hebb": {"post_pre": 1.0},
    "oja": OJA,
    "covariance": {"post_pre": 1.0, "pre": -0.5, "post": -0.2, "constant": 0.1},
    "bcm": {"post2_pre": 1.0, "post_pre": -0.6},
    "anti-hebb": {"post_pre": -1.0, "weight": -0.5},
    "instar": {"post_pre": 1.0, "post_weight": -1.0},
    "delta": {"error_pre": 1.0},
    "gated delta": {"post_error_pre": 1.0},
    "delta with decay": {"error_pre": 1.0, "weight": -0.1},
}
RATE = 0.1


def sigmoid(drive):
    return 1 / (1 + np.exp(-drive))


def layer(rule, inputs, seed=0, units=6, start=None):
    """A sigmoid layer that learns by the rule written out in NumPy, apart from the code under test."""
    generator = np.random.default_rng(seed)
    width = inputs.shape[2]
    weight = generator.normal(size=(units, width)) / np.sqrt(width) if start is None else start
    teacher = generator.normal(size=(units, width))
    weights, rates, targets = [], [], []
    for pre in inputs:
        post, target = sigmoid(pre @ weight.T), sigmoid(pre @ teacher.T)
        weights.append(weight)
        rates.append(post)
        targets.append(target)
        change = 0
        for name, value in rule.items():
            powers = dict(term(name).parts[0][1])
            left = post ** powers.get("post", 0) * (target - post) ** powers.get("error", 0)
            change = change + value * np.einsum("bi,bj->ij", left, pre ** powers.get("pre", 0)) / len(pre) * (
                weight ** powers.get("weight", 0)
            )
        weight = weight + RATE * change
    return Recording(
        np.arange(len(inputs), dtype=float),
        {EDGE: np.array(weights)},
        activity={"output": np.array(rates)},
        input=inputs,
        target=np.array(targets),
        meta={"output": "sigmoid"},
    )


def gaussian(steps=25, events=4, width=8, seed=1):
    return 0.2 + np.random.default_rng(seed).normal(size=(steps, events, width))


def binary(steps=30, events=4, width=8, seed=1):
    return (np.random.default_rng(seed).random((steps, events, width)) < 0.4).astype(float)


def only(recording, **settings):
    (found,) = equation(recording, **settings).edges
    return found


# what is planted is found


@pytest.mark.parametrize("name", RULES)
def test_a_planted_rule_is_found_with_its_coefficients(name):
    found = only(layer(RULES[name], gaussian()), n_boot=10)
    coefficients = found.selection.coefficients
    assert found.found
    assert {key: value / RATE for key, value in coefficients.items()} == pytest.approx(RULES[name], abs=1e-6)
    assert all(found.selection.frequencies[key] == 1 for key in coefficients)
    assert found.selection.r2_held_out > 1 - 1e-9


def test_an_equation_is_written_as_people_write_it_and_goes_to_json():
    found = equation(layer(OJA, gaussian()), n_boot=5)
    assert found.text == "dW[input->output] = 0.100 post pre - 0.100 post^2 weight"
    table = json.loads(json.dumps(found.table(), allow_nan=False))
    edge = table["edges"][EDGE]
    assert [each["name"] for each in edge["terms"]] == ["post_pre", "post2_weight"]
    assert edge["terms"][0]["low"] <= edge["terms"][0]["coefficient"] <= edge["terms"][0]["high"]
    assert (edge["found"], edge["feedback"], edge["local_share"]) == (True, None, pytest.approx(1))
    assert found.table() == equation(layer(OJA, gaussian()), n_boot=5).table()


def test_noise_on_weights_leaves_the_support_and_intervals_that_hold_the_truth():
    inside = []
    for seed in range(4):
        recording = layer(OJA, gaussian(40, seed=seed), seed)
        weights = recording.weights[EDGE]
        step = np.sqrt(np.mean(np.diff(weights, axis=0) ** 2))
        noisy = weights + 0.1 * step * np.random.default_rng(seed).normal(size=weights.shape)
        found = only(replace(recording, weights={EDGE: noisy}), n_boot=30)
        selection = found.selection
        assert found.text.startswith("dW[input->output] ~ 0.")
        assert " of held-out changes" in found.text
        assert {*selection.support} == {*OJA}
        inside += [selection.low[key] <= RATE * value <= selection.high[key] for key, value in OJA.items()]
        assert all(selection.low[key] < selection.high[key] for key in OJA)
    assert sum(inside) >= 6  # of 8, at 95 % each


def test_backpropagation_is_an_error_times_pre_and_hardly_local():
    found = equation(record("backprop", Digits(), (12, 8), 15, 8), n_boot=5)
    assert [edge.text for edge in found.edges] == [
        f"dW[{edge}] = 0.0500 error pre" for edge in ("input->hidden1", "hidden1->hidden2", "hidden2->output")
    ]
    assert all(edge.local_share < 0.3 and edge.feedback is None for edge in found.edges)


@pytest.mark.parametrize(
    ("name", "source"),
    [("feedback_alignment", "(target - output)"), ("direct_random_target_projection", "target")],
)
def test_feedback_is_fitted_where_backpropagated_errors_explain_nothing(name, source):
    hidden, readout = equation(record(name, Digits(), (16,), 20, 16), n_boot=5).edges
    assert hidden.feedback is not None
    assert hidden.feedback.source == source
    assert hidden.feedback.on_weight is not None
    assert abs(hidden.feedback.on_weight) < 0.4
    assert hidden.selection.support == ("error_pre",)
    assert hidden.selection.r2_held_out > 0.999
    assert f"error = slope * F {source}" in hidden.text
    assert (readout.feedback, readout.selection.support) == (None, ("error_pre",))


def taught_by(matrix, steps=15, events=16, seed=0):
    """A tanh-softmax network of 64-32-10 that learns with errors through a matrix of its own; W^T where None."""
    generator = np.random.default_rng(seed)
    first, last = generator.normal(size=(32, 64)) / 8, generator.normal(size=(10, 32)) / 6
    weights, inputs, targets = [], generator.normal(size=(steps, events, 64)), []
    for pre in inputs:
        hidden = np.tanh(pre @ first.T)
        raised = np.exp(hidden @ last.T)
        target = np.eye(10)[generator.integers(10, size=events)]
        error = target - raised / raised.sum(1, keepdims=True)
        weights.append((first, last))
        targets.append(target)
        back = error @ (last.T if matrix is None else matrix).T * (1 - hidden**2)
        first, last = first + 0.1 * back.T @ pre / events, last + 0.1 * error.T @ hidden / events
    made = [np.array(each) for each in zip(*weights, strict=True)]
    return Recording(
        np.arange(steps, dtype=float),
        {"input->hidden1": made[0], "hidden1->output": made[1]},
        input=inputs,
        target=np.array(targets),
        meta={"nonlinearity": "tanh", "output": "softmax"},
    )


def test_fitted_feedback_is_the_true_one_where_the_error_can_show_it():
    truth = np.random.default_rng(5).normal(size=(32, 10))
    updates = single_updates(taught_by(truth))
    assert updates.error is not None
    fitted = feedback(updates.layers[0], {"error": updates.error}, updates.layers[1])
    assert fitted is not None
    assert fitted.unseen == 1  # a softmax output's errors sum to 0
    assert fitted.correlation(truth, updates.error) > 0.9999
    assert np.corrcoef(fitted.matrix.ravel(), (0.1 * truth).ravel())[0, 1] > 0.9
    assert fitted.matrix == pytest.approx(0.1 * (truth - truth.mean(1, keepdims=True)), abs=1e-4)


def test_errors_through_the_transposed_weights_need_no_feedback():
    hidden, _ = equation(taught_by(None), n_boot=5).edges
    assert (hidden.text, hidden.feedback) == ("dW[input->hidden1] = 0.100 error pre", None)


# what cannot be said is not said


@pytest.mark.parametrize("name", ["adam", "momentum", "node_perturbation", "weight_perturbation"])
def test_what_the_vocabulary_lacks_is_not_told(name):
    for edge in equation(record(name, Digits(), (12,), 15, 8), n_boot=5).edges:
        assert not edge.found
        assert "no sparse equation found in this vocabulary (held-out R2" in edge.text
        assert edge.selection.r2_held_out < 0.9


@pytest.mark.parametrize("rule", [{"post_pre": 1.0}, {"post_pre2": 1.0}, OJA])
def test_inputs_of_0_and_1_leave_a_combination_and_no_equation(rule):
    found = only(layer(rule, binary()), n_boot=5)
    assert found.selection.r2_held_out > 0.999
    assert not found.found
    (direction,) = (each for each in found.selection.null_directions if "pre2" in each)
    assert direction == pytest.approx({"pre2": 1.0, "pre": -1.0})
    assert "cannot be determined" in found.text
    assert "0.1 = [post pre] + [post pre^2] is" in found.text


def test_the_combination_that_is_determined_has_the_right_weights():
    found = only(layer({"post_pre": 0.73, "post_pre2": 0.4}, 0.75 * binary()), n_boot=5)
    assert found.selection.undetermined == ("post_pre",)
    assert found.selection.combinations["post_pre"] == pytest.approx({"post_pre": 1, "post_pre2": 0.75})
    assert found.selection.coefficients["post_pre"] / RATE == pytest.approx(0.73 + 0.75 * 0.4)


def test_a_null_direction_changes_no_prediction():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(60, 5)) * [1, 100, 1e-3, 1, 1]
    table[:, 3] = 2 * table[:, 0] - 0.01 * table[:, 1]
    table[:, 4] = 0
    found = select(normal_of("abcde", table, table[:, 0], np.arange(60) % 10), n_boot=0)
    assert len(found.null_directions) == 2
    for direction in found.null_directions:
        theta = np.array([direction.get(name, 0.0) for name in "abcde"])
        assert np.abs(table @ theta).max() < 1e-9
    assert found.condition_number > 1e10


def test_pure_noise_has_no_equation():
    generator = np.random.default_rng(0)
    table, target = generator.normal(size=(400, 20)), generator.normal(size=400)
    found = select(normal_of([f"x{k}" for k in range(20)], table, target, np.arange(400) % 20))
    assert found.support == ()
    assert found.r2_held_out < 0.05


def test_selection_does_not_depend_on_the_units_of_columns():
    generator = np.random.default_rng(1)
    table = generator.normal(size=(300, 8))
    target = table[:, 0] + 0.02 * table[:, 3] + 0.05 * generator.normal(size=300)
    scale = 10.0 ** np.arange(-8, 8, 2)
    names, parts = [f"x{k}" for k in range(8)], np.arange(300) % 20
    one, other = (select(normal_of(names, each, target, parts)) for each in (table, table * scale))
    assert one.support == other.support == ("x0", "x3")
    assert other.coefficients["x3"] * scale[3] == pytest.approx(one.coefficients["x3"])
    assert one.condition_number == pytest.approx(other.condition_number, rel=1e-6)
    with pytest.raises(ValueError, match="criterion = 'eBIC' is not one of ebic, bic, aic"):
        select(normal_of(names, table, target, parts), "eBIC")


def test_rules_that_the_data_make_equal_are_ambiguous_until_the_proposed_experiment():
    one, other = {"post_pre": 1.0}, {"post_pre2": 1.0}
    for truth, rival in ((one, other), (other, one)):
        recording = layer(truth, binary())
        (pair,) = rivals(recording, rules={"truth": truth, "rival": rival})
        assert pair.difference < 1e-6
        assert pair.experiment is not None
        assert "truth and rival both explain 100.0 % of the changes" in pair.text
        again = layer(truth, pair.experiment.inputs.reshape(16, 4, -1), start=recording.weights[EDGE][-1])
        assert rivals(again, rules={"truth": truth, "rival": rival}) == ()
        assert only(again, n_boot=5).selection.support == tuple(truth)
    (found, *_) = rivals(layer(one, binary()))
    assert {*found.first, *found.second} == {"post_pre", "post_pre2"}
    assert rivals(layer(one, gaussian())) == ()


def test_rules_that_are_the_same_everywhere_have_no_experiment():
    (pair,) = rivals(layer(OJA, gaussian()), rules={"a": OJA, "b": {name: 2 * value for name, value in OJA.items()}})
    assert pair.experiment is None
    assert "no inputs that were tried would separate them" in pair.text
    json.dumps(pair.table())


# through the dynamics


def active(seed, noise=0.0):
    """A recording of activity, and the weights before its first update."""
    recording = layer(OJA, np.random.default_rng(seed).normal(size=(36, 1, 8)), seed)
    rates = recording.activity["output"]
    rates = rates + noise * rates.std() * np.random.default_rng(seed).normal(size=rates.shape)
    meta = {**recording.meta, "populations": ["input", "output"]}
    alone = replace(recording, weights={}, activity={"output": rates}, target=None, meta=meta)
    return alone, recording.weights[EDGE][0]


def coarse(seed, stride=10):
    """A recording of weights at every so many updates, and of all inputs."""
    recording = layer(OJA, np.random.default_rng(seed).normal(size=(41, 1, 8)), seed)
    weights = recording.weights[EDGE].copy()
    weights[np.arange(len(weights)) % stride > 0] = np.nan
    return replace(recording, weights={EDGE: weights}, activity={}, target=None)


NAMES = [each.name for each in taylor(post=2, pre=2, weight=2)]


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_oja_is_found_from_activity_alone(noise):
    seen = [each for seed in range(3) for each in trajectories(*active(seed, noise))]
    selection, local = fit(seen, taylor(post=2, pre=2, weight=2), RATE, n_boot=10)
    assert selection.coefficients == pytest.approx(OJA, abs=0.05 if noise else 1e-6)
    assert local == selection.r2_held_out > 0.9
    recording, first = active(0, noise)
    alone = only(recording, terms=NAMES, n_boot=5, first=first)
    assert (alone.method, {*alone.selection.support}) == ("trajectory", {*OJA})
    with pytest.raises(RecordingError, match=r"the first weights have shape .2, 2., the layer has .6, 8."):
        equation(recording, first=np.zeros((2, 2)))


def test_oja_is_found_from_weights_at_every_tenth_update():
    found = only(coarse(0), terms=NAMES, n_boot=10)
    assert found.method == "trajectory"
    assert found.text == "dW[input->output] = 0.100 post pre - 0.100 post^2 weight"
    assert {key: value / RATE for key, value in found.selection.coefficients.items()} == pytest.approx(OJA, abs=1e-6)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "tanh"])
def test_sensitivities_are_the_derivatives_of_what_is_observed(kind):
    generator = np.random.default_rng(0)
    stretch = Trajectory(
        generator.normal(size=(3, 4)),
        generator.normal(size=(6, 2, 4)),
        generator.random((6, 2, 3)),
        generator.normal(size=(6, 3, 4)),
        generator.random((6, 2, 3)),
        generator.normal(size=(6, 3)),
        kind,
    )
    terms = [term(name) for name in ("post_pre", "post2_weight", "error_pre", "post_error_weight", "weight2", "pre2")]
    shooting = Shooting.of([stretch], terms, 0.1, 8)
    theta = generator.normal(size=len(terms))
    slope = -2 * shooting.evaluate(theta, list(range(len(terms)))).cross.sum(0)
    for k in range(len(terms)):
        step = np.zeros(len(terms))
        step[k] = 1e-5
        ends = [shooting.evaluate(theta + sign * step, []).energy.sum() for sign in (1, -1)]
        assert slope[k] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-7)


def test_coarse_snapshots_without_the_inputs_between_are_refused():
    recording = coarse(0)
    assert recording.input is not None
    inputs = recording.input.copy()
    inputs[3] = np.nan
    with pytest.raises(RecordingError, match="/input is missing at some updates; between snapshots"):
        equation(replace(recording, input=inputs))
    weights = recording.weights[EDGE].copy()
    weights[:, 0, 0] = np.nan
    with pytest.raises(RecordingError, match="no snapshot shows all weights"):
        equation(replace(recording, weights={EDGE: weights}))


# recordings as they come


def test_moments_are_those_of_the_design_matrix():
    recording = layer(OJA, gaussian())
    one, error = read(recording)
    terms = vocabulary(True)
    design = np.concatenate(
        [
            columns(terms, one.post[u], one.pre[u], one.weight[u], None if error is None else error[u]).reshape(
                len(terms), -1
            )
            for u in range(len(one.change))
        ],
        axis=1,
    )
    gram, cross, energy = normal(one, terms, error).total()
    assert gram == pytest.approx(design @ design.T)
    assert cross == pytest.approx(design @ one.change.ravel())
    assert energy == pytest.approx((one.change**2).sum())


def test_terms_have_the_names_of_the_polynomial_rule():
    for each in vocabulary(True):
        assert term(each.name) == each
    assert (spelled("post2_weight"), spelled("constant"), spelled("x2")) == ("post^2 weight", "1", "x2")
    with pytest.raises(ValueError, match=r"term 'pots_pre' = 'pots' is not one of .* did you mean 'post'"):
        term("pots_pre")


def test_unseen_units_snapshots_and_targets_change_nothing_that_was_seen():
    recording = record("oja", Digits(), (12,), 15, 8)
    first, last = (recording.weights[edge].copy() for edge in ("input->hidden1", "hidden1->output"))
    rates = recording.activity["hidden1"].copy()
    first[:, 4:], last[:, :, 4:], rates[:, :, 4:] = np.nan, np.nan, np.nan
    first[5] = np.nan
    weights = {"input->hidden1": first, "hidden1->output": last}
    activity = {**recording.activity, "hidden1": rates}
    found = equation(replace(recording, weights=weights, activity=activity, target=None), n_boot=5)
    assert [edge.text for edge in found.edges] == [
        f"dW[{edge}] = 0.0500 post pre - 0.0500 post^2 weight" for edge in weights
    ]


def test_one_edge_is_the_same_as_among_all_and_an_unknown_one_is_refused():
    recording = record("backprop", Digits(), (12, 8), 8, 8)
    every = {edge.edge: edge.table() for edge in equation(recording, n_boot=5).edges}
    assert only(recording, edge="hidden1->hidden2", n_boot=5).table() == every["hidden1->hidden2"]
    with pytest.raises(ValueError, match="edge = 'hidden1->hiden2' is not one of"):
        equation(recording, "hidden1->hiden2")


def test_a_large_network_is_read_in_seconds():
    generator = np.random.default_rng(0)
    sizes, events, probes = (784, 128, 10), 16, 64
    weights = [generator.normal(size=(post, pre)) / np.sqrt(pre) for pre, post in itertools.pairwise(sizes)]
    shots = []
    for _ in range(21):
        x, y = generator.random((probes + events, 784)), np.eye(10)[generator.integers(10, size=probes + events)]
        hidden = np.tanh(x @ weights[0].T)
        raised = np.exp(hidden @ weights[1].T)
        error = (y - raised / raised.sum(1, keepdims=True))[probes:]
        back = error @ weights[1] * (1 - hidden[probes:] ** 2)
        shots.append((*weights, x, y))
        weights = [
            weights[0] + 1e-3 * back.T @ x[probes:] / events,
            weights[1] + 1e-3 * error.T @ hidden[probes:] / events,
        ]
    first, last, x, y = (np.array(each) for each in zip(*shots, strict=True))
    bursts = np.array([burst * 40 + place for burst in range(7) for place in range(3)], dtype=float)
    given = {"input->hidden1": first, "hidden1->output": last}
    recording = Recording(bursts, given, input=x, target=y, meta={"nonlinearity": "tanh", "probes": probes})
    start = time.perf_counter()
    found = equation(recording)
    assert time.perf_counter() - start < 40
    assert [edge.selection.coefficients for edge in found.edges] == [{"error_pre": pytest.approx(1e-3)}] * 2


# the estimator


def test_the_regressor_is_a_scikit_learn_estimator():
    with pytest.warns():  # checks that need packages that are not installed are skipped
        failed = [
            check for check in check_estimator(RuleRegressor(n_boot=3), on_fail=None) if check["status"] == "failed"
        ]
    assert failed == []


def test_the_regressor_finds_a_rule_that_recordings_share():
    recordings = [layer(OJA, gaussian(seed=seed), seed) for seed in range(4)]
    regressor = RuleRegressor(n_boot=5).fit(recordings[:3])
    assert regressor.equation() == "0.100 post pre - 0.100 post^2 weight"
    assert regressor.score(recordings[3:]) == pytest.approx(1)
    assert regressor.predict(recordings[3:]).shape == (24 * 6 * 8,)
    assert regressor.intervals_.shape == (len(regressor.terms_), 2)
    assert regressor.coef_[regressor.terms_.index("post_pre")] == pytest.approx(RATE)
    assert regressor.identifiability()["null_directions"] == []
    assert regressor.score([layer({"post_pre": 1.0}, gaussian(), 3)]) < 0.99
    assert cross_val_score(clone(regressor), recordings, cv=2) == pytest.approx([1, 1])


def test_the_regressor_fits_through_gaps():
    regressor = RuleRegressor(terms=NAMES, n_boot=5).fit([coarse(seed) for seed in range(2)])
    assert regressor.equation() == "0.100 post pre - 0.100 post^2 weight"


def test_the_regressor_works_on_tables_in_pipelines_and_searches():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(200, 4))
    target = table @ [1.0, 0, -2, 0] + 0.01 * generator.normal(size=200)
    names = ("post_pre", "post", "weight", "pre")
    search = GridSearchCV(make_pipeline(RuleRegressor(names, n_boot=5)), {"ruleregressor__criterion": ["ebic", "aic"]})
    best = search.fit(table, target).best_estimator_[-1]
    assert best.coef_ == pytest.approx([1, 0, -2, 0], abs=0.05)
    assert best.score(table, target) > 0.999
    assert best.identifiability()["rivals"] == []
    doubled = RuleRegressor(n_boot=5).fit(np.hstack((table, table[:, :1])), target)
    assert doubled.identifiability()["undetermined"] == {"x0": {"x0": 1.0, "x4": pytest.approx(1)}}
    with pytest.raises(ValueError, match="terms names 2 columns, X has 4"):
        RuleRegressor(("post", "pre")).fit(table, target)
