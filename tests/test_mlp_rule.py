"""The mlp family: its formula spelled out, events in pieces, a start that gradients can leave, planted rules."""

from __future__ import annotations

import math

import pytest
import torch
from building import address, random_signals, random_theta, train

from metarule.contracts.rules import check_rule
from metarule.credit.backprop import Backprop
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import starts
from metarule.rules import mlp
from metarule.rules.mlp import LOCAL, Mlp
from metarule.rules.terms import Terms
from metarule.signals import Signals
from metarule.synapses.sgd import Sgd
from metarule.terms import FACTORS, glorot

SIZE_OUT, SIZE_IN, EVENTS = 4, 3, 5


def given(rule, runs=2, events=EVENTS):
    noise = address("mlp", runs=runs)
    return random_theta(rule.params, noise), random_signals(noise, SIZE_OUT, SIZE_IN, events, rule.reads)


def change_of(rule, theta, signals):
    return rule.delta(theta, signals, {}, address("mlp"))[0].tensor(signals.weight)


def by_hand(rule, theta, signals):
    """One synapse and one event at a time, weights looked up by their names."""
    names = [param.name for param in rule.params]
    scale = glorot(SIZE_OUT, SIZE_IN) if rule.normalise else 1.0
    change = torch.zeros_like(signals.weight)
    for r, i, j in torch.cartesian_prod(*map(torch.arange, change.shape)).tolist():
        value = dict(zip(names, theta[r].tolist(), strict=True))
        for b in range(EVENTS):
            units = {}
            for name in rule.inputs:
                where = {"post": (r, b, i), "pre": (r, b, j), "event": (r, b, 0), "synapse": (r, i, j)}
                factor = FACTORS[name]
                units[name] = float(factor.value(signals)[where[factor.side]])
                units[name] /= scale if factor.side == "synapse" else 1.0
            for layer, count in enumerate(rule.hidden, start=1):
                drives = [
                    value[f"hidden{layer}_{unit}_bias"]
                    + sum(value[f"hidden{layer}_{unit}_{name}"] * rate for name, rate in units.items())
                    for unit in range(count)
                ]
                units = {str(unit): math.tanh(drive) for unit, drive in enumerate(drives)}
            answer = value["output_bias"] + sum(value[f"output_{name}"] * rate for name, rate in units.items())
            change[r, i, j] += rule.rate * scale * answer / EVENTS
    return change


RULES = {
    "as it comes": Mlp(),
    "two hidden layers": Mlp(hidden=(3, 2)),
    "no hidden layer": Mlp(hidden=()),
    "raw": Mlp(normalise=False, rate=1.0),
    "every kind of input": Mlp(("post", "gain", "pre", "pre_error", "reward", "weight", "weight_noise"), (2,)),
    "the weight alone": Mlp(("weight",), (2,)),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


@every_rule
def test_the_change_is_the_mean_of_what_one_network_says_at_every_synapse_and_event(rule):
    theta, signals = given(rule)
    torch.testing.assert_close(change_of(rule, theta, signals), by_hand(rule, theta, signals), rtol=1e-12, atol=1e-14)


@every_rule
def test_every_size_of_the_family_keeps_the_contract_of_a_rule(rule):
    assert [check for check in check_rule(rule) if not check.ok] == []


@every_rule
@pytest.mark.parametrize("piece", [1, 2 * SIZE_OUT * SIZE_IN * 8])
def test_events_computed_in_pieces_are_the_same_mean(rule, piece, monkeypatch):
    theta, signals = given(rule)
    whole = change_of(rule, theta, signals)
    monkeypatch.setattr(mlp, "PIECE", piece)
    torch.testing.assert_close(change_of(rule, theta, signals), whole, rtol=1e-12, atol=1e-14)


def test_normalised_changes_move_weights_by_the_same_fraction_of_their_scale_at_every_width():
    rule = Mlp(("pre", "error", "weight"))
    theta = starts(rule.params)[None]
    found = []
    for size in (2, 50):
        scale = glorot(size, size)
        ones = torch.ones(1, 1, size, dtype=torch.float64)
        signals = Signals(weight=scale * torch.ones(1, size, size, dtype=torch.float64), pre=ones, error=ones)
        found.append(change_of(rule, theta, signals)[0, 0, 0] / scale)
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_every_weight_has_a_gradient_at_the_start_and_no_two_units_are_the_same():
    for rule in (Mlp(), Mlp(hidden=(4, 3))):
        _, signals = given(rule, runs=1)
        theta = starts(rule.params)[None].requires_grad_()
        (gradient,) = torch.autograd.grad(change_of(rule, theta, signals).square().sum(), theta)
        assert gradient.abs().min() > 0
        assert len(set(theta[0].tolist())) == theta.shape[1]


def test_a_linear_member_is_the_rule_of_its_terms_and_has_their_equation():
    linear = Mlp(("pre", "post", "error"), hidden=(), rate=1.0)
    terms = Terms(("pre", "post", "error", "constant"))
    theta = random_theta(terms.params, address("mlp", "linear", runs=2))
    _, signals = given(linear)
    torch.testing.assert_close(change_of(linear, theta, signals), change_of(terms, theta, signals))
    shape = (SIZE_OUT, SIZE_IN)
    gap = linear.equation(theta[0], shape) - terms.equation(theta[0], shape)
    assert max(abs(float(number)) for number in gap.expand().as_coefficients_dict().values()) < 1e-14
    assert Mlp().equation(starts(Mlp().params), shape) is None


def planted_product(size=1e-3):
    """Weights with which four tanh units multiply pre and error, up to a relative error of size^2."""
    rule = Mlp(("pre", "error"), (4,), normalise=False, rate=1.0)
    curvature = -2 * math.tanh(1) * (1 - math.tanh(1) ** 2)  # tanh''(1)
    # (a + b)^2 - (a - b)^2 = 4 ab; f(1 + u) + f(1 - u) = 2 f(1) + f''(1) u^2
    signs = ((1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1))
    values = {f"hidden1_{unit}_bias": 1.0 for unit in range(4)}
    for unit, (pre, error, out) in enumerate(signs):
        values |= {f"hidden1_{unit}_pre": size * pre, f"hidden1_{unit}_error": size * error}
        values[f"output_{unit}"] = out / (4 * curvature * size**2)
    return rule, torch.tensor([[values.get(param.name, 0.0) for param in rule.params]], dtype=torch.float64)


def test_the_product_of_two_signals_is_a_member_and_learns_as_gradient_descent_does():
    rule, theta = planted_product()
    _, signals = given(rule, runs=1)
    delta = change_of(Terms(("error_pre",), normalise=False), torch.ones(1, 1, dtype=torch.float64), signals)
    torch.testing.assert_close(change_of(rule, theta, signals), delta, rtol=1e-4, atol=1e-5)
    network = Network.chain((6, 5, 3), "tanh", bias=True)
    rate = torch.tensor(0.5, dtype=torch.float64)
    scaled = theta.clone()
    scaled[:, -5:] *= rate
    learners = (
        Learner(network, Backprop(), {"forward": rule}, {ANY: Sgd()}),
        Learner(network, Backprop(), {"forward": Terms(("error_pre",), normalise=False)}, {ANY: Sgd()}),
    )
    rows = scaled, rate.reshape(1, 1)
    (one, other) = (train(learner, row).loss for learner, row in zip(learners, rows, strict=True))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=0)


def test_inputs_that_are_not_given_are_left_out():
    assert Mlp().fitted(frozenset({"pre", "post"})).inputs == ("pre", "post", "weight")
    with pytest.raises(ValueError, match=r"rule.inputs = \['error'\] are none of the signals pre"):
        Mlp(("error",)).fitted(frozenset({"pre"}))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"inputs": ()}, "rule.inputs is empty"),
        ({"inputs": ("eror",)}, "rule.inputs = 'eror' is not one of .*; did you mean 'error'"),
        ({"inputs": ("match",)}, "rule.inputs = 'match' is not one of"),
        ({"inputs": ("pre", "pre")}, "names a signal twice"),
        ({"hidden": (3, 0)}, "a layer has at least one unit"),
        ({"activation": "tan"}, "did you mean 'tanh'"),
        ({"rate": 0.0}, "rule.rate = 0.0 must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Mlp(**settings)


def test_what_it_may_read_is_what_is_at_hand_at_a_synapse():
    assert {name for name in FACTORS if name not in LOCAL} == {"reconstruction", "total_post", "agreement", "match"}
