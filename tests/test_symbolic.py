"""Equations simplified and compared, and rules without one turned into one."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import sympy
import torch
from building import address, make, random_theta

from metarule import distillation
from metarule.distillation import distilled, in_words
from metarule.results import equations
from metarule.rules import RULES
from metarule.rules.expression import Expression
from metarule.rules.textbook import Oja, SubspaceOja
from metarule.spec import from_table
from metarule.symbolic import equivalent, parsed, sampled, simplified

SIGNED = {"R": (-1.0, 1.0)}


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("0.01 * (E * R - E)", "0.01 * E * (R - 1)"),
        ("x * y - y ** 2 * w + 1e-9 * x", "y * (x - w * y)"),
        ("0.1 * (0.3333 * x * y - 0.33330001 * y * y * w)", "0.03333 * y * (x - w * y)"),
        ("s * (v - u) * (2 * u - 1) / v", "s * (v - u) * (2 * u - 1) / v"),
        ("x / y * y + z - z", "x"),
        ("tanh(0.5 * x + x) - 2 * tanh(1.5 * x)", "-tanh(1.5 * x)"),
        ("3.00001 * x", "3 * x"),
        ("0.0052369 * (2.1398 * e + 1) / y", "0.01121 * (e + 0.4673) / y"),
        ("x - x", "0"),
    ],
)
def test_a_simplified_equation_is_short_and_says_the_same(text, short):
    found = simplified(parsed(text))
    np.testing.assert_allclose(sampled(found), sampled(parsed(short)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sampled(found), sampled(parsed(text)), rtol=1e-3, atol=1e-3)
    assert found.count_ops() <= parsed(short).count_ops() + 1  # sympy writes b - a as -a + b


def test_what_adds_nothing_goes_and_what_adds_little_stays():
    assert simplified(parsed("x * y + 1e-7 * w")) == parsed("x * y")
    assert simplified(parsed("x * y + 1e-3 * w")).has(sympy.Symbol("w"))
    # large terms that cancel each other are no reason to drop a small one
    assert simplified(parsed("1e9 * (x + y) - 1e9 * x - 1e9 * y + x * y")) == parsed("x * y")


@pytest.mark.parametrize("text", ["exp(exp(exp(x)))", "exp(1000 + abs(x))", "exp(1000 + abs(x)) * y + z"])
def test_what_grows_beyond_all_numbers_is_not_called_nothing(text):
    with np.errstate(over="ignore"):
        assert simplified(parsed(text)).has(sympy.exp)


def test_random_programs_keep_their_meaning_when_simplified():
    rule = Expression(("pre", "post", "weight", "error"), constants=2)
    for row in random_theta(rule.params, address("simplified", runs=30)):
        equation = rule.equation(row, (3, 3))
        assert equation is not None
        assert equivalent(equation, simplified(equation, digits=9), tolerance=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "values", "same"),
    [
        ("E * (R - 1) / R ** 2", "2 * E * (R - 1)", SIGNED, True),
        ("E * (R - 1) / R ** 2", "2 * E * (R - 1)", None, False),
        ("E * (R - 1)", "E * (1 - R)", SIGNED, False),  # up to a positive factor
        ("E * R", "E * abs(R)", SIGNED, False),
        ("s * (v - u)", "s * (v - u) * (2 * u - 1)", None, False),
        ("x - x", "y * 0", None, True),
        ("x", "x - x", None, False),
        ("x / y", "0.3 * x / y", None, True),
    ],
)
def test_rules_are_the_same_up_to_a_positive_factor_where_signals_go(one, other, values, same):
    assert equivalent(parsed(one), parsed(other), values) == same
    assert equivalent(parsed(other), parsed(one), values) == same


def test_a_signal_of_few_values_enters_as_a_polynomial():
    assert simplified(parsed("E * (R - 1) / R ** 2"), SIGNED) == simplified(parsed("E * (R - 1)"))
    assert simplified(parsed("tanh(R) * E / tanh(1)"), SIGNED) == parsed("E * R")
    assert simplified(parsed("E / R"), {"R": (0.0, 1.0)}) == parsed("E * R")  # a quotient by 0 is 0


@pytest.mark.parametrize("text", ["x +", "x.real", "__import__('os')", "sin(x)", "x if y else z"])
def test_text_that_is_no_equation_is_refused_and_never_run(text):
    with pytest.raises(ValueError, match="is not"):
        parsed(text)


def test_rules_of_our_own_terms_are_distilled_to_what_they_are():
    for rule in (Oja(), SubspaceOja(), make(RULES["terms"])):
        theta = random_theta(rule.params, address("distilled"))[0]
        found = distilled(rule, theta, by="terms")
        assert found.faithful
        assert equivalent(found.expression, rule.equation(theta, (3, 3)), tolerance=2e-3)


def test_a_memory_is_distilled_by_its_first_change_and_a_reward_by_its_values():
    rule = Expression(("reward", "pre", "post"), memory=1)
    row = rule.row({"m0": "0.9 * m0 + pre * post", "out": "reward * reward * post * pre + m0"}, rate=1.0)
    assert rule.equation(row, (3, 3)) is None
    assert distilled(rule, row, {"reward": (-1.0, 1.0)}).expression == parsed("post * pre")


def test_a_rule_that_is_no_polynomial_is_said_not_to_be_one():
    rule = Expression(("pre", "post"), ("mul", "sign"))
    found = distilled(rule, rule.row({"out": "sign(pre * post)"}), by="terms")
    assert not found.faithful
    assert 0.3 < found.r2_held_out < 0.6  # the best multiple of x y explains (2 / pi)^2 = .405
    still = distilled(rule, torch.zeros_like(rule.row({"out": "pre"})).index_fill(0, torch.tensor([36]), 2.0))
    assert still.faithful


@pytest.mark.skipif(importlib.util.find_spec("pyoperon") is None, reason="pyoperon, the extra `symbolic`, is missing")
def test_symbolic_regression_finds_what_terms_do_not_say():
    rule = Expression(("pre", "post"), ("mul", "tanh", "add"), constants=1)
    row = rule.row({"out": "tanh(post + post) * pre"}, rate=1.0)
    found = distilled(rule, row, evaluations=20_000)
    assert found.by == "operon"
    assert found.r2_held_out > 0.9999
    assert equivalent(found.expression, parsed("pre * tanh(2 * post)"), tolerance=0.01)
    assert len(found.front) > 1


def test_without_pyoperon_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyoperon.sklearn", None)
    rule = Expression(("pre", "post"), ("mul", "sign"))
    row = rule.row({"out": "sign(pre * post)"})
    assert distilled(rule, row).by == "terms"
    with pytest.raises(distillation.MissingError, match=r"pip install 'metarule\[symbolic\]'"):
        distilled(rule, row, by="operon")
    with pytest.raises(ValueError, match="is not one of 'terms'"):
        distilled(rule, row, by="magic")


def test_a_search_with_a_program_is_read_out_in_short():
    table = {
        "task": {"kind": "gaussian"},
        "credit": {"kind": "none"},
        "network": {"hidden": []},
        "inner": {"steps": 1},
        "rule": {"kind": "expression", "inputs": ["post", "pre", "weight"], "nodes": 6},
        "outer": {"kind": "optuna"},
    }
    search = from_table(table)
    rule = search.rules["forward"]
    row = make(type(rule), **{"inputs": ("post", "pre", "weight"), "nodes": 6}).row(
        {"out": "post*pre - post*post*weight"}
    )
    (found,) = in_words(search, row)
    assert (found["rule"], found["by"]) == ("forward", "itself")
    assert equivalent(
        parsed(found["equation"].removeprefix("dW = ").replace("·", "*").replace("²", "**2")),
        Oja().equation(row, (1, 1)),
    )


def test_a_program_with_a_memory_says_all_that_it_computes():
    table = {
        "task": {"kind": "teacher"},
        "network": {"hidden": []},
        "inner": {"steps": 1},
        "rule": {"kind": "expression", "inputs": ["error_pre"], "memory": 1, "nodes": 3},
        "outer": {"kind": "optuna"},
    }
    search = from_table(table)
    rule = Expression(("error_pre",), memory=1, nodes=3)
    row = rule.row({"m0": "0.9 * m0 + error_pre", "out": "m0 + m0"}, rate=0.5)
    (found,) = in_words(search, row)
    assert (found["by"], found["equation"]) == ("itself", "dW = m0; m0 = error_pre + 0.9·m0")
    written = equations(search, row)["forward"]
    assert written is not None
    assert written["text"] == "dW = 1.0·m0; m0 = error_pre + 0.9·m0"
    assert written["latex"].startswith(r"\Delta W = 1.0 m_{0}, \quad m_{0} = ")
