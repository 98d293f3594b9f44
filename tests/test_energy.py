"""Energy: networks that settle learn the gradient of their fixed point, or backprop's where feedback is weak."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from building import address, train
from gradients import RUNS, changes, cosine, descent, feedforward, relative, vector, world
from test_credit import branching

from metarule.acceptance import TRIALS, host_network
from metarule.credit.continuous_update import ContinuousUpdate
from metarule.credit.contrastive_hebbian import ContrastiveHebbian
from metarule.credit.energy_phases import EnergyPhases, residual, settle
from metarule.credit.equilibrium_propagation import EquilibriumPropagation
from metarule.credit.settling import Circuit
from metarule.inner import Runs
from metarule.network import Network
from metarule.params import starts
from metarule.rules.textbook import DifferentialHebb, ScaledContrastive
from metarule.signals import Batch
from metarule.zoo.energy import ENERGY


@pytest.mark.parametrize(
    ("network", "least"),
    [(Network.chain((64, 64, 32, 10), bias=True), (0.99, 0.999)), (branching(), (0.98, 0.998))],
    ids=["digits", "branches"],
)
def test_contrastive_hebbian_tends_to_backprop_as_feedback_weakens(network, least):
    weights, batch = world(network)
    expected = feedforward(network, weights, batch)
    credit = ContrastiveHebbian(40, 40)
    cosines = [
        cosine(changes(credit, network, weights, batch, ScaledContrastive(), gamma=gamma), expected)
        for gamma in (1.0, 0.1, 0.03)
    ]
    assert cosines == sorted(cosines)
    assert cosines[0] < 0.8
    assert cosines[1] > least[0]
    assert cosines[2] > least[1]
    tiny = changes(credit, network, weights, batch, ScaledContrastive(), gamma=1e-3)
    assert relative(tiny, expected) < 5e-3  # the size is backprop's too


def settled_network(activation="sigmoid", output="sigmoid", skips=(), init_scale=0.6):
    return Network.chain((8, 7, 6, 4), activation, output, bias=True, skips=skips, init_scale=init_scale)


EQUILIBRIA = {
    "sigmoid": settled_network(),
    "linear output": settled_network(output="linear"),
    "tanh": settled_network("tanh", "linear", init_scale=0.2),
    "skips": settled_network(skips=((0, 2), (1, 3))),
}
every_equilibrium = pytest.mark.parametrize("network", EQUILIBRIA.values(), ids=EQUILIBRIA.keys())


def fixed_point(network, weights, batch):
    """The direction of gradient descent on |y - s|^2 / 2 at the settled output, through all sweeps."""

    def cost(leaves):
        circuit = Circuit.around(network, leaves, batch.x)
        rates = settle(circuit, network.forward(leaves, batch.x), 150, relaxation=1.6).rates
        return 0.5 * (batch.y - rates["output"]).square().sum(-1)

    return descent(cost, weights)


@every_equilibrium
def test_equilibrium_propagation_errs_by_beta_one_sided_and_by_its_square_symmetrically(network):
    weights, batch = world(network)
    expected = fixed_point(network, weights, batch)
    betas = (0.2, 0.1, 0.05, 0.025)
    for nudge, slope in (("one_sided", 1.0), ("symmetric", 2.0)):
        credit = EquilibriumPropagation(nudge, 80, 80)
        found = [changes(credit, network, weights, batch, ScaledContrastive(), beta=beta) for beta in betas]
        errors = torch.tensor([relative(change, expected) for change in found]).log2()
        fitted = float((errors[0] - errors[-1]) / 3)
        assert abs(fitted - slope) < 0.1, (nudge, errors)
        least = 0.9999 if nudge == "symmetric" or network.output == "sigmoid" else 0.9997
        assert min(cosine(change, expected) for change in found[1:]) > least


def test_the_sign_of_a_random_nudge_averages_to_the_symmetric_update():
    network, runs = EQUILIBRIA["sigmoid"], 8
    weights, batch = world(network, runs=1)
    assert batch.y is not None
    weights = {name: weight.expand(runs, -1, -1) for name, weight in weights.items()}
    batch = Batch(batch.x.expand(runs, -1, -1), batch.y.expand(runs, -1, -1))
    rule, noise = ScaledContrastive(), address("sign", runs=runs)
    one_sided = changes(EquilibriumPropagation("one_sided"), network, weights, batch, rule)
    symmetric = changes(EquilibriumPropagation("symmetric"), network, weights, batch, rule)
    drawn = changes(EquilibriumPropagation("random_sign"), network, weights, batch, rule, noise)
    positive = torch.isclose(vector(drawn), vector(one_sided), rtol=1e-9, atol=1e-13).all(1)
    assert 0 < int(positive.sum()) < runs
    for name in weights:
        both = (drawn[name][positive][0] + drawn[name][~positive][0]) / 2
        torch.testing.assert_close(both, symmetric[name][0], rtol=1e-8, atol=1e-12)


SETTLING = [name for name, row in ENERGY.items() if isinstance(row.credit, EnergyPhases)]
TASK = TRIALS["digits"].task.held_out()


@functools.cache
def taught_weights(name, steps):
    """A row on the network and task it is proven on: the network, its weights after some steps, a batch of images."""
    learner = ENERGY[name].learner(host_network(ENERGY[name], TRIALS["digits"]))
    carry = train(
        learner, starts(learner.params)[None], steps, TASK, runs=Runs((0,), tuple(range(RUNS))), batch=32
    ).carry
    assert carry is not None
    batch = TASK.sample(address("images", runs=RUNS), 32).train(0)
    return learner.network, {p.name: carry["weights"][p.name] for p in learner.network.projections}, batch


@pytest.mark.parametrize("name", SETTLING)
@pytest.mark.parametrize(("steps", "most"), [(1, 1e-6), (100, 1e-5)], ids=["at the start", "after learning"])
def test_the_free_phase_of_a_row_comes_to_rest_where_the_row_is_proven(name, steps, most):
    row = ENERGY[name]
    network, weights, batch = taught_weights(name, steps)
    theta = torch.full((RUNS, 1), next((v for n, v in row.values.items() if n.startswith("credit.")), 0.1)).double()
    assert isinstance(row.credit, EnergyPhases)
    answer = row.credit.respond(theta, network, weights, {}, batch.x, address("run", runs=RUNS))
    circuit = row.credit.circuit(theta, network, weights, batch.x)
    found = residual(circuit, answer)
    assert found.shape == (RUNS,)
    assert float(found.max()) < most
    further = settle(circuit, answer, 100, relaxation=row.credit.relaxation).rates
    assert max(float((further[name] - rate).abs().max()) for name, rate in answer.rates.items()) < 100 * most


@pytest.mark.parametrize("steps", [1, 100])
def test_the_row_of_equilibrium_propagation_follows_the_gradient_at_rest_where_it_is_proven(steps):
    row = ENERGY["equilibrium_propagation"]
    network, weights, batch = taught_weights("equilibrium_propagation", steps)
    found = changes(row.credit, network, weights, batch, row.rule, beta=row.values["credit.beta"])
    assert cosine(found, fixed_point(network, weights, batch)) > 0.999


def test_over_relaxation_comes_to_rest_sooner_at_the_same_place():
    network = Network.chain((8, 7, 6, 4), "tanh", "linear", bias=True, init_scale=0.7)
    weights, batch = world(network)
    circuit, start = Circuit.around(network, weights, batch.x), network.forward(weights, batch.x)
    plain, hurried = (settle(circuit, start, 30, relaxation=relaxation) for relaxation in (1.0, 1.6))
    assert float(residual(circuit, hurried).max()) < 0.05 * float(residual(circuit, plain).max())
    rest = settle(circuit, start, 1000)
    assert float(residual(circuit, rest).max()) < 1e-13
    for name, rate in rest.rates.items():
        torch.testing.assert_close(settle(circuit, start, 100, relaxation=1.6).rates[name], rate, rtol=0, atol=1e-10)


def test_a_residual_is_what_one_more_sweep_of_all_at_once_would_change():
    network = EQUILIBRIA["skips"]
    weights, batch = world(network)
    activity = network.forward(weights, batch.x)
    rates, w = activity.rates, {name: weight[..., :-1] for name, weight in weights.items()}
    ones = {name: weight[..., -1][:, None] for name, weight in weights.items()}
    output = "hidden2->output", "hidden1->output"
    drive = rates["hidden2"] @ w[output[0]].mT + ones[output[0]] + rates["hidden1"] @ weights[output[1]].mT
    assert torch.allclose(drive, activity.drives["output"])  # so that only the hidden populations are away from rest
    from_above = {
        "hidden1": rates["hidden2"] @ w["hidden1->hidden2"] + rates["output"] @ weights[output[1]],
        "hidden2": rates["output"] @ w[output[0]],
    }
    moves = [(torch.sigmoid(activity.drives[n] + sent) - rates[n]).abs().amax((1, 2)) for n, sent in from_above.items()]
    found = residual(Circuit.around(network, weights, batch.x), activity)
    torch.testing.assert_close(found, torch.stack(moves).amax(0))


def test_a_free_phase_beyond_the_tolerance_is_refused_with_its_residual():
    network = Network.chain((8, 7, 6, 4), "tanh", "linear", bias=True, init_scale=1.0)
    weights, batch = world(network)
    with pytest.raises(ValueError, match=r"credit.tolerance = 1e-06: after 5 sweeps .* a residual of 0\.\d+"):
        changes(EquilibriumPropagation(free_steps=5, tolerance=1e-6), network, weights, batch, ScaledContrastive())
    changes(EquilibriumPropagation(tolerance=1e-6), EQUILIBRIA["tanh"], *world(EQUILIBRIA["tanh"]), ScaledContrastive())


def test_no_sweep_raises_the_energy_however_strong_the_weights():
    network = Network.chain((8, 7, 6, 4), "tanh", "linear", bias=True, init_scale=1.0)
    weights, batch = world(network)
    weights = weights | {"hidden1->hidden2": weights["hidden1->hidden2"] * 4}
    circuit = Circuit.around(network, weights, batch.x)

    def energy(rates):
        hidden = [rates["hidden1"], rates["hidden2"]]
        # the integral of artanh, and of the identity at the output
        rest = sum(((1 + h) * (1 + h).log() + (1 - h) * (1 - h).log()).sum(-1) / 2 for h in hidden)
        rest = rest + 0.5 * rates["output"].square().sum(-1)
        return rest - sum((rates[p.name] * circuit.drive(p.name, rates)).sum(-1) for p in network.populations[1:])

    activity, energies = network.forward(weights, batch.x), []
    for _ in range(30):
        energies.append(energy(activity.rates))
        activity = settle(circuit, activity, 1)
    assert all((later <= earlier + 1e-12).all() for earlier, later in itertools.pairwise(energies))
    assert (energies[-1] < energies[0]).all()


@every_equilibrium
def test_the_continuous_update_lacks_only_the_change_of_pre(network):
    weights, batch = world(network)
    credit, beta = ContinuousUpdate(60, 30, relaxation=1.0), 0.05
    moved_posts = changes(credit, network, weights, batch, DifferentialHebb(), beta=beta)
    whole = changes(credit, network, weights, batch, ScaledContrastive(), beta=beta)
    one_sided = EquilibriumPropagation("one_sided", 60, 30, relaxation=1.0)
    expected = changes(one_sided, network, weights, batch, ScaledContrastive(), beta=beta)
    assert relative(whole, expected) < 1e-10
    assert cosine(moved_posts, fixed_point(network, weights, batch)) > 0.985
    assert relative(moved_posts, expected) > 1e-3


@pytest.mark.parametrize("credit", [ContrastiveHebbian(), EquilibriumPropagation(), ContinuousUpdate()])
def test_what_settles_answers_by_settling_not_feedforward(credit):
    network = settled_network()
    weights, batch = world(network)
    theta = torch.full((RUNS, 1), 0.1, dtype=torch.float64)
    answer = credit.respond(theta, network, weights, {}, batch.x, address("run", runs=RUNS))
    circuit = credit.circuit(theta, network, weights, batch.x)
    once_more = settle(circuit, answer, 1).rates
    forward = network.forward(weights, batch.x).rates
    for name in ("hidden1", "hidden2", "output"):
        torch.testing.assert_close(once_more[name], answer.rates[name], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(forward[name], answer.rates[name], atol=1e-4)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: EquilibriumPropagation("two_sided"), "did you mean 'one_sided'"),
        (lambda: EquilibriumPropagation(free_steps=0), "credit.free_steps = 0 must be at least 1"),
        (lambda: EquilibriumPropagation(relaxation=2.0), "credit.relaxation = 2.0 must lie between 0 and 2"),
        (lambda: ContrastiveHebbian(tolerance=0.0), "credit.tolerance = 0.0 must be positive"),
        (lambda: ContinuousUpdate(taught_steps=0), "credit.taught_steps = 0 must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
