"""Predictive coding: what inference leaves is backprop where theory says so, and descends its energy everywhere."""

from __future__ import annotations

import itertools

import pytest
import torch
from building import address
from gradients import EVENTS, RUNS, changes, cosine, feedforward, relative, world
from test_credit import LOSSES, branching

from metarule.credit.backprop import Backprop
from metarule.credit.incremental_predictive_coding import IncrementalPredictiveCoding
from metarule.credit.predictive_coding import PredictiveCoding, mismatch, moved
from metarule.credit.settling import Circuit, depths
from metarule.credit.zero_divergence_inference import ZeroDivergenceInference
from metarule.learner import ANY, Learner
from metarule.network import Network, Population, Projection
from metarule.rules.textbook import Delta
from metarule.synapses.sgd import Sgd

deep = Network.chain((6, 5, 5, 4, 3), "tanh", "softmax", bias=True)
every_graph = pytest.mark.parametrize("network", [deep, branching()], ids=["chain", "branches"])


@every_graph
def test_fixed_predictive_coding_at_rate_1_is_backprop(network):
    weights, batch = world(network)
    found = changes(PredictiveCoding(steps=4), network, weights, batch, inference_rate=1.0)
    assert relative(found, feedforward(network, weights, batch)) < 1e-12


@every_graph
def test_fixed_predictive_coding_converges_to_backprop_at_small_rates(network):
    weights, batch = world(network)
    expected = feedforward(network, weights, batch)
    errors = [relative(changes(PredictiveCoding(steps=n), network, weights, batch), expected) for n in (20, 100, 300)]
    assert all(error <= most for error, most in zip(errors, (0.68, 2e-3, 1e-11), strict=True))
    assert errors[0] > 1e-2


@every_graph
def test_zero_divergence_inference_is_backprop_one_population_after_another(network):
    weights, batch = world(network)
    credit = ZeroDivergenceInference()
    assert relative(changes(credit, network, weights, batch), feedforward(network, weights, batch)) < 1e-12
    learner = Learner(network, credit, {ANY: Delta()}, {ANY: Sgd()})
    state, order = {}, []
    for k in range(credit.stages(network, batch)):
        theta = torch.zeros(RUNS, 0)
        noise = address("run", runs=RUNS)
        signals, state = credit.stage(k, theta, network, weights, state, batch, 0, noise, learner.wanted)
        order += [depths(network)[p.target] for p in network.projections if p.name in signals]
        weights |= {name: torch.full_like(weights[name], torch.nan) for name in signals}  # nothing later reads them
    assert order == sorted(order)
    assert state == {}


def level() -> Network:
    """Branches that meet, all ways from a population to the output of one length."""
    sizes = {"input": 6, "left": 5, "right": 4, "top": 4, "output": 3}
    activations = {"left": "tanh", "right": "sigmoid", "top": "tanh"}
    edges = [("input", "left"), ("input", "right"), ("left", "top"), ("right", "top"), ("top", "output")]
    return Network(
        tuple(Population(name, size, activations.get(name, "linear")) for name, size in sizes.items()),
        tuple(Projection(f"{a}->{b}", a, b, bias=True) for a, b in edges),
    )


@pytest.mark.parametrize("network", [deep, level()], ids=["chain", "level branches"])
def test_zero_divergence_inference_is_strict_inference_at_rate_1_read_where_values_below_have_not_moved(network):
    weights, batch = world(network)
    expected = feedforward(network, weights, batch)
    short_cut = changes(ZeroDivergenceInference(), network, weights, batch)
    forward, depth = network.forward(weights, batch.x).rates, depths(network)
    circuit, one = Circuit.around(network, weights, batch.x), torch.tensor(1.0, dtype=torch.float64)
    values, inferred = forward | {network.output_name: batch.y}, dict.fromkeys(weights, torch.empty(0))
    for step in range(depth[network.input_name]):
        found = mismatch(circuit, values, one)
        for p in network.projections:
            if depth[p.target] == step:
                inferred[p.name] = found.errors[p.target].transpose(1, 2) @ network.pre(p, values) / EVENTS
        values = moved(circuit, values, found, one)
    assert all(not torch.allclose(values[p.name], forward[p.name], atol=1e-3) for p in network.populations[1:])
    assert relative(inferred, expected) < 1e-10
    assert relative(inferred, short_cut) < 1e-10


@pytest.mark.parametrize("kind", ["fixed", "strict"])
@every_graph
def test_inferred_pre_errors_and_feedback_tend_to_those_of_backprop(network, kind):
    weights, batch = world(network)
    wanted = dict.fromkeys(weights, frozenset({"pre", "error", "pre_error", "feedback"}))
    noise = address("run", runs=RUNS)
    expected, _ = Backprop().stage(0, torch.zeros(RUNS, 0), network, weights, {}, batch, 0, noise, wanted)
    theta = torch.tensor([[0.4, 1e-6]], dtype=torch.float64).expand(RUNS, -1)
    found, _ = PredictiveCoding(kind, steps=600).stage(0, theta, network, weights, {}, batch, 0, noise, wanted)
    for name in weights:
        for signal in ("error", "pre_error", "feedback"):
            torch.testing.assert_close(
                found[name].read(signal) * 1e6, expected[name].read(signal), rtol=1e-3, atol=1e-5
            )


@every_graph
def test_strict_predictive_coding_tends_to_backprop_as_the_output_loses_precision(network):
    weights, batch = world(network)
    expected = feedforward(network, weights, batch)
    found = {
        precision: changes(PredictiveCoding("strict", 200), network, weights, batch, precision=precision)
        for precision in (1.0, 0.1, 0.01)
    }
    cosines = [cosine(change, expected) for change in found.values()]
    assert cosines == sorted(cosines)
    assert cosines[1] > 0.88
    assert cosines[2] > 0.9989


@every_graph
def test_inference_never_raises_the_energy_and_its_force_is_the_gradient_of_it(network):
    weights, batch = world(network)
    circuit = Circuit.around(network, weights, batch.x)
    precision = torch.tensor([0.5, 2.0], dtype=torch.float64)[:, None, None]
    hidden = [population.name for population in network.populations[1:-1]]

    def energy(values):
        total = precision[:, :, 0] * LOSSES[network.output](circuit.drive("output", values), batch.y)
        for name in hidden:
            total = total + 0.5 * (values[name] - network.rate(name, circuit.drive(name, values))).square().sum(-1)
        return total

    values = network.forward(weights, batch.x).rates | {"output": batch.y}
    energies, rate = [energy(values)], torch.tensor(0.05, dtype=torch.float64)
    for _ in range(60):
        leaves = {name: value.clone().requires_grad_(name in hidden) for name, value in values.items()}
        slopes = torch.autograd.grad(energy(leaves).sum(), [leaves[name] for name in hidden])
        after = moved(circuit, values, mismatch(circuit, values, precision), rate)
        for name, slope in zip(hidden, slopes, strict=True):
            torch.testing.assert_close(after[name] - values[name], -0.05 * slope, rtol=1e-9, atol=1e-13)
        values = after
        energies.append(energy(values))
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(energies))
    assert (energies[-1] < 0.95 * energies[0]).all()


def test_the_equilibrium_of_a_linear_net_has_its_closed_form():
    # output error = S^-1 (y - W_L ... W_1 x), S = 1 / precision + sum_l (W_L ... W_l) (W_L ... W_l)^T over l = 2 .. L
    network = Network.chain((6, 5, 4, 3), "linear", "linear")
    weights, batch = world(network)
    assert batch.y is not None
    precision = 0.7
    products = [torch.eye(3, dtype=torch.float64).expand(RUNS, -1, -1)]
    for projection in reversed(network.projections):
        products.append(products[-1] @ weights[projection.name])
    spread = products[0] / precision + sum(product @ product.transpose(1, 2) for product in products[1:-1])
    error = (batch.y - batch.x @ products[-1].transpose(1, 2)) @ torch.linalg.inv(spread)
    theta = torch.tensor([[0.1, precision]], dtype=torch.float64).expand(RUNS, -1)
    wanted = dict.fromkeys(weights, frozenset({"error"}))
    noise = address("run", runs=RUNS)
    signals, _ = PredictiveCoding("strict", 1500).stage(0, theta, network, weights, {}, batch, 0, noise, wanted)
    for projection, product in zip(reversed(network.projections), products[:-1], strict=True):
        torch.testing.assert_close(signals[projection.name].read("error"), error @ product, rtol=1e-9, atol=1e-11)


def test_incremental_predictive_coding_with_waiting_weights_passes_through_every_state_of_strict_inference():
    weights, batch = world(deep)
    found = changes(IncrementalPredictiveCoding(steps=4), deep, weights, batch)
    expected = [changes(PredictiveCoding("strict", n), deep, weights, batch) for n in (1, 2, 3)]
    top = changes(Backprop(), deep, weights, batch)["hidden3->output"]  # before the first step only the output differs
    for name in weights:
        start = top if name == "hidden3->output" else torch.zeros_like(top[:, :1, :1])
        torch.testing.assert_close(found[name], start + sum(part[name] for part in expected), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: PredictiveCoding("fixd"), "did you mean 'fixed'"),
        (lambda: PredictiveCoding(steps=0), "credit.steps = 0 must be at least 1"),
        (lambda: IncrementalPredictiveCoding(steps=0), "credit.steps = 0 must be at least 1"),
    ],
)
def test_inference_that_makes_no_sense_is_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
