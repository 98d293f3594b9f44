"""Unsupervised rules find what their theory says: components, clusters, a window in time; and hear of no target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from building import Imitation, ImitationEpisode, address, start_row, train
from torch import Tensor

from metarule.credit.none import Nobody
from metarule.credit.soft_winners import SoftWinners
from metarule.credit.spike_stream import SpikeStream, traced
from metarule.inner import Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules import Rule
from metarule.rules.bcm import Bcm
from metarule.rules.sanger import Sanger
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, Hebb, Oja, SoftHebb
from metarule.signals import Batch, Change, Signals
from metarule.synapses.sgd import Sgd
from metarule.tasks.gaussian import Gaussian
from metarule.zoo.unsupervised import UNSUPERVISED

READOUTS = {name: row for name, row in UNSUPERVISED.items() if "readout" in row.rules}
NONE = torch.zeros(1, 0, dtype=torch.float64)


def linear_steps(rule: Rule, x: Tensor, weight: Tensor, rate: float, steps: int):
    """Weights after every step of a linear layer that sees the same events again and again."""
    state = rule.init(NONE, weight)
    for _ in range(steps):
        post = torch.bmm(x, weight.transpose(1, 2))
        change, state = rule.delta(NONE, Signals(weight, x, post), state, address("rule"))
        weight = change.scaled(rate).apply(weight)
        yield weight


def events_of(spectrum: Tensor, axes: Tensor) -> Tensor:
    """Two events per axis whose mean of x x^T is exactly axes diag(spectrum) axes^T."""
    half = (len(spectrum) * spectrum).sqrt()[:, None] * axes.T
    return torch.cat((half, -half))[None]


def test_hebb_grows_along_the_first_component_at_the_rate_of_its_eigenvalue():
    spectrum = torch.tensor([2.0, 1.2, 0.5], dtype=torch.float64)
    axes = torch.linalg.qr(address("axes").normal(3, 3)[0])[0]
    weights = list(linear_steps(Hebb(), events_of(spectrum, axes), address("w").normal(4, 3), 0.05, 300))
    along = torch.stack(weights)[:, 0] @ axes
    for component, eigenvalue in enumerate(spectrum.tolist()):
        growth = along[1:100, :, component] / along[:99, :, component]
        torch.testing.assert_close(growth, torch.full_like(growth, 1 + 0.05 * eigenvalue), rtol=1e-8, atol=0)
    cosine = along[-1, :, 0].abs() / along[-1].norm(dim=1)
    assert (cosine > 0.999).all()


def decaying(step: int) -> dict[str, float]:
    """1 / (1 + step / 200), as stochastic approximation wants it."""
    return {"forward": 1 / (1 + step / 200)}


@pytest.mark.parametrize(("rule", "components"), [(Oja(), (0, 0, 0)), (Sanger(), (0, 1, 2))], ids=["oja", "sanger"])
def test_units_find_their_principal_component_with_norm_1_as_the_rate_decays(rule, components):
    task, runs = Gaussian(inputs=5, outputs=3, gap=0.5), Runs((0,), (0, 1, 2))
    network = Network.chain((5, 3), output="linear")
    learner = Learner(network, Nobody(), {ANY: rule}, {ANY: Sgd()}, schedule=decaying)
    outcome = train(learner, start_row(learner, rate=0.2), 2000, task, runs=runs, batch=100)
    episode = task.sample(address(0, "episode", runs=3).at("data"), 100)
    assert outcome.carry is not None
    weight = outcome.carry["weights"]["input->output"]
    wanted = episode.axes[:, :, list(components)].transpose(1, 2)
    cosine = (weight * wanted).sum(2).abs() / weight.norm(dim=2)
    assert (cosine > 0.999).all()
    torch.testing.assert_close(weight.norm(dim=2), torch.ones(3, 3, dtype=torch.float64), rtol=0, atol=1e-3)


def test_bcm_makes_ten_of_ten_units_selective_to_exactly_one_of_four_patterns():
    # at rest the threshold <post^2> = y^2 / 4 equals y: a unit answers 4 to its pattern and 0 to the others
    patterns = torch.eye(4, 6, dtype=torch.float64) + 0.15 * address("patterns").uniform(4, 6)
    start = 0.3 + 0.1 * address("w").normal(10, 6)
    *_, weight = linear_steps(Bcm(memory=0.8), patterns, start, 0.02, 6000)
    answers = torch.bmm(weight, patterns.transpose(1, 2))[0].sort(dim=1).values
    torch.testing.assert_close(answers[:, -1], torch.full((10,), 4.0).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(answers[:, :-1], torch.zeros(10, 3).double(), rtol=0, atol=1e-6)


def test_the_bcm_threshold_follows_the_mean_square_of_activity():
    post = address("post").normal(7, 3)
    signals = Signals(address("w").normal(3, 4), address("pre").normal(7, 4), post)
    rule = Bcm(memory=0.7, start=2.0)
    state = rule.init(NONE, signals.weight)
    change, state = rule.delta(NONE, signals, state, address("rule"))
    expected = torch.einsum("bi,bj->ij", post[0] * (post[0] - 2), signals.read("pre")[0]) / 7
    torch.testing.assert_close(change.tensor(signals.weight)[0], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["threshold"], 1.4 + 0.3 * post.square().mean(1), rtol=1e-12, atol=0)


WINDOW = Terms(("post_pre_ref", "post_ref_pre"), normalise=False)


@pytest.mark.parametrize("batch", [41, 7])
def test_pair_stdp_has_its_exponential_window_whatever_the_batches(batch):
    # one pre spike in the middle of 41 time steps; hidden unit i is driven, by an input of its own, at time step i
    reach, amplitudes, taus = 20, torch.tensor([[0.7, -0.4]], dtype=torch.float64), (8.0, 12.0)
    length = 2 * reach + 1
    network, credit = Network.chain((1 + length, length, 2)), SpikeStream(steps=1)
    theta = torch.tensor([[1.0, 1e-9, *taus]], dtype=torch.float64)
    driven = torch.cat((torch.zeros(length, 1), 1e6 * torch.eye(length)), dim=1).double()[None]
    weights = {"input->hidden1": driven, "hidden1->output": torch.zeros(1, 2, length).double()}
    x = torch.cat((torch.eye(length)[:, reach : reach + 1], torch.eye(length)), dim=1).double()[None]
    state = credit.init(theta, network, weights, address("episode"))
    total = torch.zeros_like(driven)
    for first in range(0, length, batch):
        shown = x[:, first : first + batch]
        given = Batch(shown, torch.zeros(1, shown.shape[1], 2).double())
        wanted = {"input->hidden1": WINDOW.reads}
        signals, state = credit.stage(0, theta, network, weights, state, given, 0, address("run", first), wanted)
        change, _ = WINDOW.delta(amplitudes, signals["input->hidden1"], {}, address("rule"))
        total += change.tensor(driven) * shown.shape[1]  # a change is a mean over time steps
    lag = torch.arange(length, dtype=torch.float64) - reach  # time of the post spike after the pre spike
    window = torch.where(lag > 0, 0.7 * torch.exp(-lag / taus[0]), -0.4 * torch.exp(lag / taus[1])) * (lag != 0)
    torch.testing.assert_close(total[0, :, 0], window, rtol=1e-10, atol=1e-13)


def test_soft_bounds_bring_pair_stdp_to_rest_where_potentiation_and_depression_balance():
    # a pre spike 2 time steps before the post spike, a long silence, a pre spike 3 time steps after one, and so on
    bound, tau, amplitudes = 0.8, torch.full((1, 1, 1), 4.0).double(), torch.tensor([[0.5, -0.3]], dtype=torch.float64)
    gained, lost = 0.5 * math.exp(-2 / 4), 0.3 * math.exp(-3 / 4)
    pre, post = torch.zeros(2, 1, 200, 1, dtype=torch.float64)
    pre[0, [0, 103]] = post[0, [2, 100]] = 1
    silence = torch.zeros(1, 1, 1, dtype=torch.float64)
    traces = [traced(spikes, silence, tau)[:, :-1] for spikes in (pre, post)]
    weight = torch.tensor([[[-0.79], [0.0], [0.79]]], dtype=torch.float64)  # three starts
    post, traces[1] = post.expand(-1, -1, 3), traces[1].expand(-1, -1, 3)
    one, model = torch.ones(1, 1, dtype=torch.float64), Sgd(bound=bound)
    for _ in range(60):
        for t in (0, 2, 100, 103):
            now = [each[:, t : t + 1] for each in (pre, post, *traces)]
            change, _ = WINDOW.delta(amplitudes, Signals(weight, *now), {}, address("rule"))
            moved, _ = model.step(one, weight, change, 1.0, {}, address("synapse"))
            weight = moved.apply(weight)
            assert (weight.abs() <= bound).all()
    up, down = 1 - gained / bound, 1 - lost / bound
    rest = (gained * down - lost) / (1 - up * down)  # w = down (up w + gained) - lost
    assert 0 < rest < bound
    torch.testing.assert_close(weight, torch.full_like(weight, rest), rtol=1e-8, atol=0)


def among_poisson_inputs(step: Callable[[Tensor, Change], Tensor]) -> Tensor:
    """Weights in [0, 1] after 80000 time steps of pair STDP from 0.5, 20 inputs onto one noisy unit; four runs."""
    runs, inputs, stretch, tau = 4, 20, 200, torch.full((4, 1, 1), 5.0).double()
    amplitudes = torch.tensor([[1.0, -1.25]], dtype=torch.float64).expand(runs, -1)  # depression outweighs
    weight = torch.full((runs, 1, inputs), 0.5, dtype=torch.float64)
    before = weight.new_zeros(runs, 1, inputs), weight.new_zeros(runs, 1, 1)
    for count in range(400):
        noise = address("poisson", count, runs=runs)
        pre = (noise.at("pre").uniform(stretch, inputs) < 0.02).double()
        heard = traced(pre, before[0], tau)
        drive = 0.1 * torch.bmm(heard[:, :-1], weight.transpose(1, 2))
        post = (noise.at("post").uniform(stretch, 1) < drive).double()
        back = traced(post, before[1], tau)
        seen = Signals(weight, pre, post, heard[:, :-1], back[:, :-1])
        weight = step(weight, WINDOW.delta(amplitudes, seen, {}, address("rule"))[0].scaled(0.02 * stretch))
        before = heard[:, -1:], back[:, -1:]
    return weight


def test_additive_stdp_splits_the_weights_of_equal_poisson_inputs_into_strong_and_weak():
    # Song, Miller and Abbott (2000): the strong cause the spikes that potentiate them, and the weak pay for it
    weight = among_poisson_inputs(lambda weight, change: change.apply(weight).clamp(0, 1))
    weak, strong = (weight < 0.2).double().mean(2), (weight > 0.8).double().mean(2)
    assert (weak > 0.25).all()
    assert (strong > 0.25).all()
    assert (weak + strong > 0.9).all()


def test_soft_bounds_keep_the_weights_of_equal_poisson_inputs_together():
    # van Rossum, Bi and Turrigiano (2000)
    model, one = Sgd(bound=0.5), torch.ones(4, 1, dtype=torch.float64)

    def step(weight, change):
        return model.step(one, weight - 0.5, change, 1.0, {}, address("synapse", runs=4))[0].apply(weight)

    weight = among_poisson_inputs(step)
    assert ((weight > 0.1) & (weight < 0.9)).all()
    assert weight.std() > 0.02


def test_traces_are_the_recursion_that_they_abbreviate():
    spikes, tau = address("spikes", runs=2).uniform(9, 4).round(), torch.tensor([1.5, 4.0]).double()[:, None, None]
    trace = address("trace", runs=2).uniform(1, 4)
    found = traced(spikes, trace, tau)
    for step in range(9):
        torch.testing.assert_close(found[:, step : step + 1], trace, rtol=1e-12, atol=1e-14)
        trace = (trace + spikes[:, step : step + 1]) * torch.exp(-1 / tau)
    torch.testing.assert_close(found[:, 9:], trace, rtol=1e-12, atol=1e-14)


def test_inputs_spike_as_often_as_they_are_bright_and_one_hidden_unit_spikes_per_time_step():
    credit, network = SpikeStream(steps=2000), Network.chain((3, 5, 2), bias=True)
    theta = torch.tensor([[4.0, 1e-9, 1.0, 1.0]], dtype=torch.float64)
    weights = {p.name: network.draw(p, address("w")) for p in network.projections}
    state = credit.init(theta, network, weights, address("episode"))
    x = torch.tensor([[[0.0, 0.3, 1.0]]], dtype=torch.float64)
    signals, _ = credit.spiking(theta, network, weights, state, x, address("run"))
    seen = signals["input->hidden1"]
    pre, post = seen.read("pre"), seen.read("post")
    assert pre.shape == (1, 2000, 4)
    torch.testing.assert_close(pre.mean(1)[0], torch.tensor([0, 0.3, 1, 1]).double(), rtol=0, atol=0.05)
    assert torch.equal(post.sum(2), torch.ones(1, 2000).double())
    assert {*post.unique().tolist()} == {0.0, 1.0}


@dataclass(frozen=True)
class Clusters(Imitation):
    """Unit vectors about as many orthonormal centroids, the columns of `axes`; targets are all the same."""

    inputs: int = 5
    outputs: int = 5
    spread: float = 0.15

    def sample(self, noise, batch):
        axes = torch.linalg.qr(noise.at("axes").normal(self.inputs, self.inputs))[0]
        return ClustersEpisode(noise, axes, batch, self.spread)


@dataclass(eq=False)
class ClustersEpisode(ImitationEpisode):
    """`teacher` holds the centroids as columns."""

    spread: float

    def train(self, step):
        noise = self.noise.at("train", step)
        size = self.teacher.shape[2]
        which = torch.eye(size, dtype=noise.dtype)[noise.at("which").integers(size, self.batch)]
        x = torch.bmm(which, self.teacher.transpose(1, 2)) + self.spread * noise.at("x").normal(self.batch, size)
        return Batch(x / x.norm(dim=2, keepdim=True), torch.ones_like(x) / size)


def test_soft_hebb_rows_converge_to_the_centroids_of_a_mixture_with_norm_1():
    task, runs = Clusters(), Runs((0,), (0, 1, 2))
    network = Network.chain((5, 5, 5))
    learner = Learner(
        network,
        SoftWinners(),
        {"forward": SoftHebb(), "readout": Delta()},
        {ANY: Sgd()},
        schedule=decaying,
        start={"credit.gain": 8.0, "credit.homeostasis": 0.05},
    )
    outcome = train(learner, start_row(learner, rate=0.5), 800, task, runs=runs, batch=20)
    assert outcome.carry is not None
    weight = outcome.carry["weights"]["input->hidden1"]
    episode = task.sample(address(0, "episode", runs=3).at("data"), 20)
    cosines = torch.bmm(weight / weight.norm(dim=2, keepdim=True), episode.teacher)
    assert (cosines.amax(dim=1) > 0.99).all()  # every centroid has its row
    torch.testing.assert_close(weight.norm(dim=2), torch.ones(3, 5, dtype=torch.float64), rtol=0, atol=0.05)


def test_thresholds_make_every_unit_win_its_share():
    theta = torch.tensor([[12.0, 0.3]], dtype=torch.float64)
    network, credit = Network.chain((4, 6, 2)), SoftWinners()
    weights = {p.name: 2 * address("w", p.name).normal(*network.shape(p)) for p in network.projections}
    x, shares = address("x").uniform(200, 4), []
    state, y = credit.init(theta, network, weights, address("e")), torch.zeros(1, 200, 2).double()
    for _ in range(400):
        shares.append(credit.respond(theta, network, weights, state, x, address("r")).rates["hidden1"].mean(1))
        _, state = credit.stage(0, theta, network, weights, state, Batch(x, y), 0, address("r"), {})
    assert float(shares[0].max()) > 0.4
    torch.testing.assert_close(shares[-1], torch.full((1, 6), 1 / 6).double(), rtol=0.02, atol=0)


@dataclass(frozen=True)
class Flipped(Imitation):
    """The imitation task with positive inputs and, where asked, its targets in the other order."""

    flip: bool = False

    def sample(self, noise, batch):
        return FlippedEpisode(noise, noise.at("teacher").normal(self.outputs, self.inputs), batch, self.flip)


@dataclass(eq=False)
class FlippedEpisode(ImitationEpisode):
    """One teacher per run."""

    flip: bool

    def train(self, step):
        x, y, _ = super().train(step)
        assert y is not None
        return Batch(x.abs() / 3, y.flip(2) if self.flip else y)


@pytest.mark.parametrize("name", READOUTS)
def test_hidden_weights_hear_nothing_of_the_targets_and_the_readout_does(name):
    row = READOUTS[name]
    network = Network.chain((6, 8, 3), row.host.activation, bias=True)
    learner = row.learner(network)
    found = []
    for flip in (False, True):
        outcome = train(learner, start_row(learner), 5, Flipped(flip=flip))
        assert outcome.carry is not None
        found.append(outcome.carry["weights"])
    start = learner.init(learner.columns(start_row(learner)), address(0, "episode"))["weights"]
    assert torch.equal(found[0]["input->hidden1"], found[1]["input->hidden1"])
    assert not torch.equal(found[0]["hidden1->output"], found[1]["hidden1->output"])
    assert not torch.equal(found[0]["input->hidden1"], start["input->hidden1"])


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Bcm(memory=1.0), r"rule.memory = 1.0 must lie in \[0, 1\)"),
        (lambda: SpikeStream(steps=0), "credit.steps = 0 must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
