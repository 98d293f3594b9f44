"""Targets: what exact inverses make of them, what feedback learns to be, and what no target may know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import Imitation, address, fitting_learner, make, random_theta, train
from torch.nn.functional import cosine_similarity, mse_loss

from metarule.credit import CREDIT, CreditAssignment
from metarule.credit.auxiliary_output_target_propagation import AuxiliaryOutputTargetPropagation
from metarule.credit.backprop import Backprop
from metarule.credit.difference_reconstruction_loss import DifferenceReconstructionLoss
from metarule.credit.difference_target_propagation import DifferenceTargetPropagation
from metarule.credit.direct_target_propagation import DirectTargetPropagation
from metarule.credit.gauss_newton_targets import GaussNewtonTargets
from metarule.credit.local_difference_reconstruction import LocalDifferenceReconstruction
from metarule.credit.simplified_difference_target_propagation import SimplifiedDifferenceTargetPropagation
from metarule.credit.target_propagation import TargetPropagation
from metarule.credit.targets import Targets
from metarule.learner import ANY, Learner
from metarule.network import Network, Population, Projection
from metarule.params import starts
from metarule.rules.textbook import Contrastive, Delta, Difference
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd

EVENTS = 3
RUNS = 2

LAYERWISE: dict[str, Any] = {
    "target_propagation": TargetPropagation(),
    "difference": DifferenceTargetPropagation(),
    "lee": DifferenceTargetPropagation(penultimate="gradient"),
    "simplified": SimplifiedDifferenceTargetPropagation(),
    "auxiliary": AuxiliaryOutputTargetPropagation(auxiliary=7),
    "reconstruction": DifferenceReconstructionLoss(),
    "local": LocalDifferenceReconstruction(),
}
DIRECT: dict[str, Any] = {
    "direct": DirectTargetPropagation(),
    "features": DirectTargetPropagation(features=9),
}
ALL: dict[str, Any] = LAYERWISE | DIRECT | {"gauss_newton": GaussNewtonTargets()}


class Scene:
    """One batch in front of a learner: what it hears in every stage, weights standing still."""

    def __init__(self, credit: CreditAssignment, network: Network, runs: int = RUNS, events: int = EVENTS) -> None:
        self.network, self.credit = network, credit
        rules: dict[str, Any] = {"forward": Delta() if isinstance(credit, Backprop) else Difference()}
        for projection in credit.projections(network):
            if projection.role in credit.plastic_roles:
                contrasts = "pre_ref" in credit.gives_at(network, projection)
                rules[projection.role] = Contrastive() if contrasts else Difference()
        self.learner = Learner(network, credit, rules, {ANY: Sgd()})
        theta = starts(self.learner.params).expand(runs, -1)
        self.columns = self.learner.columns(theta)
        noise = address(0, "episode", runs=runs)
        self.weights = dict(self.learner.init(self.columns, noise)["weights"])
        task = Imitation(network.sizes[network.input_name], network.sizes[network.output_name])
        self.batch = task.sample(noise.at("data"), events).train(0)
        self.theta = self.columns.credit
        self.noise = address("run", runs=runs)

    def stage(self, k, batch=None, noise=None):
        """The signals of stage k."""
        return self.credit.stage(
            k, self.theta, self.network, self.weights, {}, batch or self.batch, 0, noise or self.noise,
            self.learner.wanted,
        )[0]  # fmt: skip

    def moves(self, batch=None):
        """target - activity by population, from the signals of the forward stage."""
        signals = self.stage(self.credit.stages(self.network, self.batch) - 1, batch)
        return {
            p.target: signals[p.name].read("post") - signals[p.name].read("post_ref") for p in self.network.projections
        }

    @property
    def activity(self):
        return self.network.forward(self.weights, self.batch.x)

    @property
    def error(self):
        assert self.batch.y is not None
        return self.batch.y - self.activity.rates["output"]

    def follow(self, stages, rate):
        """Feedback after some inverse stages of the rule's own changes, forward weights and batch as they are."""
        for count in range(stages):
            signals = self.stage(0, noise=address("run", count, runs=len(self.theta)))
            for name, seen in signals.items():
                rule = self.learner.rules["inverse"]
                change, _ = rule.delta(self.theta[:, :0], seen, {}, address("rule", runs=len(self.theta)))
                self.weights[name] = (change * rate).apply(self.weights[name])


def tanh_chain(sizes=(6, 5, 4, 3), output="softmax", bias=True, activation="tanh"):
    return Network.chain(sizes, activation, output, bias=bias)


def square(credit):
    """A linear chain of square layers whose feedback is the exact inverse of every layer."""
    scene = Scene(credit, tanh_chain((4, 4, 4, 4), "linear", bias=False, activation="linear"))
    for projection in scene.network.projections:
        weight = skewed(scene.weights[projection.name], 2.0, 1.5, 1.0, 0.5)
        scene.weights[projection.name] = weight
        if projection.source != "input":
            scene.weights[f"{projection.target}~>{projection.source}"] = torch.linalg.inv(weight)
    return scene


def skewed(weight, *singular_values):
    """The matrices with other singular values."""
    left, _, right = torch.linalg.svd(weight, full_matrices=False)
    return left @ torch.diag(torch.tensor(singular_values, dtype=weight.dtype)) @ right


@pytest.mark.parametrize("credit", [TargetPropagation(), DifferenceTargetPropagation(), DifferenceReconstructionLoss()])
def test_targets_through_exact_inverses_are_gauss_newton_targets(credit):
    scene = square(credit)
    moves = scene.moves()
    oracle = square_oracle(scene)
    aim = 0.2 * scene.error
    for name in ("hidden2->output", "hidden1->hidden2", "input->hidden1"):
        target = name.partition("->")[2]
        torch.testing.assert_close(moves[target], aim, rtol=0, atol=1e-14)
        torch.testing.assert_close(moves[target], oracle[target], rtol=0, atol=1e-14)
        aim = aim @ torch.linalg.inv(scene.weights[name]).transpose(1, 2)


@pytest.mark.parametrize("credit", [TargetPropagation(), DifferenceTargetPropagation(), DifferenceReconstructionLoss()])
def test_exact_inverses_have_nothing_to_learn(credit):
    scene = square(credit)
    before = dict(scene.weights)
    scene.follow(1, 1.0)
    for name, weight in scene.weights.items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-13)


def square_oracle(scene):
    oracle = Scene(GaussNewtonTargets(), scene.network)
    oracle.theta = torch.tensor([[0.2, 0.0]], dtype=torch.float64).expand(RUNS, -1)
    oracle.weights = scene.weights
    return oracle.moves()


def jacobian(scene, population, run, event):
    """d (drive of the output) / d (rate of a hidden population), by autograd."""
    names = list(scene.network.sizes)
    above = scene.network.projections[names.index(population) :]

    def drive(rate):
        rates = {population: rate[None, None]}
        last = rate
        for projection in above:
            pre = scene.network.pre(projection, rates)
            last = torch.bmm(pre, scene.weights[projection.name][run : run + 1].transpose(1, 2))
            rates[projection.target] = scene.network.rate(projection.target, last)
        return last[0, 0]

    return torch.autograd.functional.jacobian(drive, scene.activity.rates[population][run, event])


@pytest.mark.parametrize("sizes", [(6, 7, 5, 3), (3, 4, 5, 6)])
def test_undamped_gauss_newton_moves_are_the_pseudo_inverse_of_each_events_jacobian(sizes):
    scene = Scene(GaussNewtonTargets(), tanh_chain(sizes))
    scene.theta = torch.tensor([[0.2, 0.0]], dtype=torch.float64).expand(RUNS, -1)
    moves, error = scene.moves(), scene.error
    for population in ("hidden1", "hidden2"):
        for run in range(RUNS):
            for event in range(EVENTS):
                expected = torch.linalg.pinv(jacobian(scene, population, run, event)) @ (0.2 * error[run, event])
                torch.testing.assert_close(moves[population][run, event], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("credit", ALL.values(), ids=ALL.keys())
def test_a_perfect_output_leaves_every_layer_at_rest_whatever_its_inverse_unless_targets_are_sent_whole(credit):
    scene = Scene(credit, tanh_chain())
    moves = scene.moves(Batch(scene.batch.x, scene.activity.rates["output"]))
    for population in ("hidden1", "hidden2"):
        still = float(moves[population].abs().max()) < 1e-15
        assert still == (credit.kind != "target_propagation")


BACKWARDS = {"hidden2->output": {"lee", "gauss_newton", "backprop"}, "hidden1->hidden2": {"gauss_newton", "backprop"}}


@pytest.mark.parametrize("edge", BACKWARDS)
@pytest.mark.parametrize(("name", "credit"), [*ALL.items(), ("backprop", Backprop())])
def test_weights_above_a_layer_are_felt_through_activity_alone_unless_the_kind_sends_through_them(name, credit, edge):
    scene = Scene(credit, tanh_chain())
    projection = next(p for p in scene.network.projections if p.name == edge)
    before = heard_below(scene)
    activity = scene.network.pre(projection, scene.activity.rates)
    # a change of W that no event of the batch can tell: its rows are orthogonal to all activity below
    unseen = torch.eye(activity.shape[2], dtype=torch.float64) - torch.linalg.pinv(activity) @ activity
    other = address("unseen", runs=RUNS).normal(scene.weights[edge].shape[1], activity.shape[2])
    scene.weights[edge] = scene.weights[edge] + torch.bmm(other, unseen)
    after = heard_below(scene)
    changed = any(not torch.allclose(after[each], before[each], rtol=0, atol=1e-12) for each in before)
    assert changed == (name in BACKWARDS[edge])


def heard_below(scene):
    """What moves every hidden layer."""
    if not isinstance(scene.credit, Backprop):
        moves = scene.moves()
        return {name: moves[name] for name in ("hidden1", "hidden2")}
    signals = scene.stage(0)
    return {p.target: signals[p.name].read("error") for p in scene.network.projections[:-1]}


@pytest.mark.parametrize("credit", (LAYERWISE | DIRECT).values(), ids=(LAYERWISE | DIRECT).keys())
def test_feedback_learns_in_stages_of_its_own_before_the_forward_weights_change(credit):
    credit = make(type(credit), **{**vars(credit), "inverse_stages": 2})
    scene = Scene(credit, tanh_chain())
    assert credit.stages(scene.network, scene.batch) == 3
    inverses = {p.name for p in scene.learner.plastic if p.role == "inverse"}
    assert len(inverses) == 2
    assert set(scene.stage(0)) == set(scene.stage(1)) == inverses
    assert set(scene.stage(2)) == {p.name for p in scene.network.projections}


def reconstruction_losses(scene):
    """What the inverses of a scene descend, one after another, on noise that they do not learn from."""
    if isinstance(scene.credit, DifferenceReconstructionLoss):
        return [difference_reconstruction_loss(scene, lower, scene.weights) for lower in ("hidden1", "hidden2")]
    losses = []
    for name, seen in scene.stage(0).items():
        post, post_ref = seen.read("post"), seen.read("post_ref")
        if isinstance(scene.credit, LocalDifferenceReconstruction):
            back = torch.bmm(seen.read("pre"), scene.weights[name].transpose(1, 2))
            losses.append((post_ref.square() / 2 - post * back).sum(-1).mean())
        else:
            losses.append(mse_loss(post_ref, post))
    return losses


PACE = {"local": (4, 0.05), "reconstruction": (60, 0.1)}  # stages and rate; the first is there in less than 60


@pytest.mark.parametrize("name", [*LAYERWISE, *DIRECT])
def test_reconstruction_gets_better_at_every_layer_while_forward_weights_rest(name):
    scene, found = Scene(ALL[name], tanh_chain(), events=100), []
    for _ in range(4):
        found.append(torch.stack(reconstruction_losses(scene)))
        scene.follow(*PACE.get(name, (60, 0.2)))
    losses = torch.stack(found)
    assert (losses.diff(dim=0) < 0).all()
    assert (losses[-1] < 0.9 * losses[0]).all()


def difference_reconstruction_loss(scene, lower, weights):
    """|h + xi - what comes back of it from the output|^2 / (2 sigma^2), summed over runs (Meulemans et al. 2020)."""
    network, rates, sigma = scene.network, scene.activity.rates, 0.1
    place = list(network.sizes).index(lower)
    xi = sigma * scene.noise.at("xi", lower).normal(*rates[lower].shape[1:])
    perturbed, drives = {lower: rates[lower] + xi}, {}
    for projection in network.projections[place:]:
        pre = network.pre(projection, perturbed)
        drives[projection.target] = torch.bmm(pre, weights[projection.name].transpose(1, 2))
        perturbed[projection.target] = network.rate(projection.target, drives[projection.target])
    back = drives["output"]
    for projection in reversed(network.projections[place:]):
        upper = scene.activity.drives["output"] if projection.target == "output" else rates[projection.target]
        matrix = weights[f"{projection.target}~>{projection.source}"].transpose(1, 2)
        rebuilt = [torch.tanh(with_bias(each) @ matrix) for each in (back, upper)]
        back = rates[projection.source] + rebuilt[0] - rebuilt[1]
    return (rates[lower] + xi - back).square().sum(-1).mean(1).sum() / (2 * sigma**2)


def test_inverses_keep_noise_or_remove_it():
    kept, removed = (
        Scene(credit, tanh_chain((6, 50, 3)), events=400)
        for credit in (DifferenceTargetPropagation(), SimplifiedDifferenceTargetPropagation())
    )
    rates = kept.activity.rates["hidden1"]
    xi = kept.stage(0)["output~>hidden1"].read("post") - rates
    assert 0.099 < float(xi.std()) < 0.101  # sigma = 0.1, 40000 draws
    assert torch.equal(removed.stage(0)["output~>hidden1"].read("post"), rates)


def test_the_original_sets_the_penultimate_target_by_the_gradient():
    scene = Scene(DifferenceTargetPropagation(penultimate="gradient"), tanh_chain())
    leaf = scene.activity.rates["hidden2"].clone().requires_grad_()
    last = scene.network.projections[-1]
    drive = torch.bmm(scene.network.pre(last, {"hidden2": leaf}), scene.weights[last.name].transpose(1, 2))
    assert scene.batch.y is not None
    (gradient,) = torch.autograd.grad(scene.network.loss(drive, scene.batch.y).sum(), leaf)
    torch.testing.assert_close(scene.moves()["hidden2"], -0.2 * gradient, rtol=0, atol=1e-12)


def orthogonal(scene):
    """The scene with orthogonal layers, feedback their transpose, and inputs so small that tanh is nearly linear."""
    for projection in scene.network.projections:
        scene.weights[projection.name] = torch.linalg.qr(scene.weights[projection.name])[0]
        name = f"{projection.target}~>{projection.source}"
        if name in scene.weights:
            scene.weights[name] = scene.weights[projection.name].transpose(1, 2).contiguous()
    assert scene.batch.y is not None
    scene.batch = Batch(0.01 * scene.batch.x, scene.batch.y)
    return scene


def test_small_steps_through_transposed_jacobians_go_where_backprop_goes():
    network = tanh_chain((4, 4, 4, 4), bias=False)
    backprop = orthogonal(Scene(Backprop(), network))
    feedback = backprop.stage(0)["input->hidden1"].read("feedback").flatten()
    gaps = []
    for step in (3.0, 1.0, 0.3, 0.01):
        scene = orthogonal(Scene(DifferenceTargetPropagation(), network))
        scene.theta = torch.tensor([[step, 0.1]], dtype=torch.float64).expand(RUNS, -1)
        gaps.append(1 - float(cosine_similarity(scene.moves()["hidden1"].flatten(), feedback, dim=0)))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1e-2
    assert gaps[-1] < 1e-6


def test_auxiliary_outputs_that_the_inverse_ignores_make_no_difference():
    network = tanh_chain()
    plain = Scene(SimplifiedDifferenceTargetPropagation(), network)
    scene = Scene(AuxiliaryOutputTargetPropagation(auxiliary=7), network)
    inverse = scene.weights["output~>hidden2"]
    assert inverse.shape[2] == 3 + 7 + 1
    moved = scene.moves()["hidden2"]
    plain.weights["output~>hidden2"] = inverse[:, :, [0, 1, 2, 10]]
    assert not torch.allclose(moved, plain.moves()["hidden2"], atol=1e-3)
    scene.weights["output~>hidden2"] = torch.cat((inverse[:, :, :3], 0 * inverse[:, :, 3:10], inverse[:, :, 10:]), 2)
    for population, move in scene.moves().items():
        torch.testing.assert_close(move, plain.moves()[population], rtol=0, atol=1e-12)


def test_the_contrastive_rule_descends_the_difference_reconstruction_loss():
    scene = Scene(DifferenceReconstructionLoss(), tanh_chain((6, 5, 4, 4, 3)))
    signals = scene.stage(0)
    for lower, upper in (("hidden1", "hidden2"), ("hidden2", "hidden3"), ("hidden3", "output")):
        name = f"{upper}~>{lower}"
        leaf = scene.weights[name].clone().requires_grad_()
        loss = difference_reconstruction_loss(scene, lower, scene.weights | {name: leaf})
        (gradient,) = torch.autograd.grad(loss, leaf)
        change, _ = Contrastive().delta(scene.theta[:, :0], signals[name], {}, address("rule", runs=RUNS))
        torch.testing.assert_close(change.tensor(scene.weights[name]), -gradient, rtol=1e-9, atol=1e-10)


def with_bias(rate):
    return torch.cat((rate, torch.ones_like(rate[:, :, :1])), dim=2)


def cosine(first, second):
    """The least of the runs' cosines between two stacks of matrices."""
    return float(cosine_similarity(first.flatten(1), second.flatten(1), dim=1).min())


def test_local_difference_reconstruction_learns_the_transposed_mean_jacobian_of_each_layer():
    scene = Scene(LocalDifferenceReconstruction(), tanh_chain((8, 7, 6, 5)), events=100)
    scene.theta = torch.tensor([[0.7, 0.01]], dtype=torch.float64).expand(RUNS, -1)
    before = {name: weight for name, weight in scene.weights.items() if "~>" in name}
    scene.follow(100, 0.1)
    rates = scene.activity.rates
    for lower, upper in (("hidden1", "hidden2"), ("hidden2", "output")):
        weight = scene.weights[f"{lower}->{upper}"][:, :, :-1].transpose(1, 2)
        slope = 1 - rates[upper].square() if upper != "output" else torch.ones_like(rates[upper])
        transposed = weight * slope.mean(1, keepdim=True)
        name = f"{upper}~>{lower}"
        assert cosine(scene.weights[name], transposed) > 0.98
        assert cosine(before[name], transposed) < 0.5


def test_local_difference_reconstruction_with_transposed_weights_moves_along_backprops_error():
    network = tanh_chain((6, 5, 4, 3), activation="linear")
    scene, backprop = Scene(LocalDifferenceReconstruction(), network), Scene(Backprop(), network)
    for lower, upper in (("hidden1", "hidden2"), ("hidden2", "output")):
        scene.weights[f"{upper}~>{lower}"] = scene.weights[f"{lower}->{upper}"][:, :, :-1].transpose(1, 2)
    step, signals, moves = scene.theta[:, :1, None], backprop.stage(0), scene.moves()
    for projection in network.projections:
        error = signals[projection.name].read("error")
        torch.testing.assert_close(moves[projection.target], step * error, rtol=0, atol=1e-12)


def test_direct_linear_feedback_learns_the_pseudo_inverse_and_not_the_transpose():
    network = tanh_chain((6, 5, 4, 3), "linear", activation="linear")
    scene = Scene(DirectTargetPropagation(), network, events=1000)
    # singular values 2, 1 and 0.3: the pseudo-inverse and the transpose point to different places
    last = scene.weights["hidden2->output"]
    scene.weights["hidden2->output"] = torch.cat((skewed(last[:, :, :-1], 2.0, 1.0, 0.3), last[:, :, -1:]), dim=2)
    scene.weights["hidden1->hidden2"] = torch.linalg.qr(scene.weights["hidden1->hidden2"].transpose(1, 2))[0].transpose(
        1, 2
    )
    for rate in (0.3, 0.1, 0.03):
        scene.follow(120, rate)
    path = torch.eye(3, dtype=torch.float64).expand(RUNS, -1, -1)
    for projection in reversed(network.projections[1:]):
        path = path @ scene.weights[projection.name][:, :, :-1]
        learned = scene.weights[f"output~>{projection.source}"]
        assert cosine(learned, torch.linalg.pinv(path)) > 0.999
        assert cosine(learned, path.transpose(1, 2)) < 0.6


def test_only_the_last_hidden_layer_hears_the_output_itself_where_features_are_shared():
    network = tanh_chain()
    shapes = {p.name: network.shape(p) for p in DirectTargetPropagation(features=9).projections(network)}
    assert shapes == {"features~>hidden1": (5, 9), "output~>hidden2": (4, 3), "output=>features": (9, 3)}
    assert [p.name for p in DirectTargetPropagation().projections(network)] == ["output~>hidden1", "output~>hidden2"]
    shallow = tanh_chain((6, 5, 3))
    assert [p.name for p in DirectTargetPropagation(features=9).projections(shallow)] == ["output~>hidden1"]


SKIP = Network.chain((4, 3, 3, 2), skips=((0, 2),))
BRANCH = Network(
    (Population("input", 4), Population("left", 3), Population("right", 3), Population("output", 2)),
    tuple(
        Projection(f"{a}->{b}", a, b)
        for a, b in (("input", "left"), ("input", "right"), ("left", "output"), ("right", "output"))
    ),
)


@pytest.mark.parametrize("network", [SKIP, BRANCH], ids=["skip", "branch"])
@pytest.mark.parametrize("kind", [kind for kind, member in CREDIT.items() if issubclass(member, Targets)])
def test_a_network_that_is_no_chain_is_refused(kind, network):
    with pytest.raises(ValueError, match=r"targets travel down a chain of layers, but population '.*' receives from"):
        Learner(network, make(CREDIT[kind]), {ANY: Difference()}, {ANY: Sgd()})


@pytest.mark.parametrize("credit", ALL.values(), ids=ALL.keys())
def test_a_task_without_targets_is_refused(credit):
    scene = Scene(credit, tanh_chain())
    with pytest.raises(ValueError, match="needs targets, and the task gives none"):
        scene.moves(Batch(scene.batch.x))


@pytest.mark.parametrize("name", ["simplified", "auxiliary"])
def test_the_label_itself_is_the_target_where_no_gradient_is_used(name):
    scene = Scene(ALL[name], tanh_chain())
    torch.testing.assert_close(scene.moves()["output"], scene.error, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: TargetPropagation(inverse_stages=0), "credit.inverse_stages = 0 must be at least 1"),
        (lambda: DirectTargetPropagation(inverse_stages=0), "credit.inverse_stages = 0 must be at least 1"),
        (lambda: DifferenceTargetPropagation(penultimate="gradeint"), "did you mean 'gradient'"),
        (lambda: AuxiliaryOutputTargetPropagation(auxiliary=0), "credit.auxiliary = 0 must be at least 1"),
        (lambda: DirectTargetPropagation(features=-1), "credit.features = -1 must not be negative"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_feedback_alone_learns_where_forward_weights_are_held():
    learner = fitting_learner(DifferenceTargetPropagation(), schedule=lambda step: {"forward": 0.0})
    theta = random_theta(learner.params, address("theta"))
    weights = [(train(learner, theta, steps).carry or {})["weights"] for steps in (1, 3)]
    held = {name: torch.equal(weights[0][name], weights[1][name]) for name in weights[0]}
    assert held == {name: "~>" not in name for name in held}
