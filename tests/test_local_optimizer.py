"""LocalOptimizer does to a user's own model what the engine does to its networks, and what autograd would do."""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import runpy
import sys
from pathlib import Path

import pytest
import torch
from building import EXACT
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.nn.utils import prune

from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.node_perturbation import NodePerturbation
from metarule.credit.none import Nobody
from metarule.inner import Reference, Runs
from metarule.local_optimizer import LocalOptimizer
from metarule.network import Network
from metarule.portable import Portable, carrying, portable
from metarule.rng import noise_for
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, Oja
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits
from metarule.zoo import ZOO

MODULES = {"tanh": nn.Tanh(), "relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "linear": nn.Identity()}
STEPS, BATCH, SEED = 3, 4, 5

THREE_TERMS = Portable(
    "planted",
    FeedbackAlignment(),
    {"forward": Terms(("error_pre", "error_pre_error", "subspace_oja"))},
    {"any": Sgd()},
    {"rule.forward.error_pre": 0.31, "rule.forward.error_pre_error": 1.2, "rule.forward.subspace_oja": 0.3},
    Network.chain((64, 9, 8, 10), "softplus", beta=10.0, bias=True),
)
"""What a search over three terms might find."""

ROWS = {name: portable(name) for name, row in ZOO.items() if "digits" not in row.not_for}


@pytest.fixture(autouse=True)
def first_weights():
    """Layers start as torch draws them, the same at every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Softplus(2.0), nn.Linear(4, 3)).double()


def convolutional() -> nn.Sequential:
    parts = [
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 3, (3, 2), stride=(1, 2)),
        nn.Tanh(),
    ]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 5)).double()


def model_of(network: Network, weights: dict[str, Tensor]) -> nn.Sequential:
    """A user's model that is the same as a chain of the engine."""
    parts: list[nn.Module] = []
    for projection in network.projections:
        weight = weights[projection.name][0]
        layer = nn.Linear(weight.shape[1] - projection.bias, weight.shape[0], bias=projection.bias, dtype=weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(weight[:, : layer.in_features])
            if projection.bias:
                layer.bias.copy_(weight[:, -1])
        activation = network.activations[projection.target]
        parts += [layer, nn.Softplus(network.beta) if activation == "softplus" else MODULES[activation]]
    return nn.Sequential(*parts)


def batches(inputs: tuple[int, ...], classes: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Random inputs and classes; the first input is always blank."""
    noise = noise_for([("local optimizer",)])
    made = []
    for step in range(count):
        x = noise.at("x", step).normal(7, *inputs)[0]
        x.flatten(1)[:, 0] = 0
        made.append((x, noise.at("y", step).integers(classes, 7)[0]))
    return made


def layer(model: nn.Module, name: str) -> nn.Linear | nn.Conv2d:
    found = model.get_submodule(name)
    assert isinstance(found, nn.Linear | nn.Conv2d)
    return found


def difference(model: nn.Module, other: nn.Module) -> float:
    return max(float((p - q).detach().abs().max()) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def followed(known: Portable, network: Network, engine: Reference) -> float:
    """The largest difference between a model's weights and the engine's, at every step."""
    task, learner = Digits(), known.on(network)
    runs = Runs((0,), (SEED,))
    noise = noise_for([(0, "episode", SEED)], engine.dtype)
    columns = learner.columns(torch.zeros(1, 0, dtype=engine.dtype))
    episode = task.sample(noise.at("data"), BATCH)
    model = model_of(network, learner.init(columns, noise)["weights"])
    start = copy.deepcopy(model)
    optimizer = LocalOptimizer(
        model, known.rules, known.credit, known.synapses, learner.fixed, output=network.output, seed=SEED
    )
    outcome, largest = None, 0.0
    for step in range(STEPS):
        carry = outcome.carry if outcome else None
        outcome = engine.evaluate(
            learner, torch.zeros(1, 0), task, runs, range(step, step + 1), BATCH, frozenset({"carry"}), carry=carry
        )
        shown = episode.train(step)
        assert shown.y is not None
        optimizer.step(shown.x[0], shown.y[0].argmax(1))
        assert outcome.carry is not None
        expected = model_of(network, outcome.carry["weights"])
        largest = max(largest, difference(model, expected))
    assert difference(model, start) > 1e-6
    return largest


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_zoo_trains_a_model_of_mine_as_the_engine_trains_its_network(name):
    network = ZOO[name].host.network(64, (8, 7), 10, "softmax")
    assert followed(ROWS[name], network, EXACT) < 1e-10


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_a_discovered_rule_does_what_it_does_in_the_engine(dtype, bound):
    assert followed(THREE_TERMS, THREE_TERMS.network, Reference(dtype=dtype)) < bound


PAIRS = {
    "sgd": (Sgd(), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (Momentum(), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    "adam": (Adam(), lambda p: torch.optim.Adam(p, lr=0.01)),
    "decay": (Sgd(weight_decay=0.01), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_backprop_and_delta_are_autograd_with_the_optimizer_of_torch(name):
    synapse, optimizer_of = PAIRS[name]
    mine, theirs = perceptron(), perceptron()
    mine.load_state_dict(theirs.state_dict())
    other = optimizer_of(theirs.parameters())
    own = LocalOptimizer(mine, Delta(), Backprop(), synapse, lr=other.param_groups[0]["lr"])
    for x, y in batches((6,), 3, 10):
        own.step(x, y)
        other.zero_grad()
        nn.functional.cross_entropy(theirs(x), y).backward()
        other.step()
        assert difference(mine, theirs) < 1e-10


LOSSES = {
    "linear": lambda drive, y: 0.5 * (drive - y).square().sum(1).mean(),
    "sigmoid": lambda drive, y: (
        nn.functional.binary_cross_entropy_with_logits(drive, y, reduction="none").sum(1).mean()
    ),
    "softmax": lambda drive, y: nn.functional.cross_entropy(drive, y),
}


@pytest.mark.parametrize("output", LOSSES)
def test_every_output_learns_by_the_loss_that_is_said_of_it(output):
    mine, theirs = perceptron(), perceptron()
    mine.load_state_dict(theirs.state_dict())
    own = LocalOptimizer(mine, Delta(), Backprop(), lr=0.1, output=output)
    for x, y in batches((6,), 3, 3):
        target = nn.functional.one_hot(y, 3).double() * 0.7 + 0.1
        own.step(x, target)
        LOSSES[output](theirs(x), target).backward()
        with torch.no_grad():
            for parameter in theirs.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
        assert difference(mine, theirs) < 1e-12


def test_a_convolution_summed_over_positions_learns_as_by_autograd():
    mine, theirs = convolutional(), convolutional()
    mine.load_state_dict(theirs.state_dict())
    other = torch.optim.SGD(theirs.parameters(), lr=0.05)
    own = LocalOptimizer(mine, Delta(), Backprop(), lr=0.05, positions="sum")
    for x, y in batches((1, 8, 8), 5, 5):
        own.step(x, y)
        other.zero_grad()
        nn.functional.cross_entropy(theirs(x), y).backward()
        other.step()
        assert difference(mine, theirs) < 1e-12


def test_a_convolution_takes_the_mean_over_its_positions_whatever_the_size_of_the_image():
    mean, total = convolutional(), convolutional()
    total.load_state_dict(mean.state_dict())
    before = copy.deepcopy(mean)
    ((x, y),) = batches((1, 8, 8), 5, 1)
    for model, positions in ((mean, "mean"), (total, "sum")):
        LocalOptimizer(model, Delta(), Backprop(), lr=0.1, positions=positions).step(x, y)
    for place, shared in (("0", 64), ("3", 4), ("6", 1)):
        moved, summed = (layer(model, place).weight - layer(before, place).weight for model in (mean, total))
        assert torch.allclose(moved * shared, summed, rtol=1e-9, atol=1e-15)


def test_feedback_alignment_reaches_a_convolution_through_a_random_kernel_of_its_own():
    class Through(torch.autograd.Function):
        """Convolves with one kernel, and sends back through another."""

        @staticmethod
        def forward(ctx, x, weight, bias, feedback):
            ctx.save_for_backward(x, weight, feedback)
            return nn.functional.conv2d(x, weight, bias)

        @staticmethod
        def backward(ctx, *gradients):
            x, weight, feedback = ctx.saved_tensors
            (sent,) = gradients
            back = conv2d_input(x.shape, feedback, sent)
            return back, conv2d_weight(x, weight.shape, sent), sent.sum((0, 2, 3)), None

    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 5)
    ).double()
    twin = copy.deepcopy(model)
    ((x, y),) = batches((1, 8, 8), 5, 1)
    optimizer = LocalOptimizer(model, Delta(), FeedbackAlignment(), lr=0.1, positions="sum")
    optimizer.step(x, y)
    sent = optimizer.state_dict()["state"]["weights"]
    first, second, last = (layer(twin, name) for name in ("0", "2", "5"))
    kernel = sent["hidden2=>hidden1"][0].T.reshape(second.weight.shape)
    matrix = sent["output=>hidden2"][0].T.contiguous()
    hidden = Through.apply(torch.tanh(first(x)), second.weight, second.bias, kernel)
    flat = torch.tanh(hidden).flatten(1)
    # forwards the weights, backwards the random ones
    drive = last(flat).detach() + flat @ matrix.T - (flat @ matrix.T).detach()
    nn.functional.cross_entropy(drive, y).backward()
    for name in ("0", "2"):
        ours, theirs = layer(model, name), layer(twin, name)
        for part in ("weight", "bias"):
            moved = ours.get_parameter(part) - theirs.get_parameter(part)
            assert torch.allclose(moved, -0.1 * _slope(theirs.get_parameter(part)), rtol=1e-9, atol=1e-15)


def _slope(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_a_rule_that_reads_the_weight_works_on_the_patches_of_a_convolution():
    model = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.Flatten(), nn.Linear(12, 2, bias=False)).double()
    kernel = layer(model, "0").weight.detach().clone().flatten(1)
    ((x, _),) = batches((2, 3, 3), 2, 1)
    patches = nn.functional.unfold(x, 2).transpose(1, 2).reshape(-1, 8)
    post = patches @ kernel.T
    expected = kernel + 0.1 * (post.T @ patches / len(post) - post.square().mean(0)[:, None] * kernel)
    LocalOptimizer(model, Oja(), Nobody(), lr=0.1).step(x)
    assert torch.allclose(layer(model, "0").weight.flatten(1), expected, rtol=1e-12)


def test_feedback_that_learns_meets_a_convolution_at_the_patches_it_reads():
    model = convolutional()
    optimizer = LocalOptimizer(
        model, {"forward": Delta(), "feedback": Delta()}, KolenPollack(), Sgd(weight_decay=0.5), lr=0.2
    )
    kernel = layer(model, "3").weight

    def distance() -> float:
        sent = optimizer.state_dict()["state"]["weights"]["hidden2=>hidden1"][0]
        return float((sent.T - kernel.detach().flatten(1)).norm())

    shown = batches((1, 8, 8), 5, 3)
    distances = []
    for x, y in shown:
        optimizer.step(x, y)
        distances.append(distance())
    # W - B^T shrinks by 1 - rate decay per step
    assert [later / earlier for earlier, later in itertools.pairwise(distances)] == pytest.approx([0.9, 0.9])


def test_learning_is_the_same_for_a_seed_and_another_for_another():
    ((x, y),) = batches((6,), 3, 1)
    start, made = perceptron(), []
    for seed in (1, 1, 2):
        model = copy.deepcopy(start)
        LocalOptimizer(model, Delta(), FeedbackAlignment(), lr=0.1, seed=seed).step(x, y)
        made.append(model)
    assert difference(made[0], made[1]) == 0
    assert difference(made[0], made[2]) > 1e-3


@pytest.mark.parametrize("name", ["node_perturbation", "kolen_pollack", "adam", "difference_target_propagation"])
def test_going_on_from_a_state_dict_is_bit_for_bit_as_if_never_stopped(name):
    shown = batches((6,), 3, 6)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    model.double()
    optimizer = LocalOptimizer.of(model, name, seed=3)
    for x, y in shown[:3]:
        optimizer.step(x, y)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    for x, y in shown[3:]:
        optimizer.step(x, y)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    later = LocalOptimizer.of(other, name, seed=99)
    other.load_state_dict(saved["model"])
    later.load_state_dict(saved["optimizer"])
    for x, y in shown[3:]:
        later.step(x, y)
    assert difference(model, other) == 0


def test_a_copy_of_a_model_with_its_optimizer_goes_on_by_itself_and_alike():
    first, second = batches((6,), 3, 2)
    model = perceptron_of_tanh()
    optimizer = LocalOptimizer.of(model, "adam")
    optimizer.step(*first)
    twin, its = copy.deepcopy((model, optimizer))
    its.step(*second)
    assert difference(model, twin) > 1e-5
    optimizer.step(*second)
    assert difference(model, twin) == 0


def test_a_state_dict_of_another_credit_assignment_is_refused():
    optimizer = LocalOptimizer.of(perceptron_of_tanh(), "feedback_alignment")
    ((x, y),) = batches((6,), 3, 1)
    optimizer.step(x, y)
    with pytest.raises(ValueError, match="make the optimizer as it was made then"):
        LocalOptimizer.of(perceptron_of_tanh(), "backprop").load_state_dict(optimizer.state_dict())


def perceptron_of_tanh() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def test_schedulers_of_torch_move_the_rate():
    shown = batches((6,), 3, 3)
    model = perceptron()
    optimizer = LocalOptimizer(model, Delta(), Backprop(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    for place, (x, y) in enumerate(shown):
        constant = copy.deepcopy(model)
        LocalOptimizer(constant, Delta(), Backprop(), lr=0.1 * 0.5**place).step(x, y)
        optimizer.zero_grad()
        optimizer.step(x, y)
        scheduler.step()
        assert difference(model, constant) < 1e-15
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0125)


def test_lr_multiplies_the_rate_that_a_row_comes_with():
    ((x, y),) = batches((6,), 3, 1)
    one, other = perceptron(), perceptron()
    other.load_state_dict(one.state_dict())
    LocalOptimizer.of(one, "backprop", lr=2.0).step(x, y)
    LocalOptimizer(other, Delta(), Backprop(), lr=2.0 * ZOO["backprop"].values["synapse.rate"]).step(x, y)
    assert difference(one, other) < 1e-15


def test_a_rule_of_a_run_brings_its_numbers_its_credit_and_its_synapse_along():
    known = Portable(
        "planted", NodePerturbation(), {"forward": Terms(("reward_post_change_pre",))}, {"any": Adam()},
        {"rule.forward.reward_post_change_pre": 0.7, "credit.sigma": 0.02, "synapse.rate": 0.004},
        Network.chain((64, 8, 10)),
    )  # fmt: skip
    rule, credit = carrying(known.rules["forward"], known), carrying(known.credit, known)
    assert rule == known.rules["forward"]
    ((x, y),) = batches((6,), 3, 1)
    start, made = perceptron(), []
    for choose in (
        lambda model: LocalOptimizer(model, rule, credit=credit),
        lambda model: LocalOptimizer(model, rule),
        lambda model: LocalOptimizer(model, known.rules, known.credit, Adam(), known.numbers),
        lambda model: LocalOptimizer(model, rule, credit=credit, theta={"sigma": 0.5}),
    ):
        model = copy.deepcopy(start)
        choose(model).step(x, y)
        made.append(model)
    assert difference(made[0], made[1]) == difference(made[0], made[2]) == 0
    assert difference(made[0], made[3]) > 0


def test_a_run_that_has_found_nothing_yet_is_refused():
    early = dataclasses.replace(THREE_TERMS, numbers={})
    with pytest.raises(ValueError, match=r"planted has no value for rule\.forward\.error_pre"):
        LocalOptimizer(perceptron(), carrying(early.rules["forward"], early))


def test_parameters_that_need_no_gradient_stay_and_hold_up_nobody():
    ((x, y),) = batches((6,), 3, 1)
    model = perceptron()
    model.get_submodule("0").requires_grad_(False)
    model.get_parameter("2.bias").requires_grad_(False)
    before = copy.deepcopy(model)
    LocalOptimizer(model, Delta(), Backprop(), lr=0.1).step(x, y)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before.get_parameter(name))}
    assert moved == {"2.weight", "4.weight", "4.bias"}
    with pytest.raises(ValueError, match="requires_grad"):
        LocalOptimizer(model.requires_grad_(False), Delta(), Backprop())


def test_no_autograd_is_needed_and_none_is_left_behind():
    ((x, y),) = batches((6,), 3, 1)
    model = perceptron()
    with torch.inference_mode(False), torch.no_grad():
        LocalOptimizer(model, Delta(), FeedbackAlignment(), lr=0.1).step(x, y)
    assert all(parameter.grad is None and parameter.is_leaf for parameter in model.parameters())


@pytest.mark.parametrize("example", ["my_network.py", "my_conv.py"])
def test_the_examples_of_the_documentation_learn_the_digits(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [example])
    found = runpy.run_path(str(Path(__file__).parent.parent / "docs" / example))
    # nine of ten digits that it never saw, where chance is one of ten; they reach .914 and .924
    assert found["accuracy"] > 0.88
    assert f"{found['accuracy']:.3f} of 397 digits" in capsys.readouterr().out


def mlp(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), *parts, nn.Linear(5, 3))


REFUSED = {
    "GELU": (lambda: mlp(nn.GELU()), "'1' is a GELU.*nn.Tanh, nn.ReLU"),
    "Dropout": (lambda: mlp(nn.Tanh(), nn.Dropout(0.5)), "set p=0"),
    "two nonlinearities": (lambda: mlp(nn.Tanh(), nn.ReLU()), "'2' ReLU.*does not follow a layer"),
    "two softnesses": (lambda: mlp(nn.Softplus(2), nn.Linear(5, 5), nn.Sigmoid()),
                       "differ in steepness"),
    "an end that bends": (lambda: nn.Sequential(nn.Linear(6, 3), nn.Tanh()), "the model ends in '1' Tanh"),
    "no Sequential": (lambda: nn.Linear(6, 3), "wrap its layers in nn.Sequential"),
    "sizes": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(4, 3)), "'1' takes 4 units.*gives 5"),
    "twice": (lambda: nn.Sequential(*[nn.Linear(6, 6)] * 2), "give it its own"),
    "MaxPool": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)), "AvgPool2d"),
    "no Flatten": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(8, 3)), "put an nn.Flatten"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_no_local_rule_can_train_is_refused_by_name(name):
    make, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        LocalOptimizer(make(), Delta(), Backprop())


def test_credit_that_is_not_defined_for_convolutions_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"node_perturbation.*nn.Conv2d.*backprop, feedback_alignment"):
        LocalOptimizer.of(convolutional(), "node_perturbation")
    with pytest.raises(ValueError, match=r"reads pre_error.*take a stride"):
        LocalOptimizer(convolutional(), Terms(("error_pre_error",)), Backprop())


def test_what_a_step_cannot_use_is_refused_with_a_sentence():
    optimizer = LocalOptimizer(perceptron(), Delta(), Backprop())
    ((x, y),) = batches((6,), 3, 1)
    with pytest.raises(ValueError, match=r"opt\.step\(x, y\)"):
        optimizer.step()
    with pytest.raises(ValueError, match="dtype"):
        optimizer.step(x.float(), y)
    with pytest.raises(ValueError, match=r"reads .batch, 6"):
        optimizer.step(x[:, :4], y)
    with pytest.raises(ValueError, match="classes from 0 to 2"):
        optimizer.step(x, y + 3)
    with pytest.raises(ValueError, match="give output="):
        optimizer.step(x, nn.functional.one_hot(y, 3).double())
    with pytest.raises(ValueError, match="needs targets"):
        optimizer.step(x)
    with pytest.raises(ValueError, match=r"classes .batch. as whole numbers"):
        optimizer.step(x, x[:, :2])


def test_targets_are_as_many_as_samples_and_a_batch_is_not_empty():
    optimizer = LocalOptimizer(perceptron(), Delta(), Backprop(), output="linear")
    ((x, y),) = batches((6,), 3, 1)
    for targets in (y[:1], y[:5], x[:1, :3]):  # one target would be spread over all samples
        with pytest.raises(ValueError, match="one target per sample"):
            optimizer.step(x, targets)
    with pytest.raises(ValueError, match="without a sample"):
        optimizer.step(x[:0], y[:0])
    with pytest.raises(ValueError, match="y is a list"):
        optimizer.step(x, y.tolist())  # pyright: ignore[reportArgumentType]


def test_a_layer_that_is_thawed_later_learns_from_then_on():
    model = perceptron()
    first = layer(model, "0").requires_grad_(False)
    optimizer = LocalOptimizer(model, Delta(), Backprop(), lr=0.1)
    before = first.weight.clone()
    shown = batches((6,), 3, 2)
    optimizer.step(*shown[0])
    assert torch.equal(first.weight, before)
    first.requires_grad_(True)
    optimizer.step(*shown[1])
    assert not torch.equal(first.weight, before)


def test_a_model_that_was_moved_to_another_dtype_goes_on_with_its_feedback():
    model = perceptron()
    optimizer = LocalOptimizer.of(model, "kolen_pollack")
    first, second = batches((6,), 3, 2)
    optimizer.step(*first)
    twin, other = copy.deepcopy((model, optimizer))
    other.step(*second)
    model.float()
    optimizer.step(second[0].float(), second[1])
    assert difference(model.double(), twin) < 1e-6


def test_a_state_of_another_model_rule_or_synapse_is_refused():
    ((x, y),) = batches((6,), 3, 1)
    small = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4), nn.Softplus(2.0), nn.Linear(4, 3)).double()
    for model, row, other in (
        (perceptron(), "backprop", "adam"),
        (perceptron(), "adam", "backprop"),
        (perceptron(), "adam", "feedback_alignment"),
        (small, "feedback_alignment", "feedback_alignment"),
    ):
        optimizer = LocalOptimizer.of(model, row)
        optimizer.step(x, y)
        with pytest.raises(ValueError, match="not that of an optimizer of this model"):
            LocalOptimizer.of(perceptron(), other).load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="not that of an optimizer"):
        LocalOptimizer.of(perceptron(), "adam").load_state_dict({})


def test_what_is_no_part_of_a_learner_is_refused_with_one_that_is():
    for rule, credit in (
        ("delta", Backprop()),
        (Delta, Backprop()),
        (Backprop(), Delta()),
        ({}, Backprop()),
        (None, None),
    ):
        with pytest.raises(ValueError, match=r"is no (Rule|CreditAssignment); give one"):
            LocalOptimizer(perceptron(), rule, credit)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="nothing that learns"):
        LocalOptimizer.of(perceptron(), Delta())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="finite number"):
        LocalOptimizer(perceptron(), Delta(), Backprop(), theta={"rate": float("nan")})
    with pytest.raises(ValueError, match="one group"):
        LocalOptimizer(perceptron(), Delta(), Backprop()).add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_layers_that_do_not_own_their_weight_are_refused():
    tied = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    layer(tied, "2").weight = layer(tied, "0").weight
    pruned = nn.Sequential(prune.l1_unstructured(nn.Linear(6, 3), "weight", 0.5))
    for model, sentence in (
        (tied, "shares its weight"),
        (pruned, "from other parameters"),
        (nn.Sequential(nn.Linear(6, 5), nn.Softplus(1.0, 0.5), nn.Linear(5, 3)), "threshold at 20"),
    ):
        with pytest.raises(ValueError, match=sentence):
            LocalOptimizer(model, Delta(), Backprop())


def test_names_and_settings_that_are_not_are_refused():
    with pytest.raises(ValueError, match=r"credit is missing.*feedback_alignment"):
        LocalOptimizer(perceptron(), Delta())
    with pytest.raises(ValueError, match=r"theta = 'raet'.*synapse.rate"):
        LocalOptimizer(perceptron(), Delta(), Backprop(), theta={"raet": 1.0})
    with pytest.raises(ValueError, match="positions = 'all'"):
        LocalOptimizer(perceptron(), Delta(), Backprop(), positions="all")
    with pytest.raises(ValueError, match="output = 'relu'"):
        LocalOptimizer(perceptron(), Delta(), Backprop(), output="relu")
    with pytest.raises(ValueError, match="ends in Sigmoid"):
        LocalOptimizer(nn.Sequential(nn.Linear(6, 3), nn.Sigmoid()), Delta(), Backprop(), output="linear")
    with pytest.raises(ValueError, match="lr = -1"):
        LocalOptimizer(perceptron(), Delta(), Backprop(), lr=-1)
    with pytest.raises(ValueError, match=r"algorithm = 'backprob'.*backprop"):
        LocalOptimizer.of(perceptron(), "backprob")
