"""The hand-written adjoint, eager and fused: autograd's gradient wherever it can do the job, refused elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from building import EXACT, Imitation, address, assert_states_close, fitting_learner, random_theta, start_row, train
from test_fused import LEARNERS, THREE, Doubling, Uneven

from metarule.adjoint import chain, eager, fused, parts, pulled
from metarule.adjoint.walk import rebuildable
from metarule.block import Block
from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.fused.learners import refused
from metarule.inner import Adjoint, Fused, InBlocks, Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits
from metarule.tasks.few_shot import FewShot

ADJOINT = Adjoint(dtype=torch.float64)
GRADIENT = frozenset({"loss", "grad", "carry"})
FOUR = Runs((0, 1), (3, 5), seed=2)

ABLE = {name: learner for name, learner in LEARNERS.items() if refused(learner) is None}
BY_HAND = [engine for engine in (Adjoint, Fused) if engine().can(ABLE["rule=terms"], GRADIENT) is None]
every_adjoint = pytest.mark.parametrize("engine", BY_HAND)
DECAYING = Terms(("error_pre", "weight_decay"), normalise=False, start={"error_pre": 0.2, "weight_decay": 0.1})


def both(learner, tame=0.3, steps=7, theta=None, engine: InBlocks = ADJOINT, **settings) -> tuple[Any, ...]:
    """The reference's outcome and the adjoint's, on numbers that keep runs tame."""
    if theta is None:
        theta = random_theta(learner.params, address("adjoint", runs=2)) * tame
    settings = {"runs": FOUR, "wants": GRADIENT} | settings
    reference = Reference(dtype=engine.dtype)
    return tuple(train(learner, theta, steps, engine=each, **settings) for each in (reference, engine))


def agrees(learner, **settings):
    """Losses, final states and gradients of every adjoint in float64."""
    for engine in BY_HAND:
        expected, found = both(learner, engine=engine(dtype=torch.float64), **settings)
        assert "adjoint" in found.engine
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-10, atol=0)
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-9 * float(expected.grad.abs().max()))
        assert float(expected.grad.abs().max()) > 0
        if expected.carry is not None:
            assert_states_close(found.carry, expected.carry, 1e-10)


@pytest.mark.parametrize("learner", ABLE.values(), ids=ABLE.keys())
def test_the_adjoint_is_the_gradient_of_autograd_for_every_part_that_it_can_train(learner):
    agrees(learner, score_at=(2, 3, 7))
    for engine in BY_HAND:
        expected, found = both(learner, engine=engine())
        assert (found.grad - expected.grad).norm() < 1e-4 * expected.grad.norm()


def test_the_parts_that_searches_use_most_are_among_those_it_can_train():
    kinds = ("backprop", "feedback_alignment", "direct_feedback_alignment", "sign_symmetry", "kolen_pollack", "none")
    assert {f"credit={kind}" for kind in kinds} <= ABLE.keys()
    assert {"rule=terms", "rule=polynomial", "rule=delta", "rule=oja", "synapse=sgd", "synapse=momentum"} <= ABLE.keys()
    assert {name for name in LEARNERS if name.startswith("term=")} <= ABLE.keys()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", NONLINEARITIES)
def test_the_adjoint_is_right_for_every_nonlinearity_and_output(activation, output, bias):
    network = Network.chain((8, 7, 6, 3), activation, output, beta=3.0, bias=bias)
    everything = Terms((*THREE.terms, "agreement_error_pre", "match_post_pre_error", "feedback_pre"), start=THREE.start)
    for credit in (Backprop(), FeedbackAlignment(), DirectFeedbackAlignment()):
        agrees(Learner(network, credit, {"forward": everything}, {ANY: Sgd()}), tame=0.002, steps=5)


@pytest.mark.parametrize("events", [1, 2, 7])
@pytest.mark.parametrize("synapse", [Sgd(weight_decay=0.02), Momentum(0.7, nesterov=True, weight_decay=0.02)])
def test_the_adjoint_is_right_for_every_batch_size(events, synapse):
    network = Network.chain((9, 5, 4), bias=True)
    rules = {"forward": THREE, "feedback": Terms(("error_pre", "weight_decay"), start={"error_pre": 0.1})}
    synapses: dict[str, Any] = dict.fromkeys((ANY, *rules), synapse)
    agrees(Learner(network, KolenPollack(), rules, synapses), batch=events)
    agrees(Learner(network, KolenPollack(), {ANY: Delta()}, {ANY: synapse}), batch=events)


@pytest.mark.parametrize("hidden", [(4,), (8,), (8, 10, 4)])
def test_the_adjoint_is_right_where_few_events_meet_few_units_of_many_inputs(hidden):
    everything = Terms(("error_pre", "post_pre", "error_pre_error", "subspace_oja"), start={"error_pre": 0.1})
    learner = Learner(
        Network.chain((200, *hidden, 10), bias=True), FeedbackAlignment(), {"forward": everything}, {ANY: Sgd()}
    )
    for events in (2, 4):
        agrees(learner, batch=events, tame=0.002)


def test_batches_of_several_sizes_are_walked_back_as_they_came():
    learner = fitting_learner(FeedbackAlignment(), rule=THREE)
    agrees(learner, task=Uneven())


def test_layers_that_do_not_learn_are_walked_through_and_those_below_have_their_gradient():
    network = Network.chain((6, 5, 4, 3), bias=True)
    for credit in (Backprop(), FeedbackAlignment()):
        agrees(Learner(network, credit, {"input->hidden1": THREE}, {ANY: Sgd()}))
        agrees(Learner(network, credit, {"hidden2->output": THREE, "input->hidden1": DECAYING}, {ANY: Sgd()}))


@pytest.mark.parametrize("synapse", [Sgd(), Momentum()])
def test_rates_of_the_schedule_count_and_a_step_of_rate_0_is_none(synapse):
    def now_and_then(step):
        return {"input->hidden1": 0.0, "hidden1->hidden2": 0.25} if step % 2 else {"forward": 0.5}

    for credit, rule in ((Backprop(), THREE), (FeedbackAlignment(), THREE), (KolenPollack(), None)):
        agrees(fitting_learner(credit, rule=rule, synapse=synapse, schedule=now_and_then))


def test_a_score_before_the_last_step_is_what_is_differentiated_whatever_becomes_of_the_run_after_it():
    learner = fitting_learner(Backprop(), rule=THREE)
    agrees(learner, score_at=(4,))
    agrees(learner, score_at=(2, 4), objectives=("closeness",))

    def explosive(step):
        return {"forward": 1e200 if step > 4 else 1.0}

    learner = fitting_learner(Backprop(), rule=THREE, schedule=explosive)
    agrees(learner, score_at=(2, 4), wants=GRADIENT - {"carry"})


def test_a_gradient_from_a_carry_is_that_of_the_remaining_steps():
    for synapse in (Sgd(), Momentum(0.8)):
        learner = fitting_learner(FeedbackAlignment(), rule=THREE, synapse=synapse)
        theta = random_theta(learner.params, address("carried", runs=2)) * 0.3
        carry = train(learner, theta, 5, runs=FOUR).carry
        agrees(learner, theta=theta, steps=range(5, 11), carry=carry, score_at=(7, 11))


SERVED = {
    "rebuilt": fitting_learner(FeedbackAlignment(), rule=THREE),
    "decay": fitting_learner(FeedbackAlignment(), rule=THREE, synapse=Sgd(weight_decay=0.01)),
    "momentum": fitting_learner(KolenPollack(), synapse=Momentum(0.8)),
    "powers of the weight": fitting_learner(Backprop(), rule=Terms(("error_pre", "oja"), start={"error_pre": 0.2})),
}


@every_adjoint
@pytest.mark.parametrize("learner", SERVED.values(), ids=SERVED.keys())
def test_how_many_runs_and_steps_are_walked_at_a_time_does_not_matter(learner, engine, monkeypatch):
    exact = engine(dtype=torch.float64)
    theta = random_theta(learner.params, address("parts", runs=3)) * 0.3
    settings = {"theta": theta, "steps": 30, "runs": Runs((0, 1, 2), (4, 5, 6)), "score_at": (11, 20, 30)}
    expected, whole = both(learner, engine=exact, **settings)
    for budget, segments in ((3 << 15, 1), (1, 1), (3 << 15, 4), (1 << 30, 30)):
        monkeypatch.setattr(eager, "WALKER", eager.WALKER._replace(budget=budget))
        monkeypatch.setattr(fused, "BUDGET", budget)
        _, cut = both(learner, engine=replace(exact, segments=segments), **settings)
        torch.testing.assert_close(cut.loss, whole.loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(cut.grad, whole.grad, rtol=1e-10, atol=1e-12)
        assert_states_close(cut.carry, expected.carry, 1e-10)


def asked(learner, runs, steps, dtype=torch.float32, batch=4):
    """A block of as many runs."""
    sizes = learner.network.sizes
    task = Imitation(sizes[learner.network.input_name], sizes[learner.network.output_name])
    theta = start_row(learner).to(dtype).repeat(runs, 1)
    addresses = [(0, run) for run in range(runs)]
    return Block(
        learner, theta, task, addresses, 0, range(steps), batch, GRADIENT, ("distance",), (steps,), None, None, dtype, 1
    )  # fmt: skip


@pytest.mark.parametrize("learner", SERVED.values(), ids=SERVED.keys())
def test_a_walk_takes_what_it_says(learner):
    block = asked(learner, runs=1, steps=1)
    world = pulled.World(block)
    walk = eager.Eager(world, learner.columns(block.theta))
    with torch.no_grad():
        state = world.start(learner.columns(block.theta))
        _, (step,) = walk.there(pulled._copied(state, world), block.steps, keep_weights=False)
    held = {}
    for value in (*step.rates, *step.pres, *step.drives, *step.feedbacks, *step.errors, *each_value(step)):
        if value is not None:
            held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    said = eager.Eager.numbers(learner, block.batch) * 4
    assert 0.6 * said < sum(held.values()) < 1.6 * said


def each_value(step):
    for values, sides in zip(step.values.values(), step.sides.values(), strict=True):
        yield from (*values.values(), *(side for pair in sides for side in pair))


def decaying_rows(*decays):
    """Rows of DECAYING with these decays per step."""
    row = torch.tensor([[0.05, 0.0]], dtype=torch.float64).repeat(len(decays), 1)
    row[:, 1] = torch.tensor(decays, dtype=torch.float64)
    return row


def test_decay_that_rounding_does_not_survive_is_told_beforehand_and_weights_are_kept():
    learner = fitting_learner(FeedbackAlignment(), rule=DECAYING)
    assert rebuildable(learner)
    theta = decaying_rows(0.0, 0.01, 0.5, 1.0, 1.7)
    block = asked(learner, runs=5, steps=40)._replace(theta=theta)
    assert pulled._fading(block).tolist() == [False, False, True, True, True]
    runs = Runs(tuple(range(5)), (0, 1))
    agrees(learner, theta=theta, runs=runs, steps=40, score_at=(13, 40))


def test_weights_that_do_not_come_home_are_noticed_and_walked_again(monkeypatch):
    monkeypatch.setattr(pulled, "GROWTH", float("inf"))
    learner = fitting_learner(FeedbackAlignment(), rule=DECAYING)
    theta, runs = decaying_rows(0.0, 0.6, 0.02), Runs((0, 1, 2), (0,))
    block = asked(learner, 3, 40, torch.float64)._replace(theta=theta)
    _, astray = pulled._through(block, eager.WALKER, keep_weights=False)
    assert astray.tolist() == [False, True, False]
    agrees(learner, theta=theta, runs=runs, steps=40)


@every_adjoint
@pytest.mark.parametrize("wild", [1e200, 0.6])
def test_a_neighbour_that_diverges_or_is_walked_again_changes_no_bit(wild, engine):
    exact = engine(dtype=torch.float64)
    learner = fitting_learner(FeedbackAlignment(), rule=DECAYING)
    sane = decaying_rows(0.0, 0.01, 0.02, 0.03)
    beside = sane.clone()
    beside[1, 1] = wild
    runs = Runs(tuple(range(4)), (0, 1))
    _, calm = both(learner, theta=sane, steps=20, runs=runs, engine=exact)
    _, found = both(learner, theta=beside, steps=20, runs=runs, engine=exact)
    others = [0, 2, 3]
    assert torch.equal(found.loss[others], calm.loss[others])
    assert torch.equal(found.grad[others], calm.grad[others])
    assert bool(found.grad[1].isnan().all()) == (wild > 1e100)


@every_adjoint
def test_a_neighbour_that_diverges_changes_no_bit_where_few_events_meet_few_units(engine):
    rule = Terms(("error_pre",), start={"error_pre": 0.05})
    for sizes in ((200, 4, 10), (30, 100, 60, 2)):
        network = Network.chain(sizes, output="linear", bias=True)
        learner = Learner(network, Backprop(), {"forward": rule}, {ANY: Sgd()})
        settings = {"runs": Runs((0, 1), (3,)), "engine": engine(dtype=torch.float64), "batch": 2}
        sane, wild = (torch.tensor([[first], [0.05]], dtype=torch.float64) for first in (0.05, 1e300))
        calm, found = (both(learner, theta=theta, **settings)[1] for theta in (sane, wild))
        assert found.loss[0].isinf()
        assert torch.equal(found.grad[1], calm.grad[1])


@every_adjoint
def test_a_neighbour_whose_rate_is_no_number_leaves_momentum_alone(engine):
    learner = Learner(Network.chain((13, 40, 8, 8, 7)), Backprop(), {ANY: Delta()}, {ANY: Momentum(0.8)})
    settings = {"runs": Runs((0, 1), (3,)), "engine": engine(dtype=torch.float64), "batch": 2}
    sane, wild = (torch.tensor([[first], [0.05]], dtype=torch.float64) for first in (0.05, torch.nan))
    calm, found = (both(learner, theta=theta, **settings)[1] for theta in (sane, wild))
    assert found.grad[0].isnan().all()
    assert torch.equal(found.grad[1], calm.grad[1])


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_slopes_bend_as_autograd_says(name):
    assert chain.BENDS.keys() == NONLINEARITIES.keys()
    bend, beta = chain.BENDS[name], 3.0
    rates = torch.linspace(0.05, 0.95, 9, dtype=torch.float64, requires_grad=True)
    slope = NONLINEARITIES[name].slope(rates, beta)
    expected = torch.zeros_like(rates)
    if slope.requires_grad:
        (expected,) = torch.autograd.grad(slope.sum(), rates)
    found = torch.zeros_like(rates) if bend is None else bend(torch.ones_like(rates), rates.detach(), beta)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("task", [FewShot(ways=3, shots=8, queries=2), Digits()], ids=lambda task: task.kind)
def test_the_adjoint_is_right_on_tasks_of_images(task):
    network = Network.chain((task.inputs, 9, task.outputs), bias=True)
    agrees(Learner(network, FeedbackAlignment(), {"forward": THREE}, {ANY: Sgd()}), task=task, tame=0.1)


@pytest.mark.parametrize(
    ("learner", "settings", "sentence"),
    [
        (fitting_learner(Backprop(), rule=THREE), {"record": 2}, "records nothing beside a gradient"),
        (fitting_learner(Backprop(), rule=THREE), {"wants": GRADIENT | {"forward"}}, "are computed backwards"),
        (fitting_learner(Backprop(), synapse=Adam()), {}, "more than momentum"),
        (fitting_learner(Doubling()), {}, "sends its errors in a way of its own"),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_sentence(learner, settings, sentence):
    settings = {"wants": GRADIENT} | settings
    with pytest.raises(ValueError, match=f"inner.engine = 'adjoint' cannot do this: .*{sentence}"):
        train(learner, start_row(learner), 4, engine=ADJOINT, **settings)


def test_without_a_gradient_it_is_the_reference_and_says_so():
    learner = fitting_learner(Backprop(), synapse=Adam())
    found = train(learner, start_row(learner), 4, engine=ADJOINT, record=2)
    assert found.engine == "reference"
    assert found.record is not None
    assert torch.equal(found.loss, train(learner, start_row(learner), 4).loss)


def test_a_task_without_targets_is_refused_in_the_words_of_the_reference():
    learner = Learner(Network.chain((64, 9, 10)), Backprop(), {ANY: Delta()}, {ANY: Sgd()})
    for engine in (EXACT, ADJOINT):
        with pytest.raises(ValueError, match="needs targets, and the task gives none"):
            train(learner, start_row(learner), 3, Digits("bandit"), engine=engine, wants=GRADIENT)


@every_adjoint
def test_where_only_fixed_feedback_weights_have_a_rule_nothing_learns_and_there_is_no_gradient(engine):
    learner = Learner(Network.chain((6, 5, 3)), FeedbackAlignment(), {"feedback": THREE}, {ANY: Sgd()})
    expected, found = both(learner, engine=engine(dtype=torch.float64))
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-10, atol=0)
    assert torch.equal(found.grad, torch.zeros_like(expected.grad))


@pytest.mark.skipif(Fused not in BY_HAND, reason="there is no kernel here")
def test_a_kernel_that_finds_no_memory_for_a_tape_says_so(monkeypatch):
    starved = fused.library()._replace(tape=lambda *asked: -1)
    monkeypatch.setattr(fused, "library", lambda: starved)
    learner = fitting_learner(Backprop(), rule=THREE)
    with pytest.raises(MemoryError, match="lower the layers' sizes"):
        train(learner, start_row(learner), 3, engine=Fused(), wants=GRADIENT)


def test_a_score_that_no_weight_enters_has_no_gradient():
    class Blind(Imitation):
        def sample(self, noise, batch):
            episode = super().sample(noise, batch)
            episode.score = lambda respond, weights: dict.fromkeys(("distance", "closeness"), torch.ones(noise.runs))
            return episode

    learner = fitting_learner(Backprop(), rule=THREE)
    found = train(learner, start_row(learner), 3, Blind(), engine=ADJOINT, wants=GRADIENT)
    assert found.grad is not None
    assert torch.equal(found.grad, torch.zeros(1, 3, dtype=torch.float64))


MEASURED = """
import resource, sys, torch
from metarule.inner import ENGINES, Runs
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules.terms import Terms
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
task = Digits()
rule = Terms(start={"error_pre": 0.02, "error_pre_error": 0.01, "subspace_oja": 0.01})
learner = Learner(Network.chain((64, 32, 10)), FeedbackAlignment(), {"forward": rule}, {ANY: Sgd()})
theta = torch.tensor([[param.start for param in learner.params]])

def slope(name, runs, steps=100):
    engine = ENGINES[name](None, torch.float32, 1, map)
    engine.evaluate(learner, theta, task, Runs((0,), tuple(range(runs))), range(steps), 4, frozenset({"grad"}))
    return peak()

slope("reference", 2, 2)
before = slope("adjoint", 2, 2)
for asked in (("adjoint", 32), ("adjoint", 128), ("reference", 32)):
    print(slope(*asked) - before)
"""
"""Gradients through 100 steps of digits, B = 4: MiB by which a process grows, each more than the ones before take."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process took")
def test_the_adjoint_takes_a_third_of_the_memory_of_autograd_and_a_fixed_share_for_more_runs():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEASURED]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    few, many, autograd = map(float, found.split())
    assert few < autograd / 3
    # all of them at once would take 4 x few; a third more than planned is what operations take for themselves
    assert few < many < 1.4 * parts.BUDGET / 2**20
