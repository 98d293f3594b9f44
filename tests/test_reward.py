"""Learning from a single number: each row is the gradient that its paper says, with the noise that theory says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from building import Imitation, address, given_signals, start_row, train

from metarule.credit.attention_gated import Agrel, Augment
from metarule.credit.backprop import Backprop
from metarule.credit.neuromodulated import RewardModulatedSpikes, ThreeFactor
from metarule.credit.node_perturbation import NodePerturbation
from metarule.credit.reinforce import Reinforce
from metarule.credit.weight_perturbation import WeightPerturbation
from metarule.inner import Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rng import noise_for
from metarule.rules import textbook
from metarule.rules.eligibility import Eligibility
from metarule.signals import Batch, Change
from metarule.synapses.sgd import Sgd
from metarule.tasks import Task
from metarule.tasks.bandit import Bandit
from metarule.tasks.base import Episode

RULES = {
    NodePerturbation: textbook.NodePerturbation(),
    WeightPerturbation: textbook.WeightPerturbation(),
    Reinforce: textbook.Reinforce(),
    ThreeFactor: textbook.Reinforce(),
    RewardModulatedSpikes: textbook.RewardModulatedStdp(),
    Agrel: textbook.RewardedDelta(),
    Augment: textbook.RewardedDelta(),
    Backprop: textbook.Delta(),
}
SINGLE_TRIAL = (Reinforce(), ThreeFactor(), RewardModulatedSpikes(), Agrel(), Augment())


class Bench:
    """One kind of credit at its textbook rule, R times on the same weights and the same batch, each with own noise."""

    def __init__(self, credit, sizes=(4, 3, 2), runs=1, events=3, output=None, network=None, **values):
        output = output or credit.requires.get("output", ("softmax",))[0]
        activation = credit.requires.get("activation", ("tanh",))[0]
        self.credit, self.runs, self.rule = credit, runs, RULES[type(credit)]
        self.network = network or Network.chain(sizes, activation, output, bias=True)
        self.learner = Learner(self.network, credit, {ANY: self.rule}, {ANY: Sgd()})
        self.columns = self.learner.columns(start_row(self.learner, **values).repeat(runs, 1))
        same = noise_for([(0, "episode", 0)] * runs)
        self.state = self.learner.init(self.columns, same)
        self.weights = self.state["weights"]
        self.batch = Imitation(sizes[0], sizes[-1]).sample(same, events).train(0)

    def signals(self, batch=None, state=None):
        return self.credit.stage(
            0, self.columns.credit, self.network, self.weights, state or self.state["credit"],
            batch or self.batch, 0, address("run", runs=self.runs), self.learner.wanted,
        )  # fmt: skip

    def changes(self, batch=None, state=None):
        """The change of every weight, (R N)."""
        signals, _ = self.signals(batch, state)
        deltas = [self.delta(signals[name]) for name in self.weights]
        return torch.cat([delta.flatten(1) for delta in deltas], dim=1)

    def delta(self, seen):
        return self.rule.delta(self.columns.rules[ANY], seen, {}, address("rule"))[0].tensor(seen.weight)

    def gradient(self, objective):
        """d objective(weights of run 0) / d weights, (N)."""
        leaves = {name: weight[:1].clone().requires_grad_() for name, weight in self.weights.items()}
        return torch.cat([g.flatten() for g in torch.autograd.grad(objective(leaves), list(leaves.values()))])

    def descent(self, leaves):
        """Minus the matched loss of the batch."""
        drive = self.network.forward(leaves, self.batch.x[:1]).drives["output"]
        assert self.batch.y is not None
        return -self.network.loss(drive, self.batch.y[:1]).mean()


def cosine(one, other):
    return float(torch.cosine_similarity(one, other, dim=0))


def test_node_perturbation_is_unbiased_and_its_error_falls_with_the_root_of_the_draws():
    bench = Bench(NodePerturbation(), runs=16384, sigma=1e-4)
    estimates, exact = bench.changes(), bench.gradient(bench.descent)
    draws = (256, 1024, 4096)
    means = [estimates.unflatten(0, (-1, k)).mean(1) for k in draws]
    errors = [float((mean - exact).square().sum(1).mean().sqrt() / exact.norm()) for mean in means]
    assert np.polyfit(np.log(draws), np.log(errors), 1)[0] == pytest.approx(-0.5, abs=0.1)
    assert errors[-1] < 0.037
    for mean in means[-1]:
        assert (mean - exact).norm() / exact.norm() < 0.045
        assert cosine(mean, exact) > 0.999


def test_weight_perturbation_is_the_gradient_on_average():
    bench = Bench(WeightPerturbation(), runs=16384, sigma=1e-4)
    exact = bench.gradient(bench.descent)
    for mean in bench.changes().unflatten(0, (-1, 4096)).mean(1):
        assert cosine(mean, exact) > 0.994


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 3), (16, 3), (4, 12)])
def test_the_variance_of_perturbation_grows_with_units_and_with_weights(inputs, outputs):
    # (g xi) xi with xi standard normal in n dimensions has variance (n + 1) |g|^2
    for credit, noisy in ((NodePerturbation(), outputs), (WeightPerturbation(), outputs * (inputs + 1))):
        bench = Bench(credit, (inputs, outputs), runs=8000, events=1, sigma=1e-5)
        estimates, exact = bench.changes(), bench.gradient(bench.descent)
        spread = float((estimates - exact).square().sum(1).mean() / exact.square().sum())
        assert spread == pytest.approx(noisy + 1, rel=0.15)


def test_perturbation_follows_the_reward_where_no_target_is_shown_and_refuses_a_task_without_either():
    for credit in (NodePerturbation(), WeightPerturbation()):
        bench = Bench(credit, runs=4096, sigma=1e-4)
        rewarded = bench.batch._replace(y=None)

        def pay(leaves, bench=bench):
            rates = bench.network.forward(leaves, bench.batch.x[:1]).rates["output"]
            assert bench.batch.reward is not None
            return bench.batch.reward(rates.expand(bench.runs, -1, -1))[0].mean()

        assert cosine(bench.changes(rewarded).mean(0), bench.gradient(pay)) > 0.98
        with pytest.raises(ValueError, match="needs a reward"):
            bench.changes(Batch(bench.batch.x))


def test_noise_is_only_where_somebody_learns_from_it():
    network = Network.chain((4, 3, 3, 2), bias=True)
    for credit in (NodePerturbation(), Reinforce()):
        learner = Learner(network, credit, {"input->hidden1": RULES[type(credit)]}, {ANY: Sgd()})
        bench = Bench(credit, (4, 3, 3, 2), network=network, sigma=0.1)
        bench.learner = learner
        seen = bench.signals()[0]["input->hidden1"]
        rates = network.forward(bench.weights, bench.batch.x).rates
        assert not torch.allclose(seen.read("post"), seen.read("post_ref"))
        torch.testing.assert_close(seen.read("pre"), network.pre(network.projections[0], rates))
        hidden = network.forward(bench.weights, bench.batch.x, lambda name, drive: network.rate(name, drive))
        assert torch.equal(hidden.rates["hidden2"], rates["hidden2"])


def paying(bench, right):
    """The bench's batch, paying 1 for unit `right` (B) of the output and showing no target."""
    pays = torch.nn.functional.one_hot(right, bench.network.sizes["output"]).double()
    return Batch(bench.batch.x, None, lambda action: (action * pays).sum(-1, keepdim=True))


def test_reinforce_is_the_gradient_of_expected_reward_for_any_baseline_and_a_good_one_has_less_variance():
    sigma, right = 0.5, torch.tensor([0, 1])
    bench = Bench(Reinforce(), (3, 2, 2), runs=40000, events=2, sigma=sigma)
    points, chances = np.polynomial.hermite_e.hermegauss(20)
    grid = torch.tensor(list(itertools.product(points, points)))  # both hidden units
    mass = torch.tensor([a * b for a, b in itertools.product(chances, chances)]) / (2 * np.pi)

    def expected(flat):
        """The expected reward, by Gauss-Hermite quadrature over the hidden noise and exactly over actions."""
        shapes = [weight.shape[1:] for weight in bench.weights.values()]
        parts = flat.split([shape.numel() for shape in shapes])
        lower, upper = (part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
        x = torch.nn.functional.pad(bench.batch.x[0], (0, 1), value=1.0)
        hidden = torch.tanh(x @ lower.T)[:, None] + sigma * grid
        policy = torch.softmax(torch.nn.functional.pad(hidden, (0, 1), value=1.0) @ upper.T, -1)
        return (policy[[0, 1], :, right] * mass).sum(1).mean()

    flat = torch.cat([weight[0].flatten() for weight in bench.weights.values()])
    steps = 1e-5 * torch.eye(len(flat), dtype=torch.float64)
    exact = torch.stack([(expected(flat + step) - expected(flat - step)) / 2e-5 for step in steps])
    spreads = []
    for baseline in (0.0, float(expected(flat))):
        known = {"expected": torch.full((bench.runs, 1, 1), baseline, dtype=torch.float64)}
        estimates = bench.changes(paying(bench, right), known)
        assert ((estimates.mean(0) - exact).abs() < 5 * estimates.std(0) / bench.runs**0.5).all()
        assert cosine(estimates.mean(0), exact) > 0.98
        spreads.append(float(estimates.var(0).sum()))
    assert spreads[1] < 0.8 * spreads[0]


def test_three_factors_that_do_not_forget_are_the_gradient_of_expected_reward_too():
    right = torch.tensor([0, 1])
    reinforce = Bench(Reinforce(), (3, 2, 2), runs=40000, events=2, sigma=0.5)
    factors = Bench(ThreeFactor(), (3, 2, 2), runs=40000, events=2, sigma=0.5, tau=1e9)
    known = {"expected": torch.full((40000, 1, 1), 0.5, dtype=torch.float64)}
    one, other = (bench.changes(paying(bench, right), known) for bench in (reinforce, factors))
    error = ((one.var(0) + other.var(0)) / 40000).sqrt()
    assert ((one.mean(0) - other.mean(0)).abs() < 5 * error).all()
    assert float(one.mean(0).norm()) > 5 * float(error.norm())


@pytest.mark.parametrize("credit", SINGLE_TRIAL, ids=lambda credit: credit.kind)
def test_the_rewarded_kinds_never_look_at_the_target(credit):
    bench = Bench(credit, runs=2)
    shown, hidden = bench.signals()[0], bench.signals(bench.batch._replace(y=None))[0]
    for name, seen in shown.items():
        for signal, value in given_signals(seen).items():
            assert torch.equal(value, given_signals(hidden[name])[signal]), (name, signal)
    with pytest.raises(ValueError, match="needs a reward"):
        bench.signals(Batch(bench.batch.x, bench.batch.y))


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
def test_an_output_acts_by_its_policy(output):
    bench = Bench(Reinforce(), (4, 3), runs=8000, output=output, output_sigma=0.3)
    seen = bench.signals()[0]["input->output"]
    action, mean = seen.read("post"), seen.read("post_ref")
    variance = torch.full_like(mean[0], 0.09) if output == "linear" else (mean * (1 - mean))[0]
    torch.testing.assert_close(action.mean(0), mean[0], rtol=0, atol=5 * 0.5 / 8000**0.5)
    torch.testing.assert_close(action.var(0), variance, rtol=0.1, atol=0.01)
    if output == "softmax":
        assert (action.sum(-1) == 1).all()
    if output != "linear":
        assert ((action == 0) | (action == 1)).all()


def test_the_baseline_is_the_running_mean_of_rewards():
    bench = Bench(Reinforce(memory=0.8), runs=2, output="linear")
    state, expected = bench.state["credit"], torch.zeros(2, 1, 1, dtype=torch.float64)
    for _ in range(3):
        signals, after = bench.signals(state=state)
        seen = signals["hidden1->output"]
        assert bench.batch.reward is not None
        reward = bench.batch.reward(seen.read("post"))
        torch.testing.assert_close(seen.read("reward"), (reward - expected) * 100, rtol=1e-12, atol=1e-12)
        expected = 0.8 * expected + 0.2 * reward.mean(1, keepdim=True)
        torch.testing.assert_close(after["expected"], expected, rtol=1e-14, atol=0)
        state = after


@pytest.mark.parametrize("credit", [ThreeFactor(), RewardModulatedSpikes()], ids=lambda credit: credit.kind)
def test_credit_for_a_delayed_reward_decays_exponentially_and_none_is_given_for_no_reward(credit):
    at_once = Bench(credit, tau=7.0).changes()
    for delay in (1, 5, 20):
        late = Bench(replace(credit, delay=delay), tau=7.0).changes()
        torch.testing.assert_close(late, at_once * np.exp(-delay / 7.0), rtol=1e-12, atol=1e-14)
    bench = Bench(credit)
    unpaid = bench.batch._replace(reward=lambda action: 0 * action.sum(-1, keepdim=True))
    assert torch.equal(bench.changes(unpaid), torch.zeros_like(at_once))
    assert float(at_once.abs().sum()) > 0


def test_reward_modulated_stdp_is_the_window_times_the_success_that_is_still_to_come():
    tau, tau_pre, tau_post, steps, events = 3.0, 2.5, 1.5, 6, 2
    credit = RewardModulatedSpikes(steps=steps, delay=2)
    bench = Bench(credit, (3, 4, 2), events=events, tau=tau, tau_pre=tau_pre, tau_post=tau_post)
    known = {"expected": torch.full((1, 1, 1), -0.3, dtype=torch.float64)}
    signals, _ = bench.signals(state=known)
    actions = signals["hidden1->output"].read("post")[0].reshape(steps, events, 2)
    assert bench.batch.reward is not None
    paid = torch.stack([bench.batch.reward(action[None])[0, :, 0] for action in actions])
    for seen in signals.values():
        pre, post = (seen.read(name)[0].reshape(steps, events, -1) for name in ("pre", "post"))
        expected = torch.zeros_like(seen.weight[0])
        for b, now, then, heard in itertools.product(range(events), *[range(steps)] * 3):
            if then <= now <= heard:
                baseline = (-0.3 + paid[:heard, b].sum()) / (heard + 1)
                success = (paid[heard, b] - baseline) * np.exp(-(heard - now + 2) / tau)
                expected += success * np.exp(-(now - then) / tau_pre) * torch.outer(post[now, b], pre[then, b])
                if then < now:
                    expected -= success * np.exp(-(now - then) / tau_post) * torch.outer(post[then, b], pre[now, b])
        torch.testing.assert_close(bench.delta(seen)[0], expected / events, rtol=1e-10, atol=1e-12)


def test_an_eligibility_that_the_rule_owns_is_that_of_the_events_axis():
    bench = Bench(ThreeFactor(steps=4), events=1, tau=4.0)
    signals, _ = bench.signals()
    rule = Eligibility("gain_post_change_pre")
    theta = torch.tensor([[0.3, 4.0]], dtype=torch.float64)
    for seen in signals.values():
        state, change = rule.init(theta, seen.weight), Change()
        for t in range(4):
            now = {
                name: value if name == "weight" else value[:, t : t + 1] for name, value in given_signals(seen).items()
            }
            now["reward"] = now["reward"] / 4 if t == 3 else 0 * now["reward"]
            change, state = rule.delta(theta, replace(seen, **now), state, address("rule"))
            assert t == 3 or not change.tensor(seen.weight).any()
        torch.testing.assert_close(change.tensor(seen.weight), 0.3 * bench.delta(seen), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Eligibility("hebb"), "rule.term"),
        (lambda: Eligibility("reward_post_pre"), "reads the reward"),
        (lambda: Reinforce(memory=1.0), r"credit.memory = 1.0 must lie in \[0, 1\)"),
        (lambda: ThreeFactor(steps=0), "credit.steps = 0 must be at least 1"),
        (lambda: ThreeFactor(delay=-1), "credit.delay = -1 must not be negative"),
        (lambda: Bandit(outputs=1), "task.outputs = 1 must be at least 2"),
        (lambda: Bandit(split="test"), "task.split"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_an_eligibility_of_its_own_refuses_several_events_at_once():
    bench = Bench(ThreeFactor(steps=4), events=3)
    seen = bench.signals()[0]["input->hidden1"]
    theta = torch.tensor([[0.3, 4.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="was given 12 events; it needs one at a time"):
        Eligibility().delta(theta, seen, Eligibility().init(theta, seen.weight), address("rule"))


def test_augment_descends_the_squared_prediction_error_of_the_chosen_action():
    bench = Bench(Augment(), (5, 4, 4, 3), events=6, exploration=0.8)
    chosen = bench.signals()[0]["hidden2->output"].read("error")
    assert (chosen.sum(-1) == 1).all()
    assert bench.batch.reward is not None
    reward = bench.batch.reward(chosen)

    def objective(leaves):
        value = bench.network.forward(leaves, bench.batch.x).rates["output"]
        return -0.5 * (reward - (value * chosen).sum(-1, keepdim=True)).square().mean()

    torch.testing.assert_close(bench.changes()[0], bench.gradient(objective), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("exploration", [0.0, 0.4, 1.0])
def test_augment_takes_the_best_action_unless_it_explores(exploration):
    bench = Bench(Augment(), (4, 3), runs=8000, events=1, exploration=exploration)
    chosen = bench.signals()[0]["input->output"].read("error").mean(0)[0]
    value = bench.network.forward(bench.weights, bench.batch.x).rates["output"][0, 0]
    expected = exploration * torch.softmax(value, 0)
    expected[value.argmax()] += 1 - exploration
    torch.testing.assert_close(chosen, expected, rtol=0, atol=5 * 0.5 / 8000**0.5)


def test_agrel_is_backprop_on_the_cross_entropy_on_average_over_its_choices(monkeypatch):
    right = torch.tensor([2])
    bench, back = (Bench(credit, (5, 4, 4, 3), events=1) for credit in (Agrel(), Backprop()))
    batch = paying(bench, right)
    chances = bench.network.forward(bench.weights, batch.x).rates["output"][0, 0]
    total = torch.zeros_like(bench.changes(batch))
    for unit, chance in enumerate(chances):
        only = torch.nn.functional.one_hot(torch.tensor([[unit]]), 3).double()
        monkeypatch.setattr(Agrel, "choose", lambda *_, only=only: only)
        total += chance * bench.changes(batch)
    target = batch._replace(y=torch.nn.functional.one_hot(right, 3).double()[None])
    torch.testing.assert_close(total, back.changes(target), rtol=1e-12, atol=1e-14)


@dataclass(frozen=True)
class Xor(Task):
    """Two rates, high or low; paid is the answer that says whether they differ (Florian 2007)."""

    kind = "xor"
    source = "made for the tests"
    metrics = {"wrong": "min"}  # noqa: RUF012
    inputs = 2  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    outputs = 2  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def sample(self, noise, batch):
        return XorEpisode(noise.runs, batch)

    def held_out(self):
        return self


@dataclass(frozen=True)
class XorEpisode(Episode):
    """All four patterns, over and over; no target is shown."""

    runs: int
    batch: int

    def train(self, step):
        x = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
        x = x.repeat(self.batch // 4, 1).expand(self.runs, -1, -1)
        differ = (x[:, :, :1] != x[:, :, 1:]).double()
        pays = torch.cat((1 - differ, differ), dim=-1)
        return Batch(x, None, lambda action: (action * pays).sum(-1, keepdim=True))

    def score(self, respond, weights):
        x, _, pays = self.train(0)
        assert pays is not None
        return {"wrong": 1 - pays(respond(x).rates["output"]).mean((1, 2))}


def test_three_factors_learn_xor_by_rate_from_rewards():
    # no linear policy is wrong less than a quarter of the time; some networks stay there, certain of a wrong answer
    network = Network.chain((2, 16, 2), bias=True)
    learner = Learner(network, ThreeFactor(), {ANY: textbook.Reinforce()}, {ANY: Sgd()})
    theta, runs = start_row(learner, rate=0.1, sigma=0.3), Runs((0,), tuple(range(8)))
    before, after = (train(learner, theta, steps, Xor(), batch=32, runs=runs).loss[0, :, 0] for steps in (1, 600))
    assert (before > 0.3).all()
    assert (after < 0.1).sum() >= 4


def test_a_bandit_pays_exactly_one_action_and_never_says_which():
    batch = Bandit().sample(address(0, "episode", runs=2), 5).train(0)
    assert batch.y is None
    assert batch.reward is not None
    paid = torch.cat([batch.reward(torch.eye(3).double()[k].expand(2, 5, 3)) for k in range(3)], dim=-1)
    assert torch.equal(paid.sum(-1), torch.ones(2, 5).double())
    assert paid.sum((0, 1)).gt(0).all()


@pytest.mark.parametrize("credit", [Reinforce(), Agrel(), Augment()], ids=lambda credit: credit.kind)
def test_a_bandit_is_learned_from_its_rewards(credit):
    network = Network.chain((4, 3), output=credit.requires.get("output", ("softmax",))[0], bias=True)
    learner = Learner(network, credit, {ANY: RULES[type(credit)]}, {ANY: Sgd()})
    outcome = train(learner, start_row(learner, rate=0.3), 400, Bandit(), batch=10)
    assert float(outcome.scores["accuracy"]) > 0.85
