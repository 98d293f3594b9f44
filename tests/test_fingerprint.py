"""Fingerprints: rules that act the same are one rule, others are not."""

from __future__ import annotations

import pytest
import torch
from building import address, make, random_theta, start_row

from metarule.credit.backprop import Backprop
from metarule.credit.node_perturbation import NodePerturbation
from metarule.family import Family
from metarule.fingerprint import fingerprint, probe_signals, rounded
from metarule.learner import Learner
from metarule.loop import begun, engine_for, generations
from metarule.network import Network
from metarule.params import Param
from metarule.rng import noise_for
from metarule.rules import RULES
from metarule.rules.expression import Expression
from metarule.signals import SIGNALS
from metarule.spec import from_table
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
    rule = Expression(("pre",), memory=4)
    chain = {"m1": "m0", "m2": "m1", "m3": "m2", "out": "pre + m3"}
    theta = torch.stack([rule.row({"m0": "pre", **chain}), rule.row({"m0": "m0", **chain})])
    assert not torch.equal(*fingerprint(learner(rule), theta))


def test_candidates_of_different_structure_are_never_the_same_and_are_compared_by_their_own_learners():
    choices = (Param("credit", choices=("a", "b")),)
    family = Family(choices, {("a",): learner(RULE), ("b",): learner(RULE, Adam())})
    column = {param.name: place for place, param in enumerate(family.params)}
    same = RULE.row({"out": DELTA}), RULE.row({"out": "(error * pre * post) / post"}), RULE.row({"out": "weight"})
    rows = torch.zeros(5, len(family.params), dtype=torch.float64)
    for place, (structure, genes) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]):
        for param, value in zip(RULE.params, same[genes].tolist(), strict=True):
            rows[place, column[f"rule.forward.{param.name}"]] = value
        rows[place, 0] = structure
        rows[place, -1] = 1e-3
    found = family.fingerprint(rows)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[4])
    assert torch.equal(family.fingerprint(rows[:1])[0], found[0])


def test_a_search_tells_its_outer_loop_how_to_recognise_a_rule():
    table = {
        "task": {"kind": "gaussian"},
        "network": {"hidden": []},
        "credit": {"kind": "none"},
        "rule": {"kind": "expression", "inputs": ["post", "pre"], "nodes": 3},
        "outer": {"kind": "genetic", "candidates": 8, "generations": 3, "parents": 4},
        "inner": {"steps": 2, "episodes": 1, "fixed_episodes": True},
    }
    search = from_table(table)
    outer = begun(search)
    *_, last = generations(search, outer, 0, engine_for(search))
    assert last.report["recognised"] > 0
    assert last.report["evaluated"] == 24


def test_every_signal_can_be_probed():
    given = probe_signals(SIGNALS, noise_for([("probe",)]), (2, 3, 4), {"reward": (0.0, 1.0)})
    assert all(getattr(given, name) is not None for name in SIGNALS)
    assert set(given.read("reward").flatten().tolist()) <= {0.0, 1.0}


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
