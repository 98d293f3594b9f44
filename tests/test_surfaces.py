"""Response surfaces are the rule's own change, at the signals that it meets on its task."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from building import address, make, random_signals, random_theta
from rich.console import Console

from metarule.credit.backprop import Backprop
from metarule.credit.none import Nobody
from metarule.evaluation import Conditions
from metarule.inner import Reference
from metarule.inspection.observed import Observed, factors_of, observed, typical
from metarule.inspection.probe_figures import draw
from metarule.inspection.subject import Subject
from metarule.inspection.surfaces import FEW, GRID, axis, changes, influences, of_rule, surfaces
from metarule.inspection.surfaces_report import surfaces_report
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import starts
from metarule.rules import RULES
from metarule.rules.gated import Gated
from metarule.rules.lstm import Lstm
from metarule.rules.mlp import Mlp
from metarule.rules.polynomial import Polynomial
from metarule.rules.terms import Terms
from metarule.rules.textbook import Hebb, Oja
from metarule.synapses.sgd import Sgd
from metarule.tasks.few_shot import FewShot
from metarule.tasks.gaussian import Gaussian

NETWORK = Network.chain((64, 9, 7, 10), "tanh", bias=True)


def met(rule, shape=(5, 4), count=400):
    """Signals of N synapses, standard normal with means of their own."""
    noise = address("met")
    signals = {
        name: noise.at(name).normal(count)[0].numpy() + 0.1 * place for place, name in enumerate(factors_of(rule))
    }
    return Observed("here", shape, signals, np.zeros(count))


def subject_of(rule, credit, network, task, steps=6, batch=2):
    learner = Learner(network, credit, {"forward": rule}, {ANY: Sgd()})
    return Subject("row", learner, starts(learner.params)[None], task, Conditions(Reference(), steps, batch), 1)


@pytest.mark.parametrize(
    "rule",
    [
        Oja(),
        Terms(("error_pre", "oja", "weight_decay", "post_weight")),
        Terms(("error_pre", "oja"), normalise=False),
        Polynomial(),
        Mlp(("pre", "post", "weight", "error")),
        Lstm(("error_pre", "oja")),
        Gated(("post_pre", "oja"), start={"post_pre_tau0": 0.3, "oja_tau1": 0.2}),
        make(RULES["expression"], ("pre", "post", "weight")),
    ],
    ids=lambda rule: rule.kind,
)
def test_a_synapse_alone_changes_as_it_does_in_its_layer(rule):
    noise = address("surface")
    size_out, size_in = 5, 3
    signals = random_signals(noise, size_out, size_in, 1, rule.reads)
    theta = random_theta(rule.params, noise) if rule.params else torch.zeros(1, 0, dtype=torch.float64)
    change = rule.delta(theta, signals, rule.init(theta, signals.weight), noise)[0].tensor(signals.weight)
    given = {"weight": signals.weight[0]}
    for name in rule.reads:
        value = signals.read(name)[0, 0]
        given[name] = (value if name == "pre" else value[:, None]).expand(size_out, size_in)
    flat = {name: value.reshape(-1).numpy() for name, value in given.items()}
    alone = changes(rule, theta[0], flat, (size_out, size_in))
    np.testing.assert_allclose(alone, change.reshape(-1).numpy(), rtol=1e-10, atol=1e-14)


def test_the_surfaces_of_oja_are_its_equation_on_the_grid():
    seen = met(Oja())
    made = of_rule(Oja(), torch.zeros(0), seen)
    assert {frozenset((each["x"], each["y"])) for each in made} == {
        frozenset(pair) for pair in (("pre", "post"), ("pre", "weight"), ("post", "weight"))
    }
    for each in made:
        x, y = np.meshgrid(each["x_values"], each["y_values"])
        given = {**each["held"], each["x"]: x, each["y"]: y}
        expected = given["post"] * given["pre"] - given["post"] ** 2 * given["weight"]
        np.testing.assert_allclose(np.array(each["change"]), expected, rtol=1e-12, atol=1e-12)
        assert len(each["x_values"]) == GRID
        mean = seen.signals[each["x"]].mean()
        assert each["x_values"][GRID // 2] == pytest.approx(mean, abs=1e-12)


def test_sums_over_units_are_signals_of_their_own():
    rule = Terms(("subspace_oja",), normalise=False)
    theta = torch.tensor([2.0], dtype=torch.float64)
    for each in of_rule(rule, theta, met(rule)):
        x, y = np.meshgrid(each["x_values"], each["y_values"])
        given = {**each["held"], each["x"]: x, each["y"]: y}
        expected = 2 * given["post"] * (given["pre"] - given["reconstruction"])
        np.testing.assert_allclose(np.array(each["change"]), expected, rtol=1e-9, atol=1e-12)


def test_a_signal_that_is_not_read_has_no_influence_and_those_of_a_sum_share_it():
    noise = address("influence")
    signals = {name: noise.at(name).normal(4000)[0].numpy() for name in ("pre", "post", "error")}
    found = influences(lambda given: 3 * given["pre"] + 4 * given["post"], signals)
    assert found["error"] == 0
    assert found["pre"] == pytest.approx(9 / 25, abs=0.03)
    assert found["post"] == pytest.approx(16 / 25, abs=0.05)


def test_few_values_are_shown_as_they_are():
    assert axis(np.array([1.0, -1.0, 1.0, 0.0])).tolist() == [-1.0, 0.0, 1.0]
    assert len(axis(np.arange(FEW + 1.0))) == GRID


def test_a_rule_is_observed_where_it_stands_and_what_it_did_is_what_it_says():
    subject = subject_of(Hebb(), Backprop(), NETWORK, FewShot(ways=2, shots=8, queries=2))
    seen = observed(subject, "forward")
    assert seen is not None
    assert (seen.at, seen.shape) == ("hidden1->hidden2", (7, 10))
    np.testing.assert_allclose(seen.change, seen.signals["pre"] * seen.signals["post"], rtol=1e-9, atol=1e-14)
    assert np.abs(seen.signals["post"]).max() < 1  # rates of tanh
    halves = [seen.half(place) for place in (0, 1)]
    assert sum(len(half.change) for half in halves) == len(seen.change)
    shared = np.intersect1d(halves[0].signals["weight"], halves[1].signals["weight"])
    assert set(shared) <= {0.0}  # biases start at 0; all other weights are of other runs


def test_a_rule_whose_runs_all_diverge_has_no_surface_and_says_so():
    made = subject_of(Terms(("weight_decay", "post_pre")), Backprop(), NETWORK, FewShot(ways=2, shots=8, queries=2), 8)
    names = [param.name for param in made.learner.params]
    made = replace(made, theta=torch.full((1, len(names)), 1e80, dtype=torch.float64))
    assert observed(made, "forward") is None
    section = surfaces(made)
    assert section["surfaces"] == []
    assert "diverge" in section["sentences"][0]


def test_a_rule_that_serves_no_projection_is_not_observed():
    made = subject_of(Hebb(), Backprop(), NETWORK, FewShot())
    assert typical(made.learner, "readout") is None
    assert observed(made, "readout") is None


def test_the_section_is_json_shown_and_drawn():
    subject = subject_of(Mlp(("pre", "post", "weight")), Nobody(), Network.chain((10, 2), output="linear"), Gaussian())
    found = surfaces(subject, {"forward": "dW = about nothing"})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found["surfaces"]) == 3
    for each in found["surfaces"]:
        assert np.array(each["change"]).shape == (len(each["y_values"]), len(each["x_values"]))
        assert each["equation"] == "dW = about nothing"
        assert set(each["held"]) | {each["x"], each["y"]} == {"pre", "post", "weight"}
    text = io.StringIO()
    Console(file=text, width=100).print(surfaces_report(found))
    assert "dW of a synapse of input->output" in text.getvalue()
    (name, figure), = draw({"name": "row", "surfaces": found}).items()  # fmt: skip
    assert name == "surfaces"
    labels = {(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes if axes.get_xlabel()}
    assert labels == {(each["x"], each["y"]) for each in found["surfaces"]}


def test_a_rule_of_one_signal_has_no_surface_and_says_so():
    found = surfaces(subject_of(Terms(("pre",), start={"pre": 0.1}), Backprop(), NETWORK, FewShot()))
    assert found["surfaces"] == []
    assert "fewer than two signals" in found["sentences"][0]
