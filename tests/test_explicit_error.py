"""Explicit errors: random targets, random and learned feedback weights against what the theory says of them."""

from __future__ import annotations

import pytest
import torch
from building import EXACT, Imitation, address, fitting_learner, start_row, train

from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.direct_random_target import DirectRandomTarget
from metarule.credit.feedback import feedback_name, target_of, without_bias
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.information_alignment import InformationAlignment
from metarule.credit.weight_mirror import WeightMirror
from metarule.inner import Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import starts
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, Hebb
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits
from metarule.zoo import ZOO

DIGITS = Network.chain((64, 64, 32, 10), bias=True)


def degrees(first, second):
    """The angle between two matrices per run (R)."""
    return torch.rad2deg(torch.acos(torch.cosine_similarity(first.flatten(1), second.flatten(1), dim=1)))


def feedback_angles(network, weights):
    """Forward projection -> angle between B and W^T (R)."""
    return {
        p.name: degrees(weights[feedback_name(p)], without_bias(p, weights[p.name]).transpose(1, 2))
        for p in network.projections
        if p.source != network.input_name
    }


def begun(learner, runs=2, events=5):
    """Columns of theta, weights and a batch of some runs."""
    noise = address("explicit error", runs=runs)
    columns = learner.columns(starts(learner.params)[None].expand(runs, -1))
    sizes = learner.network.sizes
    task = Imitation(sizes[learner.network.input_name], sizes[learner.network.output_name])
    return columns, learner.init(columns, noise)["weights"], task.sample(noise.at("data"), events).train(0)


def test_random_target_projection_is_direct_feedback_alignment_with_the_target_for_an_error():
    learner = fitting_learner(DirectRandomTarget())
    columns, weights, batch = begun(learner)
    network = learner.network
    output = network.forward(weights, batch.x).rates["output"]
    wanted = {p.name: learner.credit.gives for p in network.projections}

    def signals(credit, y):
        noise = address("run", runs=2)
        return credit.stage(0, columns.credit, network, weights, {}, Batch(batch.x, y), 0, noise, wanted)[0]

    own = signals(learner.credit, batch.y)
    other = signals(DirectFeedbackAlignment(), output + target_of(batch))  # whose error is batch.y
    for projection in network.projections[:-1]:
        for name in ("error", "feedback", "pre_error"):
            mine, theirs = own[projection.name].read(name), other[projection.name].read(name)
            if name == "pre_error" or projection.target != "output":
                torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(own["hidden2->output"].read("error"), target_of(batch) - output, rtol=1e-12, atol=1e-14)


def test_feedback_alignment_starts_at_a_right_angle_to_backprop_and_its_weights_come_to_the_feedback():
    learner = Learner(DIGITS, FeedbackAlignment(), {"forward": Delta()}, {ANY: Sgd()}, fixed={"synapse.rate": 0.1})
    runs = Runs((0,), (0, 1, 2, 3))

    def trained(steps, carry=None):
        theta = starts(learner.params)[None]
        outcome = EXACT.evaluate(learner, theta, Digits(), runs, steps, 32, frozenset({"loss", "carry"}), carry=carry)
        assert outcome.carry is not None
        return outcome.carry

    def cosine(carry):
        """Between the hidden updates of feedback alignment and of backprop, on one batch of 256."""
        columns = learner.columns(starts(learner.params)[None].expand(4, -1))
        gradient = Learner(DIGITS, Backprop(), {"forward": Delta()}, {ANY: Sgd()})
        batch = Digits().sample(address("batch", runs=4), 256).train(0)
        state = {**carry, "credit": {}}
        noise = address("run", runs=4)
        mine, best = (each.induced(columns, state, batch, 0, noise) for each in (learner, gradient))
        hidden = [p.name for p in DIGITS.projections if p.target != "output"]
        flat = [torch.cat([changes[name].flatten(1) for name in hidden], dim=1) for changes in (mine, best)]
        return torch.cosine_similarity(*flat, dim=1)

    first = trained(range(1))
    assert cosine(first).mean().abs() < 0.2
    later = trained(range(1, 300), first)
    assert (cosine(later) > 0.2).all()
    before, after = (feedback_angles(DIGITS, carry["weights"]) for carry in (first, later))
    for name, angle in before.items():
        assert (angle - 90).abs().max() < 10
        assert (after[name] < angle).all()
    # after 6.7 epochs
    for name, least, most in (("hidden2->output", 50, 57), ("hidden1->hidden2", 75, 80)):
        assert ((after[name] > least) & (after[name] < most)).all(), name


def mirrored(steps, decay=0.0, rate=1.0, sizes=(10, 8, 6, 4)):
    """Weights after some mirror batches of 16 with forward weights at rest, from feedback weights of 0."""
    network = Network.chain(sizes, bias=True)
    synapses = {ANY: Sgd(), "feedback": Sgd(weight_decay=decay)}
    rules = {"forward": Delta(), "feedback": Hebb()}
    learner = Learner(network, WeightMirror(), rules, synapses, schedule=lambda step: {"forward": 0.0})
    theta = start_row(learner, rate=rate)
    carry = learner.init(learner.columns(theta.repeat(4, 1)), address("mirror", runs=4))
    for projection in network.projections:
        name = feedback_name(projection)
        carry["weights"][name] = torch.zeros_like(carry["weights"][name])
    outcome = train(learner, theta, steps, runs=Runs((0,), (0, 1, 2, 3)), carry=carry, batch=16)
    assert outcome.carry is not None
    return network, outcome.carry["weights"]


@pytest.mark.parametrize(("batches", "most"), [(10, 15.0), (100, 5.0), (400, 3.0)])
def test_weight_mirror_finds_the_weights_from_noise_alone(batches, most):
    for angle in feedback_angles(*mirrored(batches)).values():
        assert (angle < most).all()


def test_weight_mirror_with_decay_settles_at_the_size_of_the_weights():
    sigma = WeightMirror().params[0].start
    network, weights = mirrored(300, decay=sigma**2, rate=2.0)
    for projection in network.projections[1:]:
        forward = without_bias(projection, weights[projection.name]).transpose(1, 2)
        ratio = (weights[feedback_name(projection)] * forward).sum((1, 2)) / forward.square().sum((1, 2))
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=0.1)


def test_mirroring_changes_feedback_weights_only():
    learner = fitting_learner(WeightMirror())
    columns, weights, batch = begun(learner)
    wanted = {p.name: learner.credit.gives_at(learner.network, p) for p in learner.plastic}
    stages = [
        learner.credit.stage(k, columns.credit, learner.network, weights, {}, batch, 0, address("run", runs=2), wanted)[
            0
        ]
        for k in range(learner.credit.stages(learner.network, batch))
    ]
    forward = {p.name for p in learner.network.projections}
    assert [set(stage) for stage in stages] == [forward, {feedback_name(p) for p in learner.network.projections}]


GROW, NULL, FORGET = 0.3, 0.2, 0.05


def aligned(start, steps=1000):
    """Feedback weights that information alignment comes to from `start`, W at rest, x white; and W."""
    network = Network.chain((4, 4, 3), "linear", "linear")
    noise = address("white", runs=2)
    normal = noise.at("x").normal(20, 4)
    white = torch.linalg.qr(normal - normal.mean(1, keepdim=True))[0] * 20**0.5
    weights = {
        "input->hidden1": torch.eye(4, dtype=torch.float64).expand(2, -1, -1),
        "hidden1->output": noise.at("w").normal(3, 4),
        "output=>hidden1": noise.at("b").normal(4, 3) * start,
    }
    rule = Terms(("post_pre", "post_ref_pre", "weight_decay"), normalise=False)
    coefficients = torch.tensor([[GROW, -NULL, FORGET]], dtype=torch.float64).expand(2, -1)
    batch = Batch(white, torch.zeros(2, 20, 3, dtype=torch.float64))
    name = "output=>hidden1"
    for step in range(steps):
        signals, _ = InformationAlignment().stage(
            0, torch.zeros(2, 0), network, weights, {}, batch, step, noise, {name: rule.reads}
        )
        change, _ = rule.delta(coefficients, signals[name], {}, noise)
        weights[name] = change.scaled(0.5).apply(weights[name])
    return weights[name], weights["hidden1->output"]


@pytest.mark.parametrize("start", [1.0, 1000.0])
def test_information_alignment_settles_at_the_regularised_inverse_wherever_it_starts(start):
    feedback, forward = aligned(start)
    gram = NULL * forward @ forward.transpose(1, 2) + FORGET * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(feedback, GROW * forward.transpose(1, 2) @ torch.linalg.inv(gram), rtol=1e-9, atol=1e-9)


def test_information_alignment_takes_the_mean_out_of_what_it_sends_unless_told_not_to():
    sent = {}
    for centred in (True, False):
        learner = fitting_learner(InformationAlignment(centred=centred), rule=Delta(), synapse=Sgd())
        columns, weights, batch = begun(learner)
        name = "output=>hidden2"
        seen = learner.credit.stage(
            0, columns.credit, learner.network, weights, {}, batch, 0, address("run", runs=2), {name: frozenset()}
        )[0][name]
        sent[centred] = seen.read("post")
        rates = learner.network.forward(weights, batch.x).rates["hidden2"]
    assert torch.equal(sent[False], rates)
    torch.testing.assert_close(sent[True], rates - rates.mean(1, keepdim=True), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["weight_mirror", "information_alignment", "kolen_pollack"])
def test_learned_feedback_of_a_row_comes_closer_to_the_weights_than_fixed_feedback(name):
    runs = Runs((0,), (0, 1))

    def angles(row):
        learner = ZOO[row].learner(DIGITS)
        outcome = EXACT.evaluate(
            learner, starts(learner.params)[None], Digits(), runs, range(150), 32, frozenset({"loss", "carry"})
        )
        assert outcome.carry is not None
        return feedback_angles(DIGITS, outcome.carry["weights"])

    fixed, learned = angles("feedback_alignment"), angles(name)
    for projection, angle in fixed.items():
        assert (learned[projection] < angle - 10).all()
