"""Fingerprints: rules that act the same are one rule, others are not."""

from __future__ import annotations

import pytest
import torch
from building import address, make, random_theta, start_row

from metarule.credit.backprop import Backprop
from metarule.credit.node_perturbation import NodePerturbation
from metarule.fingerprint import fingerprint, rounded
from metarule.learner import Learner
from metarule.network import Network
from metarule.rules import RULES
from metarule.rules.expression import Expression
from metarule.synapses.adam import Adam
from metarule.synapses.sgd import Sgd

RULE = Expression(("post", "pre", "weight", "error", "error_pre"), ("add", "sub", "mul", "div", "sign"), constants=2)
DELTA = "error * pre"


def learner(rule, synapse=None) -> Learner:
    network = Network.chain((3, 2, 2), "tanh", bias=False)
    return Learner(network, Backprop(), {"forward": rule}, {"any": synapse or Sgd()})


def prints(*programs: str) -> torch.Tensor:
    return fingerprint(learner(RULE), torch.stack([RULE.row({"out": program}) for program in programs]))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("post * (pre - post * weight)", "post * pre - weight * post ** 2", True),
        (DELTA, "(error * pre * post) / post", True),
        (DELTA, "(error * pre + weight) - weight", True),
        (DELTA, "error_pre", True),
        ("sign(error * pre)", "sign(error_pre)", False),  # the mean of signs, the sign of the mean
        (DELTA, "pre * error * 1.001", False),
        (DELTA, "0 - error * pre", False),
        ("pre - pre", "post * 0", True),
    ],
)
def test_rules_that_act_the_same_have_one_fingerprint(one, other, same):
    first, second = prints(one, other)
    assert torch.equal(first, second) == same


def test_rules_that_differ_where_a_signal_never_goes_are_one_rule_when_that_is_known():
    rule = Expression(("reward", "pre"))
    network = Network.chain((3, 2), "tanh", bias=False)
    given = Learner(network, NodePerturbation(), {"forward": rule}, {"any": Sgd()}, fixed={"credit.sigma": 0.1})
    theta = torch.stack(
        [rule.row({"out": "pre * (reward - 1)"}), rule.row({"out": "pre * (reward - 1) / reward ** 2"})]
    )
    assert not torch.equal(*fingerprint(given, theta))
    assert torch.equal(*fingerprint(given, theta, {"reward": (-1.0, 1.0)}))


def test_numbers_of_the_synapse_belong_to_the_fingerprint():
    given = learner(RULE, Adam())
    row = start_row(given)
    faster = start_row(given, rate=0.5)
    assert "synapse.rate" in {param.name for param in given.params}
    assert not torch.equal(*fingerprint(given, torch.cat((row, faster))))


def test_a_memory_that_only_shows_later_shows():
    rule = Expression(("pre",), memory=1)
    given = learner(rule)
    theta = torch.stack([rule.row({"m0": "m0 + pre", "out": "pre + m0"}), rule.row({"m0": "m0", "out": "pre + m0"})])
    assert not torch.equal(*fingerprint(given, theta))


READABLE = {kind: rule for kind, member in RULES.items() if (rule := make(member)).reads <= {"pre", "post", "error"}}


@pytest.mark.parametrize("kind", READABLE)
def test_a_row_has_the_fingerprint_that_it_has_alone(kind):
    given = learner(READABLE[kind])
    theta = random_theta(given.params, address("fingerprints", runs=3))
    whole = fingerprint(given, theta)
    assert whole.shape[0] == 3
    assert torch.equal(fingerprint(given, theta[1:2])[0], whole[1])


def test_rounding_is_of_the_largest_change_and_keeps_what_is_not_finite_apart():
    rows = torch.tensor([[1.0, 1e-12, 0.0], [1.0, 0.0, -0.0], [float("nan"), 1.0, 2.0]], dtype=torch.float64)
    found = rounded(rows)
    assert torch.equal(found[0], found[1])
    assert torch.isinf(found[2, 0])
    assert torch.equal(rounded(rows[:1] * 1e-200), rounded(rows[1:2] * 1e-200))
