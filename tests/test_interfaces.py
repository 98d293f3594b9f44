"""The interfaces carry what they promise: nine learners unlike each other, none of which changes the engine."""

from __future__ import annotations

import pytest
import torch
from building import (
    EXACT,
    Imitation,
    address,
    assert_states_close,
    central_differences,
    fitting_learner,
    start_row,
    train,
)

from metarule import tree
from metarule.credit.backprop import Backprop
from metarule.credit.difference_target_propagation import DifferenceTargetPropagation
from metarule.credit.equilibrium_propagation import EquilibriumPropagation
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.reinforce import Reinforce
from metarule.credit.sign_symmetry import SignSymmetry
from metarule.credit.spike_stream import SpikeStream
from metarule.credit.weight_perturbation import WeightPerturbation
from metarule.family import Family
from metarule.inner import Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import Param
from metarule.rng import noise_for
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, Difference, ScaledContrastive
from metarule.rules.textbook import Reinforce as ReinforceRule
from metarule.rules.textbook import WeightPerturbation as WeightPerturbationRule
from metarule.signals import Batch
from metarule.synapses.adam import Adam
from metarule.synapses.sgd import Sgd
from metarule.tasks.bandit import Bandit

SGD = {ANY: Sgd()}
STDP = Terms(("post_pre_ref", "post_ref_pre"), normalise=False, start={"post_pre_ref": 0.7, "post_ref_pre": -0.4})


def chain(sizes=(6, 5, 4, 3), activation="tanh", output="linear", bias=True):
    return Network.chain(sizes, activation, output, bias=bias)


SPIKES = {
    "target propagation": (Learner(chain(), DifferenceTargetPropagation(), {ANY: Difference()}, SGD), Imitation()),
    "equilibrium": (
        Learner(
            chain(activation="sigmoid", output="sigmoid"), EquilibriumPropagation(), {ANY: ScaledContrastive()}, SGD
        ),
        Imitation(),
    ),
    "weight perturbation": (
        Learner(chain(output="softmax"), WeightPerturbation(), {ANY: WeightPerturbationRule()}, SGD),
        Imitation(),
    ),
    "reinforce": (Learner(chain((4, 3), output="softmax"), Reinforce(), {ANY: ReinforceRule()}, SGD), Bandit()),
    "stream": (
        Learner(chain(), SpikeStream(), {"forward": STDP, "readout": Delta()}, {"forward": Sgd(), "readout": Sgd()}),
        Imitation(),
    ),
}
every_spike = pytest.mark.parametrize(("learner", "task"), SPIKES.values(), ids=SPIKES.keys())


@every_spike
def test_run_r_of_a_batch_equals_run_r_alone_and_goes_on_from_carry(learner, task):
    theta = start_row(learner).repeat(2, 1) * torch.tensor([[1.0], [1.1]], dtype=torch.float64)
    runs = Runs((0, 1), (4, 5))
    together = train(learner, theta, 6, task, runs=runs)
    alone = train(learner, theta[1:], 6, task, runs=Runs((1,), (5,)))
    assert_states_close(alone.carry or {}, tree.selected(together.carry or {}, slice(3, 4)), 1e-10)
    half = train(learner, theta, 3, task, runs=runs)
    rest = train(learner, theta, range(3, 6), task, runs=runs, carry=half.carry)
    assert_states_close(rest.carry or {}, together.carry or {}, 0.0)


@every_spike
def test_meta_gradient_equals_finite_differences(learner, task):
    theta = start_row(learner)
    outcome = train(learner, theta, 3, task, wants=frozenset({"grad"}))
    # a wide step where sigma = 0.001 divides the rounding of a difference of rewards
    expected = central_differences(lambda row: train(learner, row, 3, task).loss[:, 0, 0], theta, width=1e-5)
    assert outcome.grad is not None
    torch.testing.assert_close(outcome.grad, expected, rtol=1e-4, atol=1e-6)


def test_inverses_learn_to_invert_while_forward_weights_rest():
    learner = Learner(
        chain(), DifferenceTargetPropagation(), {ANY: Difference()}, SGD, schedule=lambda step: {"forward": 0.0}
    )
    theta = start_row(learner, rate=0.2, sigma=0.3)

    def gap(carry):
        columns = learner.columns(theta)
        batch = Imitation().sample(noise_for([("reconstruction",)]), 200).train(0)
        signals, _ = learner.credit.stage(
            0, columns.credit, learner.network, carry["weights"], {}, batch, 0, address("run"), learner.wanted
        )
        return sum(
            float((signals[p.name].read("post") - signals[p.name].read("post_ref")).square().mean())
            for p in learner.plastic
            if p.role == "inverse"
        )

    gaps, carry = [], train(learner, theta, 1).carry
    for first in range(1, 401, 100):
        gaps.append(gap(carry))
        carry = train(learner, theta, range(first, first + 100), batch=20, carry=carry).carry
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.5 * gaps[0]


def test_target_propagation_learns():
    learner, task = SPIKES["target propagation"]
    theta = start_row(learner, rate=0.1)
    before, after = (train(learner, theta, steps, task, batch=10).loss.item() for steps in (1, 400))
    assert after < 0.5 * before


def test_a_task_without_targets_and_a_credit_that_needs_them_is_refused():
    with pytest.raises(ValueError, match="needs targets, and the task gives none"):
        train(fitting_learner(Backprop(), (4, 3)), torch.tensor([[0.1]]).double(), 1, Bandit())


def test_persistent_evolution_strategies_is_ranges_with_carry_and_a_sum_that_the_loop_keeps():
    # Vicol, Metz and Sohl-Dickstein 2021: per window, accumulated noise x loss is an unbiased gradient of the mean loss
    rule = Terms(("error_pre", "subspace_oja"), start={"error_pre": 0.3, "subspace_oja": 0.1})
    learner = fitting_learner(FeedbackAlignment(), rule=rule)
    pairs, sigma, window, windows = 2000, 0.02, 3, 4
    centre = start_row(learner)
    ends = tuple(window * (place + 1) for place in range(windows))
    exact = train(learner, centre, ends[-1], score_at=ends, wants=frozenset({"grad"})).grad
    runs = Runs(tuple(range(2 * pairs)), (0,))
    accumulated, carry, estimates = torch.zeros(pairs, 2).double(), None, torch.zeros(pairs, 2).double()
    for place, end in enumerate(ends):
        noise = sigma * address("pes", place, runs=pairs).normal(2)
        theta = torch.cat((centre + noise, centre - noise))
        outcome = train(learner, theta, range(end - window, end), runs=runs, carry=carry)
        carry = outcome.carry
        accumulated += noise
        up, down = outcome.loss[:, 0, 0].chunk(2)
        estimates += accumulated * ((up - down) / (2 * sigma**2))[:, None] / windows
    assert exact is not None
    standard_error = estimates.std(0) / pairs**0.5
    assert (standard_error < 0.2 * exact[0].abs()).all()
    assert ((estimates.mean(0) - exact[0]).abs() < 4 * standard_error).all()


def mixed_family():
    """One population of backprop and of feedback alignment, with a rate that both call by one name, and more."""
    terms = Terms(("error_pre", "oja"), start={"error_pre": 0.2, "oja": 0.02})
    build = {
        ("backprop",): fitting_learner(Backprop()),
        ("feedback_alignment",): fitting_learner(FeedbackAlignment(), rule=terms),
        ("sign_symmetry",): fitting_learner(SignSymmetry("batchwise_random"), synapse=Adam()),
    }
    return Family((Param("credit", choices=tuple(name for (name,) in build)),), build)


FAMILY = mixed_family()
MIXED = torch.tensor(
    [[1, 0.3, 0.2, 0.02, 0.01], [0, 0.3, 0.2, 0.02, 0.01], [2, 0.3, 0.2, 0.02, 0.03], [1, 0.1, 0.3, 0.01, 0.01]],
    dtype=torch.float64,
)
FOUR = Runs((0, 1, 2, 3), (8, 9))


def evaluated(theta=MIXED, steps=range(6), runs=FOUR, carry=None, **settings):
    settings = {"batch": 3, "wants": frozenset({"loss", "grad", "carry"})} | settings
    return FAMILY.evaluate(EXACT, theta, Imitation(), runs, steps, carry, **settings)


def test_family_has_one_column_per_agreed_name_and_one_per_structure_where_they_differ():
    assert [param.name for param in FAMILY.params] == [
        "credit", "backprop:synapse.rate", "rule.forward.error_pre", "rule.forward.oja", "sign_symmetry:synapse.rate",
    ]  # fmt: skip


def test_family_gives_every_candidate_what_its_own_learner_gives_it():
    together = evaluated()
    assert together.grad is not None
    columns = {0: [1], 1: [2, 3], 2: [4]}
    for c, row in enumerate(MIXED):
        learner, own = FAMILY.learner(row)
        alone = train(learner, own[None], 6, runs=Runs((c,), FOUR.episodes), wants=frozenset({"loss", "grad", "carry"}))
        torch.testing.assert_close(together.loss[c], alone.loss[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(together.scores["closeness"][c], -alone.loss[0, :, 0], rtol=1e-12, atol=1e-12)
        assert alone.grad is not None
        expected = torch.zeros(5, dtype=torch.float64)
        expected[columns[int(row[0])]] = alone.grad[0]
        torch.testing.assert_close(together.grad[c], expected, rtol=1e-10, atol=1e-12)
        kept = (together.carry or {})[FAMILY.structure(row)[0]]
        assert_states_close(alone.carry or {}, tree.selected(kept, slice(2 * c, 2 * c + 2)), 1e-12)


def test_family_goes_on_from_carry_and_prunes_as_one_learner_does():
    straight = evaluated(steps=range(6))
    half = evaluated(steps=range(3))
    rest = evaluated(steps=range(3, 6), carry=half.carry)
    assert torch.equal(rest.loss, straight.loss)
    assert_states_close(rest.carry or {}, straight.carry or {}, 0.0)
    keep = torch.tensor([0, 2])
    slots = torch.tensor([0, 1, 4, 5])
    pruned = evaluated(
        MIXED[keep], range(3, 6), Runs((0, 2), FOUR.episodes), carry=tree.selected(half.carry or {}, slots)
    )
    torch.testing.assert_close(pruned.loss, straight.loss[keep], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Family((Param("rate"),), {}), "must be categorical"),
        (lambda: Family(FAMILY.choices, {("backprop",): FAMILY.build[("backprop",)]}), "has no learner"),
        (
            lambda: Family((), {(): FAMILY.build[("backprop",)], ("x",): FAMILY.build[("backprop",)]}),
            "'x' is not a comb",
        ),
        (lambda: FAMILY.structure(torch.tensor([0.5, 0, 0, 0, 0])), "credit = 0.5 is not the index of one of backprop"),
        (lambda: evaluated(record=1), "record was given for a family"),
    ],
)
def test_families_that_make_no_sense_are_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


@every_spike
def test_recording_changes_nothing(learner, task):
    theta = start_row(learner)
    plain, recorded = (train(learner, theta, 4, task, record=every) for every in (None, 2))
    assert torch.equal(plain.loss, recorded.loss)
    assert_states_close(plain.carry or {}, recorded.carry or {}, 0.0)
    assert recorded.record is not None
    assert recorded.record.steps == (0, 2)
    for name, series in recorded.record.series.items():
        assert series.shape[:2] == (1, 2), name


@every_spike
def test_pruned_candidates_go_on_as_if_nobody_had_left(learner, task):
    theta = start_row(learner).repeat(4, 1) * torch.linspace(0.7, 1.3, 4).double()[:, None]
    runs = Runs((0, 1, 2, 3), (0, 1))
    unpruned = train(learner, theta, 6, task, runs=runs)
    first = train(learner, theta, 3, task, runs=runs)
    keep = [1, 3]
    slots = torch.tensor([2, 3, 6, 7])
    rest = train(
        learner,
        theta[keep],
        range(3, 6),
        task,
        runs=Runs((1, 3), (0, 1)),
        carry=tree.selected(first.carry or {}, slots),
    )
    torch.testing.assert_close(rest.loss, unpruned.loss[keep], rtol=1e-12, atol=1e-12)
    assert_states_close(rest.carry or {}, tree.selected(unpruned.carry or {}, slots), 1e-12)


def test_a_reward_may_be_of_any_action_and_events_are_rewarded_one_by_one():
    batch = Bandit().sample(address(0, "episode", runs=2), 5).train(0)
    assert isinstance(batch, Batch)
    assert batch.reward is not None
    actions = torch.eye(3, dtype=torch.float64).expand(2, 3, 3).repeat(1, 2, 1)[:, :5]
    assert batch.reward(actions).shape == (2, 5, 1)
    assert batch.y is None


def test_a_rule_per_projection_has_parameters_of_its_own():
    terms = Terms(("error_pre",), start={"error_pre": 0.2})
    learner = Learner(chain((6, 5, 3)), Backprop(), {"input->hidden1": terms, "forward": Terms(("oja",))}, SGD)
    assert [param.name for param in learner.params] == ["rule.forward.oja", "rule.input->hidden1.error_pre"]
    theta = torch.tensor([[0.0, 0.2]], dtype=torch.float64)
    carries = [(train(learner, theta, steps).carry or {})["weights"] for steps in (1, 3)]
    assert not torch.equal(carries[0]["input->hidden1"], carries[1]["input->hidden1"])
    assert torch.equal(carries[0]["hidden1->output"], carries[1]["hidden1->output"])


def test_float32_engine_runs_every_spike():
    for learner, task in SPIKES.values():
        outcome = train(learner, start_row(learner), 3, task, engine=Reference(dtype=torch.float32))
        assert torch.isfinite(outcome.loss).all()
