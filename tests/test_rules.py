"""Rules: one contract for every rule of the room and every term of the vocabulary, then the published formulas."""

from __future__ import annotations

import dataclasses

import pytest
import sympy
import torch
from building import (
    EVENT_SIDE,
    POST_SIDE,
    PRE_SIDE,
    SYNAPSE_SIDE,
    address,
    central_differences,
    given_signals,
    make,
    random_signals,
    random_theta,
)
from torch import Tensor

from metarule import tree
from metarule.rng import noise_for
from metarule.rules import RULES, Rule
from metarule.rules.polynomial import Polynomial
from metarule.rules.terms import Terms
from metarule.signals import Change, Signals, outer
from metarule.terms import FACTORS, POOL, TERMS, combine, glorot, monomial

SIZE_OUT, SIZE_IN = 4, 3

# every rule as it comes, and every term of the vocabulary on its own
SUBJECTS: dict[str, Rule] = {kind: make(member) for kind, member in RULES.items()}
SUBJECTS |= {f"terms={name}": Terms((name,)) for name in TERMS}

every_rule = pytest.mark.parametrize("rule", SUBJECTS.values(), ids=SUBJECTS.keys())


def given(rule, runs=2, events=1, dtype=torch.float64):
    """Theta and the signals that the rule says it reads, no others."""
    noise = address("rules", runs=runs, dtype=dtype)
    return random_theta(rule.params, noise), random_signals(noise, SIZE_OUT, SIZE_IN, events, rule.reads)


def change_of(rule, theta, signals) -> Tensor:
    """The weight change of a first event, whole."""
    runs = signals.weight.shape[0]
    state = rule.init(theta, signals.weight)
    noise = address("rules", "delta", runs=runs, dtype=theta.dtype)
    return rule.delta(theta, signals, state, noise)[0].tensor(signals.weight)


@every_rule
def test_what_a_rule_remembers_at_every_synapse_is_said_beforehand(rule):
    weight = torch.ones(2, 3, 4)
    state = rule.init(random_theta(rule.params, address("memory", runs=2)).float(), weight)
    remembered = sum(leaf.numel() for leaf in tree.leaves(state)) / weight.numel()
    assert remembered <= max(rule.per_synapse, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_rule
def test_change_has_the_shape_and_dtype_of_the_weight(rule, dtype):
    theta, signals = given(rule, dtype=dtype)
    change = change_of(rule, theta, signals)
    assert change.shape == signals.weight.shape
    assert change.dtype == dtype
    assert torch.isfinite(change).all()


@every_rule
def test_delta_leaves_its_inputs_as_they_were(rule):
    theta, signals = given(rule)
    before = {name: value.clone() for name, value in given_signals(signals).items()}
    change_of(rule, theta, signals)
    for name, value in given_signals(signals).items():
        assert torch.equal(value, before[name]), name


@every_rule
def test_delta_is_differentiable_in_theta_and_needs_no_graph_of_its_own(rule):
    theta, signals = given(rule)
    with torch.inference_mode():
        change_of(rule, theta, signals)
    assert not change_of(rule, theta, signals).requires_grad


@every_rule
def test_local_is_what_the_jacobian_says(rule):
    theta, signals = given(rule, runs=1)
    names = [name for name in given_signals(signals) if name not in EVENT_SIDE]
    # any state that the rule owns starts from the weight that it is given: it must not be differentiated
    state = rule.init(theta, signals.weight)

    def change(*values: Tensor) -> Tensor:
        moved = dataclasses.replace(signals, **dict(zip(names, values, strict=True)))
        found = rule.delta(theta, moved, state, address("rules", "delta"))[0]
        return found.tensor(moved.weight)[0]

    jacobians = torch.autograd.functional.jacobian(change, tuple(getattr(signals, name) for name in names))
    leaks = {}
    for name, jacobian in zip(names, jacobians, strict=True):
        elsewhere = torch.ones(SIZE_OUT, SIZE_IN, *getattr(signals, name).shape[1:], dtype=torch.bool)
        for i in range(SIZE_OUT):
            for j in range(SIZE_IN):
                if name in SYNAPSE_SIDE:
                    elsewhere[i, j, i, j] = False
                else:
                    assert name in (*POST_SIDE, *PRE_SIDE)
                    elsewhere[i, j, :, i if name in POST_SIDE else j] = False
        leaks[name] = float(jacobian[:, :, 0][elsewhere].abs().max()) if elsewhere.any() else 0.0
    assert rule.local == (max(leaks.values()) == 0.0), leaks


@every_rule
def test_delta_of_run_r_depends_on_theta_r_only(rule):
    theta, signals = given(rule, runs=3)
    if theta.shape[1] == 0:
        theta = torch.zeros(3, 0)
    before = change_of(rule, theta, signals)
    moved = theta.clone()
    moved[1] = random_theta(rule.params, noise_for([("other theta",)]))[0]
    after = change_of(rule, moved, signals)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert rule.params == () or not torch.equal(before[1], after[1])


@every_rule
def test_run_r_of_a_batch_equals_run_r_alone(rule):
    theta, signals = given(rule, runs=3)
    whole = change_of(rule, theta, signals)
    state = rule.init(theta[1:2], signals.weight[1:2])
    alone = Signals(**{name: value[1:2] for name, value in given_signals(signals).items()})
    noise = noise_for([("rules", "delta", 1)], theta.dtype)
    change = rule.delta(theta[1:2], alone, state, noise)[0].tensor(alone.weight)
    torch.testing.assert_close(change[0], whole[1], rtol=1e-12, atol=1e-12)


@every_rule
def test_theta_gradient_equals_finite_differences(rule):
    theta, signals = given(rule)
    probe = address("rules", "probe", runs=2).normal(SIZE_OUT, SIZE_IN)
    real = [place for place, param in enumerate(rule.params) if not param.choices]

    def projected(row: Tensor) -> Tensor:
        return (change_of(rule, row, signals) * probe).sum((1, 2))

    row = theta.clone().requires_grad_()
    value = projected(row)
    if not rule.params:
        assert not value.requires_grad
        return
    gradient = torch.autograd.grad(value.sum(), row)[0]
    expected = central_differences(projected, theta)
    torch.testing.assert_close(gradient[:, real], expected[:, real], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("events", [1, 3])
@every_rule
def test_equation_where_there_is_one_evaluates_to_delta(rule, events):
    theta = given(rule, runs=1)[0]
    expression = rule.equation(theta[0], (SIZE_OUT, SIZE_IN))
    if expression is None:
        return
    theta, signals = given(rule, runs=1, events=events)
    torch.testing.assert_close(evaluated(expression, signals), change_of(rule, theta, signals), rtol=1e-12, atol=1e-12)


def evaluated(expression: sympy.Expr, signals: Signals) -> Tensor:
    """An equation per synapse and event, factor by factor at (R B I J), averaged over events."""
    symbols = sorted(expression.free_symbols, key=str)
    aligned = []
    for symbol in symbols:
        factor = FACTORS[str(symbol)]
        value = factor.value(signals)
        shapes = {"post": (*value.shape, 1), "pre": (*value.shape[:2], 1, -1), "event": (*value.shape, 1)}
        aligned.append(value[:, None] if factor.side == "synapse" else value.reshape(shapes[factor.side]))
    events = max((value.shape[1] for value in aligned), default=1)
    value = sympy.lambdify(symbols, expression, torch)(*aligned)
    runs, size_out, size_in = signals.weight.shape
    return torch.as_tensor(value, dtype=signals.weight.dtype).expand(runs, events, size_out, size_in).mean(1)


def published(signals: Signals) -> dict[str, Tensor]:
    """Equations 14 to 23 of Shervani-Tabar and Rosenbaum (2023) as printed, their e being output minus target."""
    y, y0, e, e0 = signals.read("post"), signals.read("pre"), -signals.read("error"), -signals.read("pre_error")
    w = signals.weight
    events = y.shape[1]
    totals = {
        "error_pre": -torch.einsum("rbi,rbj->rij", e, y0),
        "post_pre_error": -torch.einsum("rbi,rbj->rij", y, e0),
        "error_pre_error": -torch.einsum("rbi,rbj->rij", e, e0),
        "weight_decay": -w * events,
        "pre_error": -torch.einsum("rbj->rj", e0)[:, None, :].expand_as(w),
        "total_post_error_pre": -torch.einsum("rbi,rbk,rbj->rij", e, y, y0),
        "agreement_post_pre_error": -torch.einsum("rbi,rbk,rkl,rbl,rbj->rij", y, y, w, e0, e0),
        "agreement_error_pre": -torch.einsum("rbi,rbk,rkl,rbl,rbj->rij", e, y, w, e0, y0),
        "match_post_pre_error": -torch.einsum("rbi,rbl,rkl,rbk,rbj->rij", y, y0, w, e, e0),
        "subspace_oja": torch.einsum("rbi,rbj->rij", y, y0) - torch.einsum("rbi,rbk,rkj->rij", y, y, w),
    }
    return {name: total / events for name, total in totals.items()}


# where an even number of errors is multiplied, the sign convention (terms.py) turns the coefficient round
TURNED = {"error_pre_error", "agreement_post_pre_error", "agreement_error_pre", "match_post_pre_error"}


@pytest.mark.parametrize("name", POOL)
def test_raw_terms_of_the_pool_follow_the_published_formulas(name):
    signals = random_signals(address("pool", runs=2), SIZE_OUT, SIZE_IN, 5)
    theirs = published(signals)
    assert tuple(theirs) == POOL
    change = change_of(Terms((name,), normalise=False), torch.ones(2, 1, dtype=torch.float64), signals)
    sign = -1.0 if name in TURNED else 1.0
    torch.testing.assert_close(change, sign * theirs[name], rtol=1e-12, atol=1e-12)


def test_the_whole_pool_at_once_is_the_sum_of_its_terms():
    signals = random_signals(address("pool", runs=2), SIZE_OUT, SIZE_IN, 5)
    rule = Terms(POOL, normalise=False)
    theta = random_theta(rule.params, address("pool", runs=2))
    theirs = published(signals)
    expected = sum(
        theta[:, k, None, None] * (-1.0 if name in TURNED else 1.0) * theirs[name] for k, name in enumerate(POOL)
    )
    torch.testing.assert_close(change_of(rule, theta, signals), expected, rtol=1e-12, atol=1e-12)


def coherent_signals(size_out: int, size_in: int) -> Signals:
    """Signals of order 1 whose sums over units add up, as they do where weights have come to fit errors.

    Rates about 1, errors about +-1; post agrees with W pre_error and error with W pre, one half of each.
    """
    noise = address("width", runs=40)
    weight = noise.at("weight").normal(size_out, size_in) * glorot(size_out, size_in)
    pre = 1 + 0.5 * noise.at("pre").normal(1, size_in)
    pre_error = noise.at("pre_error").normal(1, size_in)
    driven, sent = torch.bmm(pre, weight.transpose(1, 2)), torch.bmm(pre_error, weight.transpose(1, 2))
    post = 1 + 0.5 * noise.at("post").normal(1, size_out) + 0.5 * sent / sent.std()
    error = noise.at("error").normal(1, size_out) + 0.5 * driven / driven.std()
    return Signals(weight=weight, pre=pre, post=post, error=error, pre_error=pre_error)


def relative_change(name: str, size_out: int, size_in: int) -> float:
    """Root mean square of the change over that of the weights, coefficient 1."""
    signals = coherent_signals(size_out, size_in)
    change = change_of(Terms((name,)), torch.ones(40, 1, dtype=torch.float64), signals)
    return float(change.square().mean().sqrt()) / glorot(size_out, size_in)


@pytest.mark.parametrize("name", POOL)
def test_a_normalised_coefficient_means_the_same_at_every_width(name):
    narrow, wide = relative_change(name, 12, 16), relative_change(name, 96, 128)
    # raw coefficients would differ by the ratio of weight scales, sqrt(8), or more
    assert 0.5 < wide / narrow < 2.0
    # "of order 1" moves weights by about their scale: within a factor of 4 of it, the signals' own spread
    assert 0.25 < wide < 4.0


def test_units_are_what_a_normalised_coefficient_stands_for_in_raw_ones():
    signals = random_signals(address("units", runs=2), SIZE_OUT, SIZE_IN, 3)
    normalised, raw = Terms(POOL), Terms(POOL, normalise=False)
    theta = random_theta(normalised.params, address("units", runs=2))
    units = torch.tensor(normalised.units((SIZE_OUT, SIZE_IN)), dtype=torch.float64)
    torch.testing.assert_close(
        change_of(normalised, theta, signals), change_of(raw, theta * units, signals), rtol=1e-12, atol=1e-12
    )


def test_polynomial_is_the_sum_over_its_monomials_by_hand():
    rule = Polynomial({"pre": 2, "post": 1, "weight": 2}, constant=True, normalise=False)
    signals = random_signals(address("polynomial", runs=2), SIZE_OUT, SIZE_IN, 4)
    theta = random_theta(rule.params, address("polynomial", runs=2))
    powers = [(a, b, c) for b in range(2) for a in range(3) for c in range(3)]  # in the order of FACTORS
    assert len(powers) == len(rule.params)
    expected = torch.zeros_like(signals.weight)
    for k, (a, b, c) in enumerate(powers):
        pre, post = signals.read("pre") ** a, signals.read("post") ** b
        expected += theta[:, k, None, None] * torch.einsum("rbi,rbj->rij", post, pre) / 4 * signals.weight**c
    torch.testing.assert_close(change_of(rule, theta, signals), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Terms(()), "rule.terms is empty"),
        (lambda: Terms(("eror_pre",)), "did you mean 'error_pre'"),
        (lambda: Terms(("oja", "oja")), "twice"),
        (lambda: Terms(("oja",), start={"ojja": 1.0}), "did you mean 'oja'"),
        (lambda: Polynomial({}), "rule.degrees is empty"),
        (lambda: Polynomial({"prre": 1}), "did you mean 'pre'"),
        (lambda: Polynomial({"pre": 0}), "must be at least 1"),
        (lambda: Polynomial({"pre": 1}, start={"post": 1.0}), "rule.start"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_reading_a_signal_that_is_not_given_names_it():
    weight = torch.zeros(1, SIZE_OUT, SIZE_IN, dtype=torch.float64)
    with pytest.raises(ValueError, match="signal 'pre' was read"):
        combine((TERMS["error_pre"],), torch.ones(1, 1), Signals(weight=weight))


def test_changes_add_scale_and_apply_as_their_tensors_do():
    noise = address("change", runs=2)
    weight = noise.at("weight").normal(SIZE_OUT, SIZE_IN)
    first = outer(noise.at("post").normal(3, SIZE_OUT), noise.at("pre").normal(3, SIZE_IN))
    second = Change(shrink=weight.new_full((2, 1, 1), 0.3)) + Change(full=noise.at("full").normal(SIZE_OUT, SIZE_IN))
    factor = weight.new_tensor([0.5, -2.0])[:, None, None]
    total = (first + second).scaled(factor)
    expected = factor * (first.tensor(weight) + second.tensor(weight))
    torch.testing.assert_close(total.tensor(weight), expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(total.apply(weight), weight + expected, rtol=1e-13, atol=1e-13)
    assert torch.equal(total.apply(weight.clone(), in_place=True), total.apply(weight))


def test_monomials_are_named_in_one_order_and_drop_power_zero():
    assert monomial(weight=1, post=2, pre=0) == monomial(post=2, weight=1)
