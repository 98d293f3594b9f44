"""The fused adjoint's round trip: there, scored and back in one call, wherever runs are asked by index at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from building import address, fitting_learner, random_theta, train
from test_adjoint import ABLE, DECAYING, FOUR, decaying_rows
from test_fused import READABLE, THREE, needs_kernel

from metarule.adjoint import fused, parts, pulled
from metarule.adjoint.walk import rebuildable
from metarule.block import Block, World
from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.inner import Fused, Reference, Runs
from metarule.learner import ANY, Learner, always_one
from metarule.network import Network
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS
from metarule.rules.terms import Terms
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits
from metarule.tasks.few_shot import FewShot
from metarule.terms import TERMS

pytestmark = needs_kernel

EXACT = Fused(dtype=torch.float64)
GRADIENT = frozenset({"loss", "grad"})
FEW = FewShot(ways=3, shots=20, queries=2)
ABLE = {name: learner for name, learner in ABLE.items() if rebuildable(learner)}


@pytest.fixture
def trips(monkeypatch):
    """The runs that every call of the kernel took on a round trip."""
    taken: list[range] = []
    kernel = fused.library()

    def watched(plan, double, variant, first, last):
        taken.append(range(first, last))
        return kernel.round_trip(plan, double, variant, first, last)

    monkeypatch.setattr(fused, "library", lambda: kernel._replace(round_trip=watched))
    return taken


def fitting(learner, hidden=(5, 4), task=FEW):
    """The same learner on a chain that fits a task of images."""
    first = learner.network.projections[0]
    network = Network.chain(
        (task.inputs, *hidden, task.outputs), learner.network.activations[first.target], learner.network.output,
        bias=first.bias,
    )  # fmt: skip
    return replace(learner, network=network)


def both(learner, task=FEW, tame=0.1, steps: int | range = 7, theta=None, engine=EXACT, **settings) -> tuple[Any, ...]:
    """The reference's outcome and the fused engine's."""
    if theta is None:
        theta = random_theta(learner.params, address("round trip", runs=2)) * tame
    settings = {"runs": FOUR, "wants": GRADIENT} | settings
    return tuple(
        train(learner, theta, steps, task, each, **settings) for each in (Reference(dtype=engine.dtype), engine)
    )


def agrees(learner, **settings):
    expected, found = both(learner, **settings)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-10, atol=0)
    size = float(expected.grad.abs().max())
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-10, atol=1e-10 * size)
    assert size > 0


@pytest.mark.parametrize("learner", ABLE.values(), ids=ABLE.keys())
def test_a_round_trip_has_the_gradient_of_autograd_for_every_part_that_it_can_train(learner, trips):
    learner = fitting(learner)
    agrees(learner)
    assert trips == [range(4)]
    expected, found = both(learner, engine=Fused())
    assert (found.grad - expected.grad).norm() < 1e-4 * expected.grad.norm()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", NONLINEARITIES)
def test_it_is_right_for_every_nonlinearity_and_output(activation, output, bias, trips):
    # more questions than are answered at a time, and not a multiple of them
    task, network = Digits(), Network.chain((64, 7, 19, 10), activation, output, beta=3.0, bias=bias)
    everything = Terms((*THREE.terms, "agreement_error_pre", "match_post_pre_error", "feedback_pre"), start=THREE.start)
    for credit in (Backprop(), FeedbackAlignment(), DirectFeedbackAlignment()):
        agrees(Learner(network, credit, {"forward": everything}, {ANY: Sgd()}), task=task, tame=0.002, steps=5)
    assert len(trips) == 3


def now_and_then(step):
    return {"input->hidden1": 0.0, "hidden1->hidden2": 0.25} if step % 3 == 1 else {"forward": 0.5}


RULES = {
    "fewer rows": THREE,
    "fewer columns": Terms(("error_pre", "post_pre", "feedback_pre")),
    "many of both": Terms(tuple(name for name in READABLE if "weight" not in TERMS[name].factors)),
    "one pair": Terms(("error_pre",)),
}


@pytest.mark.parametrize("schedule", [always_one, now_and_then])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_it_is_right_for_single_events_whatever_meets_at_a_synapse(rule, schedule, trips):
    # wide enough for several rows at a time, and some left over
    network = Network.chain((64, 19, 9, 10), bias=True)
    for credit in (FeedbackAlignment(), Backprop()):
        learner = Learner(network, credit, {"forward": rule}, {ANY: Sgd()}, schedule=schedule)
        agrees(learner, batch=1, tame=0.01)
        agrees(learner, batch=1, tame=0.01, score_at=(3, 7))
    assert len(trips) == 2


@pytest.mark.parametrize("events", [1, 2, 5])
def test_it_is_right_for_every_batch_size_from_a_carry_and_with_layers_that_do_not_learn(events, trips):
    network = Network.chain((64, 9, 6, 10), bias=True)
    for forward in ("forward", "hidden1->hidden2"):
        rules = {forward: THREE, "feedback": DECAYING}
        synapses: dict[str, Any] = dict.fromkeys((ANY, *rules), Sgd(weight_decay=0.02))
        learner = Learner(network, KolenPollack(), rules, synapses)
        theta = random_theta(learner.params, address("carried", runs=2)) * 0.1
        carry = train(learner, theta, 3, FEW, runs=FOUR, batch=events).carry
        agrees(learner, theta=theta, batch=events, steps=range(3, 8), carry=carry)
    assert len(trips) == 2


def test_first_weights_have_their_gradient_where_it_is_asked_for_and_no_others_are_written(trips):
    learner = fitting(fitting_learner(KolenPollack(), output="linear"))
    theta = random_theta(learner.params, address("first", runs=4)) * 0.1
    leading = ("held_out_loss",)
    block = Block(
        learner, theta, FEW, FOUR.addresses, 2, range(7), 3, GRADIENT, leading, (7,), None, None, theta.dtype, 1
    )  # fmt: skip
    world, columns = World(block), learner.columns(theta)
    start = world.start(columns)
    asked = ["hidden1->hidden2", "hidden2=>hidden1"]
    walk = fused.FusedWalk(fused.library(), world, columns)
    found = walk.round_trip(start, 0.5, frozenset(asked))
    assert found is not None
    weights = {name: start["weights"][name].clone().requires_grad_() for name in asked}
    state = {**start, "weights": {**start["weights"], **weights}}
    end = world.advance(columns, state, block.steps, in_place=False)
    expected = torch.autograd.grad(0.5 * world.score(columns, end)[leading[0]].sum(), list(weights.values()))
    assert found.gradient.weights.keys() == weights.keys()
    for name, gradient in zip(asked, expected, strict=True):
        torch.testing.assert_close(found.gradient.weights[name], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [{"score_at": (3, 7)}, {"score_at": (3,)}, {"wants": GRADIENT | {"carry"}}, {"task": Digits("autoencoder")}],
)
def test_what_it_cannot_do_is_walked_in_parts(settings, trips):
    task = settings.get("task", FEW)
    learner = fitting(fitting_learner(FeedbackAlignment(), rule=THREE, output=task.output), task=task)
    agrees(learner, **settings)
    assert not trips


def test_a_tape_that_is_too_long_is_walked_in_parts_whatever_is_beside_it(trips, monkeypatch):
    learner = fitting(fitting_learner(FeedbackAlignment(), rule=THREE))
    _, whole = both(learner)
    assert trips
    trips.clear()
    tape = 7 * fused.FusedWalk.numbers(learner, 3) * 8
    for budget, parted in ((tape, 1), (tape - 1, 0)):
        monkeypatch.setattr(fused, "BUDGET", budget)
        _, found = both(learner)
        assert bool(trips) == bool(parted)
        trips.clear()
        torch.testing.assert_close(found.grad, whole.grad, rtol=1e-10, atol=1e-12)


def test_runs_whose_weights_do_not_come_home_are_walked_again_and_their_neighbours_are_not(trips, monkeypatch):
    learner = fitting(fitting_learner(FeedbackAlignment(), rule=DECAYING))
    theta, runs = decaying_rows(0.0, 0.6, 0.02), Runs((0, 1, 2), (0, 1))
    again = []
    keeping = pulled._keeping
    monkeypatch.setattr(pulled, "_keeping", lambda block, walk: again.append(block.addresses) or keeping(block, walk))
    agrees(learner, theta=theta, runs=runs, steps=19, batch=1)
    monkeypatch.setattr(pulled, "GROWTH", float("inf"))
    agrees(learner, theta=theta, runs=runs, steps=19, batch=1)
    assert again == [[(1, 0), (1, 1)]] * 2
    assert trips == [range(6)] * 2


def test_a_run_depends_on_none_beside_it_nor_on_how_runs_are_spread(trips, monkeypatch):
    learner = fitting(fitting_learner(FeedbackAlignment(), rule=DECAYING), hidden=(40, 4))
    sane = decaying_rows(0.0, 0.01, 0.02, 0.03)
    wild = sane.clone()
    wild[1] = torch.tensor([1e200, 0.0])
    runs = Runs(tuple(range(4)), (0, 1))
    _, calm = both(learner, theta=sane, runs=runs)
    torch.set_num_threads(3)
    try:
        _, spread = both(learner, theta=sane, runs=runs)
    finally:
        torch.set_num_threads(1)
    assert sorted(trips[1:], key=lambda runs: runs.start) == [range(0, 2), range(2, 5), range(5, 8)]
    assert torch.equal(spread.grad, calm.grad)
    _, beside = both(learner, theta=wild, runs=runs)
    assert beside.grad[1].isnan().all()
    assert torch.equal(beside.grad[[0, 2, 3]], calm.grad[[0, 2, 3]])
    monkeypatch.setattr(fused, "BUDGET", 3 * (learner.weights_per_run * 8 + 7 * 3 * parts.INDICES))
    trips.clear()
    _, few = both(learner, theta=sane, runs=runs)
    assert len(trips) == 3
    assert torch.equal(few.grad, calm.grad)


def test_no_weight_that_is_handed_in_is_overwritten(trips):
    learner = fitting(fitting_learner(KolenPollack()))
    theta = random_theta(learner.params, address("kept", runs=2)) * 0.1
    carry = train(learner, theta, 3, FEW, runs=FOUR).carry
    assert carry is not None
    kept = {name: weight.clone() for name, weight in carry["weights"].items()}
    both(learner, theta=theta, steps=range(3, 8), carry=carry)
    assert trips
    assert all(torch.equal(carry["weights"][name], weight) for name, weight in kept.items())
