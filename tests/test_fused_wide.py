"""Large weights in the fused engine, which one event at a time passes by once: their changes wait for each other."""

from __future__ import annotations

import pytest
import torch
from building import EXACT, address, random_theta, train
from test_fused import FUSED, THREE, agrees, needs_kernel

from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.sign_symmetry import SignSymmetry
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.nonlinearities import NONLINEARITIES
from metarule.rules.terms import Terms
from metarule.rules.textbook import Oja
from metarule.synapses.sgd import Sgd

pytestmark = needs_kernel

MIXED = Terms(
    ("error_pre", "error_pre_error", "subspace_oja", "post_pre", "oja"),
    start={"error_pre": 0.2, "error_pre_error": 0.05, "subspace_oja": 0.03, "post_pre": 0.01, "oja": 0.02},
)

# the first layers' weights, 34 x 531 and 170 x 35, are large in both precisions and fill no vectors; rows of the first
# are so long that few are near at a time, whatever the instructions
WIDE = (530, 34, 170, 5)


def learner(credit, rule=THREE, activation="tanh"):
    return Learner(Network.chain(WIDE, activation, bias=True), credit, {"forward": rule}, {ANY: Sgd()})


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    "credit",
    [Backprop(), FeedbackAlignment(), DirectFeedbackAlignment(), SignSymmetry(), KolenPollack()],
    ids=lambda credit: credit.kind,
)
def test_changes_that_wait_are_made_before_anybody_sees_the_weights(credit, decay):
    rules = {"forward": THREE} | ({"feedback": Terms(("error_pre",))} if credit.kind == "kolen_pollack" else {})
    network = Network.chain(WIDE, bias=True)
    made = Learner(network, credit, rules, {ANY: Sgd(weight_decay=decay)})
    # two a step over forty steps, more than find room, and a score in between
    agrees(made, tame=0.02, batch=1, steps=40, score_at=(13, 40))


@pytest.mark.parametrize("rule", [MIXED, Oja()], ids=["five terms", "oja"])
def test_rows_that_forget_take_the_changes_that_wait_with_them(rule):
    agrees(learner(Backprop(), rule), tame=0.02, batch=1, steps=40)


@pytest.mark.parametrize("wants", [("loss", "grad"), ("loss", "grad", "carry")], ids="+".join)
@pytest.mark.parametrize("credit", [Backprop(), FeedbackAlignment()], ids=lambda credit: credit.kind)
def test_gradients_are_those_of_autograd_whatever_lay_in_memory_before(credit, wants):
    made = learner(credit)
    theta = random_theta(made.params, address("wide", runs=3)) * 0.02
    torch.use_deterministic_algorithms(True)  # memory that nobody has written is then no number
    try:
        expected, found = (
            train(made, theta, 20, engine=each, wants=frozenset(wants), batch=1) for each in (EXACT, FUSED)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert found.engine.startswith("fused adjoint")
    assert expected.grad is not None
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-8, atol=1e-9 * float(expected.grad.abs().max()))


@pytest.mark.parametrize("activation", NONLINEARITIES)
def test_every_nonlinearity_is_the_same_where_few_units_are_driven_at_a_time(activation):
    agrees(learner(FeedbackAlignment(), activation=activation), tame=0.02, batch=1, steps=20)
