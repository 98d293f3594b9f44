"""Scores in the fused engine: questions by index are answered in the kernel, weights nobody needs are forgotten."""

from __future__ import annotations

import pytest
import torch
from building import EXACT, address, assert_states_close, random_theta, train
from test_fused import FUSED, THREE, needs_kernel

from metarule import tree
from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules.textbook import Delta
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits
from metarule.tasks.few_shot import FewShot


@needs_kernel
@pytest.mark.parametrize("task", [FewShot(ways=3, shots=9, queries=2), Digits(), Digits("autoencoder")])
@pytest.mark.parametrize("wants", [("loss",), ("loss", "carry")], ids="+".join)
@pytest.mark.parametrize("output", ["softmax", "linear"])
def test_what_an_episode_asks_is_answered_in_the_kernel_as_by_the_reference(task, wants, output):
    network = Network.chain((task.inputs, 9, task.outputs), output=output, bias=True)
    learner = Learner(network, FeedbackAlignment(), {"forward": THREE}, {ANY: Momentum(0.5)})
    theta = random_theta(learner.params, address("asked", runs=3)) * 0.1
    carry = train(learner, theta, 4, task).carry
    assert carry is not None
    before = assert_untouched(carry)
    for points in ((6, 9), (9,), (6,)):
        expected, found = (
            train(learner, theta, range(4, 9), task, engine, wants=frozenset(wants), score_at=points, carry=carry)
            for engine in (EXACT, FUSED)
        )
        for name, values in expected.scores.items():
            torch.testing.assert_close(found.scores[name], values, rtol=1e-9, atol=0)
        assert_states_close(found.carry or {}, expected.carry or {}, 1e-10)
    before()


def assert_untouched(state):
    """To be called later: no number of a state has changed since."""
    kept = tree.mapped(state, torch.Tensor.clone)
    return lambda: assert_states_close(state, kept, 0)


@needs_kernel
def test_an_answer_that_is_no_number_is_never_right():
    learner = Learner(Network.chain((64, 9, 10)), Backprop(), {ANY: Delta()}, {ANY: Sgd()})
    wild = torch.tensor([[torch.inf], [0.1]], dtype=torch.float64)
    expected, found = (train(learner, wild, 6, Digits(), engine=engine) for engine in (EXACT, FUSED))
    assert torch.equal(found.loss.isinf(), expected.loss.isinf())
    assert float(found.scores["accuracy"][0]) == float(expected.scores["accuracy"][0]) == 0
    torch.testing.assert_close(found.loss[1], expected.loss[1], rtol=1e-9, atol=0)
