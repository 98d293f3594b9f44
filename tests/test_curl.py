"""The curl of an update: none where it is a gradient, the known one where a rule's Jacobian is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from building import address

from metarule.collect import load_file
from metarule.credit.none import Nobody
from metarule.inspection.curl import asymmetry
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import starts
from metarule.rules.terms import Terms
from metarule.signals import Batch, Signals
from metarule.synapses.sgd import Sgd
from metarule.zoo import ZOO

RUNS = 3


def measured(learner, batch):
    noise = address("curl", runs=RUNS)
    theta = starts(learner.params).expand(RUNS, -1)
    state = learner.init(learner.columns(theta), noise)
    return asymmetry(learner, theta, state, batch, noise), state["weights"]


def batch_of(network, events=5):
    noise = address("batch", runs=RUNS)
    y = torch.softmax(noise.at("y").normal(events, network.populations[-1].size), dim=-1)
    return Batch(noise.at("x").normal(events, network.populations[0].size), y)


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_backprop_has_no_curl(activation, output):
    network = Network.chain((3, 4, 3, 2), activation, output, bias=True, skips=((0, 2),))
    assert measured(ZOO["backprop"].learner(network), batch_of(network))[0].max() < 1e-8


@pytest.mark.parametrize("name", ["feedback_alignment", "three_term", "fa_oja", "direct_feedback_alignment"])
def test_updates_that_are_no_gradients_have_one(name):
    network = Network.chain((3, 4, 3, 2), "softplus", beta=10.0)
    assert measured(ZOO[name].learner(network), batch_of(network))[0].min() > 0.05


def test_the_curl_of_ojas_rule_is_that_of_its_jacobian():
    network = Network.chain((3, 1), "linear", "linear")
    learner = Learner(
        network, Nobody(), {"forward": Terms(("oja",), normalise=False, start={"oja": 0.7})}, {ANY: Sgd()}
    )
    batch = batch_of(network)
    found, weights = measured(learner, batch)
    for run in range(RUNS):
        w = weights["input->output"][run, 0]
        covariance = batch.x[run].T @ batch.x[run] / len(batch.x[run])
        # dw = C w - (w C w) w
        jacobian = covariance - (w @ covariance @ w) * torch.eye(3, dtype=w.dtype) - 2 * torch.outer(w, covariance @ w)
        expected = (jacobian - jacobian.T).norm() / (jacobian + jacobian.T).norm()
        assert float(found[run]) == pytest.approx(float(expected), rel=1e-6)


class Turning(Nobody):
    """post is the drive of the other unit, with a sign: W turns about the origin."""

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=theta.dtype)
        drive = torch.einsum("rbj,rij->rbi", batch.x, weights["input->output"])
        return {"input->output": Signals(weights["input->output"], batch.x, drive @ turn)}, state


def test_an_update_that_only_turns_has_an_asymmetry_far_above_one():
    network = Network.chain((2, 2), "linear", "linear")
    hebb = Terms(("post_pre",), normalise=False, start={"post_pre": 1.0})
    found, _ = measured(Learner(network, Turning(), {"forward": hebb}, {ANY: Sgd()}), batch_of(network))
    assert found.min() > 1e6


def test_the_analysis_tells_gradients_from_other_rules():
    script = load_file(Path(__file__).parent.parent / "analysis" / "curl.py")
    found = {name: script.measured(*made, episodes=2, steps=2) for name, made in script.learners([]).items()}
    assert all(max(value) < 1e-6 for value in found["backprop"][:2])
    assert all(min(value) > 0.1 for name in found if name != "backprop" for value in found[name][:2])
