"""`higher` as a second opinion that shares no code with the engine, and as the gradient-descent baseline."""

from __future__ import annotations

import gc
import itertools

import higher
import higher.optim
import pytest
import torch
from building import Imitation, address, fitting_learner, make, start_row, train
from torch import Tensor, nn

from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.gradient_descent import LARGEST_EPSILON, UNROLLED, unrolled
from metarule.inner import Runs
from metarule.network import Activity
from metarule.rules.terms import Terms
from metarule.synapses import SYNAPSES
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum

TERMS = ("error_pre", "error_pre_error", "subspace_oja")
EVENTS = 3


class Layered(nn.Module):
    """tanh layers and a softmax, one run, each layer's bias the last column of its weight (I, J + 1)."""

    def __init__(self, weights: list[Tensor]):
        super().__init__()
        self.layers = nn.ParameterList([nn.Parameter(weight.clone()) for weight in weights])

    def forward(self, x: Tensor) -> list[Tensor]:
        """The rate of every layer, input and output included; hooks do not fire on a patched module."""
        rates = [x]
        for weight in self.layers:
            drive = nn.functional.linear(rates[-1], weight[:, :-1], weight[:, -1])
            rates.append(torch.tanh(drive) if len(rates) < len(self.layers) else torch.softmax(drive, dim=-1))
        return rates


class LocalRule(torch.optim.Optimizer):
    """The rule as torch.optim sees it: never stepped itself, it carries the setting `theta`."""

    def __init__(self, params):
        super().__init__(params, {"theta": torch.zeros(len(TERMS)), "signals": []})


class DifferentiableLocalRule(higher.optim.DifferentiableOptimizer):
    """W <- W + theta_0 e y0^T + theta_1 e e0^T + theta_2 (y y0^T - y y^T W), means over events, by hand."""

    def _update(self, grouped_grads, **kwargs):
        for group in self.param_groups:
            first, second, third = group["theta"]
            for place, (weight, seen) in enumerate(zip(group["params"], group["signals"], strict=True)):
                y0, y, e0, e = seen
                oja = y.T @ y0 - y.T @ y @ weight
                group["params"][place] = weight + (first * e.T @ y0 + second * e.T @ e0 + third * oja) / len(y)


higher.register_optim(LocalRule, DifferentiableLocalRule)  # pyright: ignore[reportArgumentType]


def feedback_signals(rates: list[Tensor], target: Tensor, feedback: list[Tensor]):
    """(pre, post, pre error, error) of every layer under feedback alignment: e_l = B e_{l+1} * tanh'."""
    errors = [target - rates[-1]]
    for rate, matrix in zip(reversed(rates[:-1]), reversed(feedback), strict=True):
        slope = 1 - rate.clamp(-1, 1) ** 2  # inputs count as rates of a tanh, held inside its range
        errors.insert(0, errors[0] @ matrix.T * slope)
    ones, zeros = torch.ones(len(target), 1).double(), torch.zeros(len(target), 1).double()
    return [
        (torch.cat((rates[k], ones), 1), rates[k + 1], torch.cat((errors[k], zeros), 1), errors[k + 1])
        for k in range(len(feedback))
    ]


def beginning(learner, runs=1):
    """The learner's episode and initial weights at address (0, "episode", 0...)."""
    noise = address(0, "episode", runs=runs)
    state = learner.init(learner.columns(start_row(learner).repeat(runs, 1)), noise)
    return state["weights"], Imitation().sample(noise.at("data"), EVENTS)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_meta_gradient_of_a_local_rule_equals_that_of_higher(count):
    steps = 10
    start = {"error_pre": 0.15, "error_pre_error": 0.06, "subspace_oja": 0.04}
    rule = Terms(TERMS[:count], normalise=False, start=dict(itertools.islice(start.items(), count)))
    learner = fitting_learner(FeedbackAlignment(), rule=rule)
    ours = train(learner, start_row(learner), steps, wants=frozenset({"grad", "loss"}))

    weights, episode = beginning(learner)
    forward = learner.network.projections
    module = Layered([weights[p.name][0] for p in forward])
    feedback = [weights[f"{p.target}=>{p.source}"][0] for p in forward]
    values = [start[name] if k < count else 0.0 for k, name in enumerate(TERMS)]
    theta = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    with higher.innerloop_ctx(module, LocalRule(module.parameters()), override={"theta": [theta]}) as (
        patched,
        local_rule,
    ):
        for step in range(steps):
            x, y, _ = episode.train(step)
            assert y is not None
            rates = patched(x[0])
            seen = feedback_signals(rates, y[0], feedback)
            local_rule.step(rates[-1].sum(), override={"signals": [seen]})
        final = episode.score(lambda x: Activity({}, {"output": patched(x[0])[-1][None]}), {})["distance"][0]
    theirs = torch.autograd.grad(final, theta)[0]
    assert ours.grad is not None
    torch.testing.assert_close(ours.loss[0, 0, 0], final.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.grad[0], theirs[:count], rtol=1e-9, atol=1e-12)


class RunLayers(nn.Module):
    """The same network with a run axis on every weight (R, I, J + 1)."""

    def __init__(self, weights: list[Tensor]):
        super().__init__()
        self.layers = nn.ParameterList([nn.Parameter(weight.clone()) for weight in weights])

    def forward(self, x: Tensor) -> Tensor:
        """The output's drive (R B I)."""
        for place, weight in enumerate(self.layers):
            x = torch.cat((torch.tanh(x) if place else x, torch.ones_like(x[:, :, :1])), dim=2) @ weight.mT
        return x


def cross_entropy(module, batch):
    """Summed over runs, so that every run has its own gradient."""
    return -(batch.y * torch.log_softmax(module(batch.x), dim=-1)).sum(-1).mean(1).sum()


def gradient_descents():
    """A synapse model and the torch optimizer that repeats it."""
    yield make(SYNAPSES["sgd"]), lambda p: torch.optim.SGD(p, lr=1.0)
    yield Momentum(momentum=0.8, nesterov=True), lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.8, nesterov=True)
    # higher has Adam's epsilon elsewhere: at 0 the place makes no difference
    yield Adam(epsilon=0.0), lambda p: torch.optim.Adam(p, lr=1.0, eps=0.0)


@pytest.mark.parametrize(("synapse", "optimizer"), list(gradient_descents()))
def test_meta_gradient_of_backprop_equals_unrolled_gradient_descent_per_run(synapse, optimizer):
    learner = fitting_learner(Backprop(), synapse=synapse)
    rates = torch.tensor([[0.02], [0.05], [0.2], [0.5]], dtype=torch.float64)
    runs = Runs((0, 1, 2, 3), (0,))
    ours = train(learner, rates, 10, runs=runs, wants=frozenset({"grad", "loss"}))

    weights, episode = beginning(learner)
    module = RunLayers([weights[p.name].repeat(4, 1, 1) for p in learner.network.projections])
    lr = rates[:, :, None].clone().requires_grad_()
    trained = unrolled(
        module, optimizer(module.parameters()), (episode.train(step) for step in range(10)), cross_entropy, {"lr": lr}
    )
    score = episode.score(lambda x: Activity({}, {"output": torch.softmax(trained(x), dim=-1)}), {})["distance"]
    theirs = torch.autograd.grad(score.sum(), lr)[0][:, 0]
    assert ours.grad is not None
    torch.testing.assert_close(ours.loss[:, 0, 0], score.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs, rtol=1e-9, atol=1e-12)


def linear(weight: Tensor) -> nn.Linear:
    """A layer with these weights: torch's own start from a generator that nobody addressed."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    module.load_state_dict({"weight": weight})
    return module


def test_canary_five_steps_of_sgd_through_higher_equal_autograd_by_hand():
    noise = address("canary")
    weight = noise.at("w").normal(3, 4)[0]
    xs, ys = noise.at("x").normal(5, 6, 4)[0], noise.at("y").normal(5, 6, 3)[0]
    module = linear(weight)
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    trained = unrolled(
        module, torch.optim.SGD(module.parameters(), lr=1.0), zip(xs, ys, strict=True),
        lambda net, pair: (torch.tanh(net(pair[0])) - pair[1]).square().mean(), {"lr": lr},
    )  # fmt: skip
    start = weight.clone().requires_grad_()
    moved, rate = start, lr.detach().clone().requires_grad_()
    for x, y in zip(xs, ys, strict=True):
        loss = (torch.tanh(x @ moved.T) - y).square().mean()
        moved = moved - rate * torch.autograd.grad(loss, moved, create_graph=True)[0]
    final = next(trained.parameters())
    torch.testing.assert_close(final.detach(), moved.detach(), rtol=1e-13, atol=1e-13)
    theirs = torch.autograd.grad(final.square().sum(), (lr, module.weight))
    by_hand = torch.autograd.grad(moved.square().sum(), (rate, start))
    for first, second in zip(theirs, by_hand, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-13)
    assert torch.equal(module.weight, weight)


@pytest.mark.parametrize("name", UNROLLED)
def test_every_optimizer_on_the_list_repeats_torch_optim(name):
    noise = address("repeat")
    weight, xs, ys = noise.at("w").normal(3, 4)[0], noise.at("x").normal(5, 6, 4)[0], noise.at("y").normal(5, 6, 3)[0]
    settings = {"eps": 1e-10} if name == "Adam" else {}

    def loss(net, pair):
        return (net(pair[0]) - pair[1]).square().mean()

    modules = [linear(weight) for _ in range(2)]
    optimizers = [getattr(torch.optim, name)(module.parameters(), lr=0.01, **settings) for module in modules]
    trained = unrolled(modules[0], optimizers[0], zip(xs, ys, strict=True), loss, {})
    for pair in zip(xs, ys, strict=True):
        optimizers[1].zero_grad()
        loss(modules[1], pair).backward()
        optimizers[1].step()
    # theirs adds small numbers at other places; the largest difference ever measured in float32 was 3e-8
    for first, second in zip(trained.parameters(), modules[1].parameters(), strict=True):
        torch.testing.assert_close(first.detach(), second.detach(), rtol=1e-7, atol=1e-9)


def refusals():
    optim = torch.optim
    for name in ("AdamW", "NAdam", "RAdam", "RMSprop", "Rprop"):
        yield getattr(optim, name), {}, {}, f"optimizer = {name} cannot be unrolled.*choose one of SGD, Adam"
    for name in ("SGD", "Adam"):
        yield getattr(optim, name), {"maximize": True}, {}, r"maximize=True\).*would minimise; give the negative loss"
    yield optim.Adam, {"decoupled_weight_decay": True}, {}, "decoupled_weight_decay=True.*add the decay to the gradient"
    yield optim.Adam, {"eps": 1e-3}, {}, f"eps=0.001.*use eps <= {LARGEST_EPSILON}"
    yield optim.Adam, {}, {"eps": torch.tensor(1e-2)}, "eps=0.0"
    yield optim.SGD, {}, {"rate": torch.tensor(0.1)}, "learned = 'rate' is not a setting of SGD; its settings are.* lr"


@pytest.mark.parametrize(("optimizer", "settings", "learned", "sentence"), list(refusals()))
def test_what_higher_would_get_wrong_is_refused(optimizer, settings, learned, sentence):
    module = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=sentence):
        unrolled(module, optimizer(module.parameters(), lr=0.1, **settings), [], lambda net, batch: net(batch), learned)


@pytest.mark.parametrize("track", [True, False])
def test_unrolling_again_and_again_leaves_no_tensors_behind(track):
    module = linear(address("leak", "w").normal(3, 4)[0])
    x = address("leak").normal(6, 4)[0]
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def once():
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9)
        trained = unrolled(module, optimizer, [x] * 4, lambda net, batch: net(batch).square().mean(), {"lr": lr}, track)
        score = trained(x).square().mean()
        return torch.autograd.grad(score, lr)[0] if track else score.detach()

    once()
    counts = []
    for _ in range(5):
        once()
        gc.collect()
        counts.append(sum(type(each) in (torch.Tensor, nn.Parameter) for each in gc.get_objects()))
    assert len(set(counts[1:])) == 1
