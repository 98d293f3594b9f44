"""Forward only: local goals and second passes against autograd and plain transcriptions."""

from __future__ import annotations

import pytest
import torch
from building import Imitation, address, fitting_learner, start_row, train
from torch.nn import functional

from metarule.credit.backprop import Backprop
from metarule.credit.feedback import target_of
from metarule.credit.forward_forward import ForwardForward
from metarule.credit.local_losses import LocalLosses
from metarule.credit.pepita import Pepita
from metarule.credit.synthetic_gradients import SyntheticGradients
from metarule.inner import Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import starts
from metarule.rules.textbook import Delta
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd

EVENTS, RUNS = 5, 2


def begun(learner):
    """Columns of theta, weights that are all drawn, and a batch of two runs."""
    noise = address("forward only", runs=RUNS)
    columns = learner.columns(starts(learner.params)[None].expand(RUNS, -1))
    weights = learner.init(columns, noise)["weights"]
    weights = {name: 0.5 * noise.at("again", name).normal(*weight.shape[1:]) for name, weight in weights.items()}
    sizes = learner.network.sizes
    task = Imitation(sizes["input"], sizes["output"])
    return columns, weights, task.sample(noise.at("data"), EVENTS).train(0)


def staged(learner, columns, weights, batch):
    """The signals of every stage, weights at rest."""
    wanted = {p.name: learner.credit.gives_at(learner.network, p) for p in learner.plastic}
    return [
        learner.credit.stage(
            k, columns.credit, learner.network, weights, {}, batch, 0, address("run", runs=RUNS), wanted
        )[0]
        for k in range(learner.credit.stages(learner.network, batch))
    ]


def induced(learner, columns, weights, signals):
    """Projection -> the change that one stage's signals induce."""
    return {
        name: learner.rules[key].delta(columns.rules[key], seen, {}, address("rule"))[0].tensor(weights[name])
        for name, seen in signals.items()
        for key in [next(learner.rule_key(p) for p in learner.plastic if p.name == name)]
    }


# synthetic gradients


def test_heads_of_zero_leave_hidden_layers_alone():
    learner = fitting_learner(SyntheticGradients())
    columns, _, _ = begun(learner)
    carry = learner.init(columns, address("heads", runs=RUNS))
    before = {name: weight.clone() for name, weight in carry["weights"].items()}
    after = train(learner, start_row(learner), 1, runs=Runs((0,), (0, 1)), carry=carry).carry
    assert after is not None
    moved = {name: not torch.equal(before[name], weight) for name, weight in after["weights"].items()}
    assert moved == {
        "input->hidden1": False, "hidden1->hidden2": False, "hidden2->output": True,
        "hidden1~>hidden1": False, "output~>hidden1": False, "hidden2~>hidden2": True, "output~>hidden2": True,
    }  # fmt: skip


def test_heads_learn_to_predict_the_error_of_a_network_at_rest():
    learner = fitting_learner(SyntheticGradients(), schedule=lambda step: {"forward": 0.0})
    columns, _, batch = begun(learner)
    heads = ("hidden2~>hidden2", "output~>hidden2")

    def missed(steps):
        carry = train(learner, start_row(learner, rate=0.2), steps, runs=Runs((0,), (0, 1)), batch=20).carry
        assert carry is not None
        signals = staged(learner, columns, carry["weights"], batch)[0]
        return {name: signals[name].read("error").square().mean() for name in heads}

    before, after = missed(1), missed(400)
    for name, loss in before.items():
        assert after[name] < 0.3 * loss


def test_heads_are_exact_where_the_true_error_is_linear_in_what_they_see():
    network = Network.chain((6, 5, 4, 3), "linear", "linear")
    learner = Learner(network, SyntheticGradients(), {"forward": Delta(), "head": Delta()}, {ANY: Sgd()})
    columns, weights, batch = begun(learner)
    second, top = weights["hidden1->hidden2"], weights["hidden2->output"]
    weights["output~>hidden2"] = top.transpose(1, 2)
    weights["hidden2~>hidden2"] = -top.transpose(1, 2) @ top
    weights["output~>hidden1"] = second.transpose(1, 2) @ weights["output~>hidden2"]
    weights["hidden1~>hidden1"] = second.transpose(1, 2) @ weights["hidden2~>hidden2"] @ second
    (signals,) = staged(learner, columns, weights, batch)
    (expected,) = staged(Learner(network, Backprop(), {"forward": Delta()}, {ANY: Sgd()}), columns, weights, batch)
    for projection in network.projections:
        mine, theirs = (each[projection.name].read("error") for each in (signals, expected))
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)
    for head in learner.credit.projections(network):
        error = signals[head.name].read("error")
        torch.testing.assert_close(error, torch.zeros_like(error), rtol=0, atol=1e-13)


# local losses


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
def test_local_losses_descend_each_layers_own_loss_with_its_input_held(output):
    learner = fitting_learner(LocalLosses(), output=output)
    columns, weights, batch = begun(learner)
    network = learner.network
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    below, losses = batch.x, []
    for projection in network.projections:
        pre = functional.pad(below.detach(), (0, 1), value=1.0)
        drive = pre @ leaves[projection.name].transpose(1, 2)
        if projection.target != "output":
            below = torch.tanh(drive)
            drive = below @ leaves[f"{projection.target}~>output"].transpose(1, 2)
        losses.append(network.loss(drive, target_of(batch)).mean(1).sum())
    gradients = dict(zip(leaves, torch.autograd.grad(torch.stack(losses).sum(), list(leaves.values())), strict=True))
    (signals,) = staged(learner, columns, weights, batch)
    changes = induced(learner, columns, weights, signals)
    assert changes.keys() == leaves.keys()
    for name, change in changes.items():
        torch.testing.assert_close(change, -gradients[name], rtol=1e-11, atol=1e-13)


# forward-forward


def shown(x, label):
    """An input whose first pixels are a label, at root mean square 1."""
    whole = torch.cat((label, x[:, :, label.shape[2] :]), dim=2)
    return whole / (whole.square().mean(2, keepdim=True) + 1e-8).sqrt()


def layers(learner, weights, x, label):
    """Hidden projection -> rates of its layer, inputs held; a plain transcription."""
    below, rates = shown(x, label), {}
    for projection in learner.network.projections[:-1]:
        pre = functional.pad(below.detach(), (0, 1), value=1.0)
        rates[projection.name] = torch.relu(pre @ weights[projection.name].transpose(1, 2))
        below = rates[projection.name]
        below = below / (below.square().mean(2, keepdim=True) + 1e-8).sqrt()
    return rates


def test_forward_forward_descends_each_layers_own_logistic_loss():
    learner = fitting_learner(ForwardForward(), (8, 7, 6, 3))
    columns, weights, batch = begun(learner)
    threshold = columns.credit[0, 0]
    right, wrong = staged(learner, columns, weights, batch)
    drawn = functional.one_hot(wrong["input->hidden1"].read("pre")[:, :, :3].argmax(2), 3).to(batch.x.dtype)
    for sign, signals, label in ((1, right, batch.y), (-1, wrong, drawn)):
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        rates = layers(learner, leaves, batch.x, label)
        losses = [
            functional.softplus(-sign * (rate.square().sum(2) - threshold * rate.shape[2])).mean(1).sum()
            for rate in rates.values()
        ]
        gradients = torch.autograd.grad(torch.stack(losses).sum(), [leaves[name] for name in rates])
        changes = induced(learner, columns, weights, signals)
        for name, gradient in zip(rates, gradients, strict=True):
            assert gradient.abs().max() > 1e-3
            torch.testing.assert_close(changes[name], -gradient, rtol=1e-10, atol=1e-13)


def test_wrong_labels_are_never_the_right_one_and_are_drawn_as_the_readout_would_guess():
    learner = fitting_learner(ForwardForward(), (8, 7, 3))
    columns, weights, batch = begun(learner)
    x = batch.x[:, :1].expand(-1, 3000, -1)
    y = torch.eye(3, dtype=x.dtype)[0].expand(2, 3000, -1)
    wrong = staged(learner, columns, weights, Batch(x, y))[1]
    share = (wrong["input->hidden1"].read("pre")[:, :, :3] > 0).to(x.dtype).mean(1)
    guess = wrong["hidden1->output"].read("post")[:, 0] * (1 - y[:, 0])
    assert (share[:, 0] == 0).all()
    # a share of 3000 draws has a standard deviation of at most 0.0092; four of them
    torch.testing.assert_close(share, guess / guess.sum(1, keepdim=True), rtol=0, atol=0.037)


def test_forward_forward_answers_with_the_goodness_of_every_label():
    learner = fitting_learner(ForwardForward(), (8, 7, 6, 3))
    columns, weights, batch = begun(learner)
    activity = learner.credit.respond(columns.credit, learner.network, weights, {}, batch.x, address("respond"))
    for place in range(3):
        label = torch.eye(3, dtype=torch.float64)[place].expand(RUNS, EVENTS, -1)
        rates = layers(learner, weights, batch.x, label).values()
        goodness = sum(rate.square().sum(2) - columns.credit[0, 0] * rate.shape[2] for rate in rates)
        torch.testing.assert_close(activity.drives["output"][:, :, place], goodness, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(activity.rates["output"], torch.softmax(activity.drives["output"], -1))


@pytest.mark.parametrize("sizes", [(8, 3), (2, 7, 3)])
def test_forward_forward_refuses_a_network_without_room_for_it(sizes):
    learner = fitting_learner(ForwardForward(), sizes)
    with pytest.raises(ValueError, match="needs a hidden layer and an input unit per label"):
        learner.init(learner.columns(starts(learner.params)[None]), address("episode"))


# pepita


def test_pepita_is_the_published_pair_of_passes():
    learner = fitting_learner(Pepita())
    columns, weights, batch = begun(learner)
    matrices = {name: weight.transpose(1, 2) for name, weight in weights.items()}

    def passes(x):
        """Every layer's input and output."""
        rates = [x]
        for projection in learner.network.projections:
            drive = functional.pad(rates[-1], (0, 1), value=1.0) @ matrices[projection.name]
            rates.append(torch.softmax(drive, -1) if projection.target == "output" else torch.tanh(drive))
        return rates

    clean = passes(batch.x)
    error = clean[-1] - target_of(batch)
    modulated = passes(batch.x + error @ matrices["output=>input"])
    (signals,) = staged(learner, columns, weights, batch)
    changes = induced(learner, columns, weights, signals)
    for layer, projection in enumerate(learner.network.projections):
        pre = functional.pad(modulated[layer], (0, 1), value=1.0)
        difference = error if projection.target == "output" else clean[layer + 1] - modulated[layer + 1]
        expected = -torch.einsum("rbi,rbj->rij", difference, pre) / EVENTS
        torch.testing.assert_close(changes[projection.name], expected, rtol=1e-12, atol=1e-14)


def test_pepita_changes_nothing_where_there_is_no_error():
    learner = fitting_learner(Pepita())
    columns, weights, batch = begun(learner)
    output = learner.network.forward(weights, batch.x).rates["output"]
    (signals,) = staged(learner, columns, weights, Batch(batch.x, output))
    for change in induced(learner, columns, weights, signals).values():
        assert torch.equal(change, torch.zeros_like(change))


def test_pepita_draws_its_feedback_within_the_published_bounds():
    learner = fitting_learner(Pepita(), (64, 20, 10))
    weights = learner.init(learner.columns(starts(learner.params)[None]), address("episode"))["weights"]
    bound = 0.05 * (6 / 64) ** 0.5
    largest = weights["output=>input"].abs().max()
    assert 0.95 * bound < largest <= bound
