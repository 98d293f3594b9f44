"""Meta-gradients: every estimator follows the gradient it says, truncation costs what theory says, chaos is seen."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from building import address, assert_states_close, fitting_learner, random_theta, train
from test_inner import LEARNERS, PLUGINS, every_learner, rows

from metarule import bench_memory
from metarule.collect import load_file
from metarule.contracts.outer import check_outer
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.inner import Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.outer.descent import Descent
from metarule.outer.estimators import Differences, Exact, Smoothed
from metarule.outer.meta_gradient import ESTIMATORS, MetaGradient
from metarule.params import Param
from metarule.rng import noise_for
from metarule.rules.terms import Terms
from metarule.synapses.sgd import Sgd
from metarule.tasks.few_shot import FewShot

analysis = load_file(Path(__file__).parent.parent / "analysis" / "gradient_estimators.py")

PARAMS = (Param("a"), Param("b", scale=0.1, low=-0.5), Param("rate", start=0.1, low=1e-3, high=10.0, log=True))
EVERYTHING = frozenset({"loss", "grad", "carry"})
RULE = Terms(("error_pre", "subspace_oja"), start={"error_pre": 0.3, "subspace_oja": 0.1})
LEARNER = fitting_learner(FeedbackAlignment(), rule=RULE)
WINDOW, WINDOWS = 3, 4
ENDS = tuple(WINDOW * (place + 1) for place in range(WINDOWS))


def exact_slope(learner, theta, steps, **settings):
    """The gradient of one candidate, by reverse mode."""
    outcome = train(learner, theta[None], steps, wants=EVERYTHING, **settings)
    assert outcome.grad is not None
    return outcome.grad[0]


def made(estimator, **settings):
    """A loop and a number of candidates that it takes with P = 3."""
    return MetaGradient(estimator=estimator, **settings), {"differences": 6, "es": 8, "pes": 8}.get(estimator, 1)


@every_learner
def test_forward_mode_equals_reverse_mode(learner):
    settings = {"runs": Runs((3, 1, 4, 2), (7, 9), seed=5), "score_at": (4, 8)}
    theta = rows(learner)
    backwards = train(learner, theta, 8, wants=EVERYTHING, **settings)
    forwards = train(learner, theta, 8, wants=EVERYTHING | {"forward"}, **settings)
    torch.testing.assert_close(forwards.grad, backwards.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(forwards.loss, backwards.loss, rtol=0, atol=0)
    assert forwards.carry is not None
    assert backwards.carry is not None
    assert_states_close(forwards.carry, backwards.carry, 0)


@pytest.mark.parametrize("learner", PLUGINS.values(), ids=PLUGINS.keys())
def test_forward_mode_goes_through_every_plug_in(learner):
    learner = replace(learner, fixed={param.name: param.start for param in learner.params[3:]})
    theta = random_theta(learner.params, address("forward", runs=2))
    backwards = train(learner, theta, 3, wants=EVERYTHING)
    forwards = train(learner, theta, 3, wants=EVERYTHING | {"forward"})
    torch.testing.assert_close(forwards.grad, backwards.grad, rtol=1e-9, atol=1e-12)


def test_forward_mode_of_an_objective_that_is_better_when_larger_has_its_sign():
    theta = rows(LEARNERS["terms"])
    backwards, forwards = (
        train(LEARNERS["terms"], theta, 4, objectives=("closeness",), wants=wants)
        for wants in (EVERYTHING, EVERYTHING | {"forward"})
    )
    torch.testing.assert_close(forwards.grad, backwards.grad, rtol=1e-9, atol=1e-12)


@every_learner
def test_differences_agree_with_reverse_mode_on_smooth_runs(learner):
    centre = Descent(learner.params)
    count = len(learner.params)
    estimator = Differences(1e-2)
    z = estimator.rows(centre, 2 * count, address("none"), fresh=True)
    same_noise = Runs((0,) * len(z), (0,))
    losses = train(learner, centre.decoded(z), 10, runs=same_noise).loss.mean(1)[:, 0]
    found = estimator.slope(centre, losses, None)
    exact = exact_slope(learner, centre.theta, 10) * centre.stretch
    assert (found - exact).norm() < 1e-3 * exact.norm()


def test_differences_are_one_sided_at_a_bound():
    params = (Param("low", start=0.0, low=0.0), Param("free", start=0.3))
    centre, estimator = Descent(params, rate=1e-3), Differences(1e-2)
    theta = centre.decoded(estimator.rows(centre, 5, address("none"), fresh=True))
    assert theta.shape == (5, 2)
    assert (theta[:, 0] >= 0).all()
    slope = torch.tensor([2.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(estimator.slope(centre, theta @ slope, None), slope)


def test_the_steps_of_differences_are_those_that_an_unroll_began_with_also_after_a_restore():
    centre, estimator = Descent((Param("a", start=1.0),), "SGD", rate=0.1), Differences(0.1)

    def apart(estimator, fresh):
        z = estimator.rows(centre, 2, address("none"), fresh)
        return float(z[0] - z[1])

    assert apart(estimator, fresh=True) == pytest.approx(0.2)
    centre.step(torch.tensor([-10.0], dtype=torch.float64))  # to 2
    restored = Differences(0.1)
    restored.load_state_dict(estimator.state_dict())
    assert apart(estimator, fresh=False) == apart(restored, fresh=False) == pytest.approx(0.2)
    assert apart(estimator, fresh=True) == pytest.approx(0.4)


def along_one_unroll(estimator, candidates):
    """The mean over windows of the estimates at a centre that does not move, the sum of pairs taken apart."""
    centre = Descent(LEARNER.params)
    runs = Runs(tuple(range(candidates)), (0,))
    total, carry = torch.zeros(len(centre.params), dtype=torch.float64), None
    for place, end in enumerate(ENDS):
        z = estimator.rows(centre, candidates, address("estimate", place), fresh=place == 0)
        outcome = train(
            LEARNER, centre.decoded(z), range(end - WINDOW, end), runs=runs, carry=carry,
            wants=estimator.wants | {"carry"},
        )  # fmt: skip
        carry = outcome.carry
        total += estimator.slope(centre, outcome.loss[:, 0, 0], outcome.grad) / WINDOWS
    return total


def test_persistent_es_follows_the_whole_gradient_and_plain_es_the_truncated_one():
    whole = exact_slope(LEARNER, Descent(LEARNER.params).theta, ENDS[-1], score_at=ENDS)
    truncated = along_one_unroll(Exact(), 1)
    persistent = along_one_unroll(Smoothed(0.02, persistent=True), 3000)
    plain = along_one_unroll(Smoothed(0.02, persistent=False), 3000)
    # standard errors are about 0.06 of the whole; the two gradients are 0.6 apart
    assert (truncated - whole).norm() > 0.5 * whole.norm()
    assert (persistent - whole).norm() < 0.2 * whole.norm()
    assert (plain - truncated).norm() < 0.2 * whole.norm()
    # the same perturbation in every window: nothing is cut off
    torch.testing.assert_close(along_one_unroll(Differences(1e-3), 4), whole, rtol=1e-4, atol=1e-6)


def test_the_cosine_of_es_with_the_exact_gradient_goes_to_one_with_the_number_of_pairs():
    found = analysis.cosines(20, (4, 32, 256), estimates=2)
    assert found["forward"] == pytest.approx(1.0, abs=1e-12)
    assert found["differences"] > 1 - 1e-6
    for name in ("es", "pes"):
        means = [mean for mean, _, _ in found[name].values()]
        assert means == sorted(means)
        assert means[-1] > 0.99


@pytest.mark.parametrize("windows", [1, 2, 5])
def test_a_truncated_gradient_is_short_of_the_whole_one_by_the_share_of_steps_it_sees(windows):
    """Without noise loss = sum_j c_j (1 - rate h_j)^(2 t), so that K of t steps give K / t of its slope, exactly."""
    task = analysis.NoisyQuadratic(spread=0.0)
    learner = analysis.quadratic_learner(task)
    theta = torch.tensor([[0.2], [0.05]], dtype=torch.float64)
    steps = windows * WINDOW
    settings = {"task": task, "batch": 1}
    whole = train(learner, theta, steps, wants=EVERYTHING, **settings).grad
    carry = train(learner, theta, steps - WINDOW, **settings).carry if windows > 1 else None
    last = train(learner, theta, range(steps - WINDOW, steps), wants=EVERYTHING, carry=carry, **settings).grad
    torch.testing.assert_close(last, whole / windows, rtol=1e-10, atol=0)


def test_the_noisy_quadratic_has_the_loss_that_its_closed_form_says():
    task = analysis.NoisyQuadratic()
    learner = analysis.quadratic_learner(task)
    rate = torch.tensor(0.3, dtype=torch.float64)
    outcome = train(learner, rate.reshape(1, 1), 12, task, runs=Runs((0,), tuple(range(4000))), batch=1)
    error = outcome.loss.std() / math.sqrt(4000)
    assert (outcome.loss.mean() - analysis.expected(task, rate, 12)[1]).abs() < 4 * error
    assert analysis.stationary(task, 5, 10, whole=False) < 0.85 * analysis.stationary(task, 5, 10, whole=True)


def test_windows_follow_truncation_and_curriculum():
    loop = MetaGradient(truncation=4, curriculum=(3, 6, 100), curriculum_every=3)
    found = [loop.window(generation, 10) for generation in range(12)]
    spans = [(window.unroll, window.steps.start, window.steps.stop) for window in found]
    assert spans[:3] == [(0, 0, 3), (1, 0, 3), (2, 0, 3)]
    assert spans[3:6] == [(3, 0, 4), (3, 4, 6), (4, 0, 4)]  # a longer unroll interrupts the last one
    assert spans[6:] == [(5, 0, 4), (5, 4, 8), (5, 8, 10), (6, 0, 4), (6, 4, 8), (6, 8, 10)]
    assert [MetaGradient().window(number, 10) for number in (0, 7)] == [(0, range(10)), (7, range(10))]


def drive(loop, candidates, numbers, steps=6):
    """Generations of the loop on the squared distance from (1, -0.3, 0.5), windows included."""
    target = torch.tensor([1.0, -0.3, 0.5], dtype=torch.float64)
    path = []
    for number in numbers:
        loop.prepare(loop.window(number, steps))
        theta = loop.ask(candidates, noise_for([(0, "outer", number)]))
        loss = (theta - target).square().sum(1, keepdim=True)
        loop.tell(theta, loss, 2 * (theta - target) if "grad" in loop.wants else None)
        path.append(loop.best)
    return torch.stack(path)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_descends_and_goes_on_bit_for_bit_within_an_unroll(estimator):
    settings = {"rate": 0.1, "truncation": 2, "l1_path": (0.0, 0.1), "l1_every": 5}
    loop, candidates = made(estimator, **settings)
    first, second = copy.copy(loop), copy.copy(loop)
    for each in (loop, first, second):
        each.start(PARAMS)
    path = drive(loop, candidates, range(11))
    assert (path[-1][0] - 1.0).abs() < 0.5
    drive(first, candidates, range(4))  # the second of three windows is next
    state = first.state_dict()
    plain = {name: value for name, value in state.items() if name not in ("centre", "estimator")}
    second.load_state_dict(state | json.loads(json.dumps(plain)))
    drive(first, candidates, range(4, 5))
    assert torch.equal(drive(second, candidates, range(4, 11)), path[4:])
    assert second.report == loop.report


@pytest.mark.parametrize("estimator", ["es", "pes"])
def test_smoothed_estimators_keep_the_contract(estimator):
    failed = [check for check in check_outer(MetaGradient(rate=0.03, estimator=estimator)) if not check.ok]
    assert not failed


def test_a_failed_pair_has_no_say_and_a_failed_generation_moves_nothing():
    loop, candidates = made("pes", optimizer="SGD")
    loop.start(PARAMS)
    theta = loop.ask(candidates, noise_for([(0,)]))
    slope = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    loss = (theta @ slope)[:, None]
    loss[1] = math.inf
    kept = loop.source_of_slope.slope(loop.centre, loss[:, 0], None)
    assert kept.isfinite().all()
    before = loop.best
    loop.tell(theta, torch.full_like(loss, math.inf))
    assert torch.equal(loop.best, before)
    assert loop.report["skipped"] == 1


def test_the_log_shows_what_a_step_was_like():
    loop, _ = made("reverse", l1_path=(0.0, 50.0, 0.0), l1_every=2, optimizer="SGD", rate=0.1)
    loop.start(PARAMS[:2])
    penalties, nonzero = [], []
    for number in range(6):
        loop.prepare(loop.window(number, 9))
        grad = torch.tensor([[3.0, 40.0]], dtype=torch.float64)
        loop.tell(loop.ask(1, noise_for([(0,)])), torch.ones(1, 1, dtype=torch.float64), grad)
        penalties.append(loop.report["penalty"])
        nonzero.append(loop.report["nonzero"])
    assert penalties == [0.0, 0.0, 50.0, 50.0, 0.0, 0.0]
    assert nonzero == [2, 2, 0, 0, 2, 2]
    assert loop.report["gradient_norm"] == pytest.approx(5.0)
    assert loop.report["until_step"] == 9


@pytest.mark.parametrize(("rate", "chaotic"), [(0.03, False), (0.1, False), (1.0, True)])
def test_a_chaotic_inner_run_is_seen_and_a_calm_one_is_not(rate, chaotic):
    task = FewShot(images="digits", shots=20)
    network = Network.chain((task.inputs, 32, task.outputs), "tanh")
    rule = Terms(("error_pre",), normalise=False, start={"error_pre": rate})
    learner = Learner(network, FeedbackAlignment(), {"forward": rule}, {ANY: Sgd()})
    loop = MetaGradient()
    loop.start(learner.params)
    engine, runs = Reference(dtype=torch.float64), Runs((0,), (0, 1, 2))
    outcome = engine.evaluate(learner, loop.best[None], task, runs, range(100), wants=loop.wants)
    beside = engine.evaluate(learner, loop.best[None] * (1 + 1e-9), task, runs, range(100))
    # a chaotic run forgets where it began: a billionth of a change in the rule is seen in the loss
    assert bool((beside.loss - outcome.loss).abs().max() > 1e-3) == chaotic
    loop.tell(loop.ask(1, noise_for([(0,)])), outcome.loss.mean(1), outcome.grad)
    assert bool(loop.warnings) == chaotic
    assert all("estimator = 'es'" in warning for warning in loop.warnings)


def test_a_search_that_converges_is_not_called_chaotic():
    loop, candidates = made("reverse", rate=0.1)
    loop.start(PARAMS)
    for number in range(200):
        drive(loop, candidates, [number])
        assert not loop.warnings


@pytest.mark.parametrize(
    ("settings", "candidates", "said"),
    [
        ({"estimator": "differences"}, 5, "needs 6, two for each of 3 parameters, or 7"),
        ({"estimator": "pes"}, 5, "give an even number"),
        ({"estimator": "es"}, 1, "give an even number"),
        ({"estimator": "forward"}, 2, "set it to 1"),
    ],
)
def test_a_number_of_candidates_that_does_not_fit_is_refused(settings, candidates, said):
    loop = MetaGradient(**settings)
    loop.start(PARAMS)
    with pytest.raises(ValueError, match=said):
        loop.ask(candidates, noise_for([(0,)]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"estimator": "revers"}, "did you mean 'reverse'"),
        ({"l1": 0.1, "l1_path": (0.1, 0.2)}, "leave one out"),
        ({"l1_path": (0.1, -0.2)}, "must not be negative"),
        ({"truncation": 0}, "outer.truncation = 0 must be at least 1"),
        ({"curriculum": (5, 0)}, "must be at least 1"),
        ({"curriculum_every": 0}, "must be at least 1"),
        ({"sigma": 0.0}, "must be positive"),
        ({"optimizer": "LBFGS"}, "closure"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        MetaGradient(**settings)


def test_forward_mode_takes_no_memory_per_step():
    rows = bench_memory.measure((20, 120), ("reverse", "forward"))
    found = {(row["estimator"], row["steps"]): row["grown_mib"] for row in rows}
    assert found["reverse", 120] > 3 * found["reverse", 20] > 15
    assert found["forward", 120] < found["forward", 20] + 3
