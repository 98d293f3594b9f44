"""What calls of the fused engine share: only what learners that share it have in common, and threads."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from dataclasses import replace

import pytest
import torch
from building import EXACT, address, random_theta, train
from test_fused import FUSED, needs_kernel

from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.sign_symmetry import SignSymmetry
from metarule.fused import threads
from metarule.fused.blank import Taught, blank
from metarule.fused.learners import refused
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules.polynomial import Polynomial
from metarule.rules.terms import Terms
from metarule.synapses.base import Plain
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.terms import TERMS

RULE = Terms(("error_pre", "error_pre_error", "subspace_oja"))
SIZES = (6, 5, 4)


def learner(network=None, credit=None, rules=None, synapse=None, **settings):
    return Learner(
        network or Network.chain(SIZES), credit or FeedbackAlignment(), rules or {ANY: RULE}, {ANY: synapse or Sgd()},
        **settings,
    )  # fmt: skip


ALIKE = {
    "base": learner(),
    "sizes": learner(Network.chain((6, 7, 4))),
    "bias": learner(Network.chain(SIZES, bias=True)),
    "activation": learner(Network.chain(SIZES, "softplus")),
    "beta": learner(Network.chain(SIZES, "softplus", beta=4.0)),
    "output": learner(Network.chain(SIZES, output="sigmoid")),
    "crossing": learner(credit=Backprop()),
    "direct": learner(credit=DirectFeedbackAlignment()),
    "signs": learner(credit=SignSymmetry()),
    "taught": learner(credit=KolenPollack(), rules={"forward": RULE, "feedback": Terms(("error_pre",))}),
    "order of terms": learner(rules={ANY: Terms(RULE.terms[::-1])}),
    "fewer terms": learner(rules={ANY: Terms(RULE.terms[:1])}),
    "a rule per layer": learner(rules={"input->hidden1": RULE, "readout": Terms(("oja", "error_pre", "post"))}),
    "the last layer learns": learner(rules={"readout": RULE}),
    "the first layer learns": learner(rules={"input->hidden1": RULE}),
    "powers": learner(rules={ANY: Polynomial({"pre": 2, "error": 1})}),
    "raw": learner(rules={ANY: replace(RULE, normalise=False)}),
    "switches": learner(rules={ANY: replace(RULE, switches=True)}),
    "fixed": learner(fixed={"rule.error_pre": 0.3}),
    "decay": learner(synapse=Sgd(weight_decay=0.05)),
    "momentum": learner(synapse=Momentum(0.8)),
    "less momentum": learner(synapse=Momentum(0.0)),
    "nesterov": learner(synapse=Momentum(0.8, nesterov=True)),
    "schedule": learner(schedule=lambda step: {"forward": 0.5 ** step}),
}  # fmt: skip


@needs_kernel
def test_learners_that_differ_in_one_setting_share_nothing_that_it_changes():
    trained = []
    for name, each in 2 * [*ALIKE.items()]:  # every one after all others
        theta = random_theta(each.params, address("calls", runs=3)) * 0.1
        expected, found = (train(each, theta, 4, engine=engine) for engine in (EXACT, FUSED))
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-10, atol=0, msg=name)
        trained.append(found.loss)
    # the settings are ones that matter: no two learners with as many parameters came to the same
    assert len({loss.numpy().tobytes() for loss in trained}) == len(ALIKE)


@needs_kernel
def test_what_learners_share_is_never_filled_in():
    each = ALIKE["momentum"]
    theta = random_theta(each.params, address("calls", runs=2)) * 0.1
    for wants in ("loss", "grad"):
        train(each, theta, 3, engine=FUSED, wants=frozenset({wants}))
    forward = [p.name for p in each.network.projections]
    shared = blank(
        each.network, "own", tuple(Taught(name, RULE.weighted, Plain(0.0, 0.8)) for name in forward)
    )  # fmt: skip
    assert blank.cache_info().hits
    pointers = ("weight", "feedback", "weight_gradient", "feedback_gradient")
    assert not any(getattr(layer, name) for layer in shared.layers for name in pointers)
    pointers = ("group", "rate", "schedule", "velocity", "rate_gradient", "velocity_gradient")
    assert not any(getattr(layer.rule, name) for layer in shared.layers for name in pointers)
    groups = [group for rule in shared.rules for group in rule.groups]
    assert groups
    assert not any(group.coefficients or group.coefficient_gradient for group in groups)


def test_whether_a_learner_is_refused_depends_on_all_of_its_settings_and_is_forgotten_with_it():
    able, limited = learner(), learner(synapse=Sgd(bound=1.0))
    for _ in range(2):
        assert refused(able) is None
        assert "is more than momentum" in str(refused(limited))
        assert "is no list of terms" not in str(refused(limited))
    kept = weakref.ref(able)
    del able
    gc.collect()
    assert kept() is None


def test_columns_of_theta_are_those_of_the_learner_whatever_one_of_equal_parts_fixes():
    free = learner()
    theta = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert free.columns(theta).rules[ANY].tolist() == theta.tolist()
    held = replace(free, fixed={"rule.error_pre_error": 9.0})
    assert held.columns(theta[:, 1:]).rules[ANY].tolist() == [[2.0, 9.0, 3.0], [5.0, 9.0, 6.0]]
    assert free.columns(theta).rules[ANY].tolist() == theta.tolist()
    with pytest.raises(ValueError, match="theta has 3 columns; this learner has 2 parameters"):
        held.columns(theta)


def test_the_unit_of_a_coefficient_is_that_of_its_own_term_at_its_own_shape():
    for names in (RULE.terms, RULE.terms[::-1], ("weight_decay",)):
        for shape in ((5, 6), (6, 5), (2.5, 6.0)):
            assert Terms(names).term_units(shape) == tuple(TERMS[name].scale(*shape) for name in names)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_pieces_cover_everything_once_and_the_last_one_is_this_threads_own(pieces):
    seen = []

    def some(first, last):
        seen.append((first, last, threading.get_ident()))
        return last - first

    assert sum(threads.side_by_side(some, 7, pieces)) == 7
    ends = sorted(piece[:2] for piece in seen)
    assert [first for first, _ in ends] == [0, *(last for _, last in ends[:-1])]
    assert ends[-1][1] == 7
    assert {ident for first, _, ident in seen if first == ends[-1][0]} == {threading.get_ident()}


def test_where_this_thread_is_interrupted_the_others_are_waited_for():
    done = threading.Event()

    def some(first, last):
        if last == 2:
            raise KeyboardInterrupt
        threading.Event().wait(0.05)
        done.set()
        return 0

    with pytest.raises(KeyboardInterrupt):
        threads.side_by_side(some, 2, 2)
    assert done.is_set()


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core, or no way to ask"
)
def test_a_thread_that_helps_leaves_the_core_of_the_one_that_asks():
    threads.side_by_side(lambda first, last: last - first, 2, 2)  # it is there from now on
    everywhere, meeting, mine = os.sched_getaffinity(0), threading.Barrier(2), threading.get_ident()
    found = {}

    def some(first, last):
        found[threading.get_ident() == mine] = os.sched_getaffinity(0)
        meeting.wait(10)
        return last - first

    threads.side_by_side(some, 2, 2)
    assert found[True] == everywhere
    assert found[False] < everywhere


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to say where a thread runs")
def test_a_system_that_does_not_let_threads_be_placed_has_them_all_the_same(monkeypatch):
    def refused(*asked):
        raise PermissionError("not here")

    threads.side_by_side(lambda first, last: last - first, 2, 2)
    monkeypatch.setattr(os, "sched_setaffinity", refused)
    assert threads.side_by_side(lambda first, last: last - first, 5, 2) == [2, 3]


@pytest.mark.filterwarnings("ignore")  # libraries that others import warn of any fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_forked_process_has_threads_of_its_own():
    def some(first, last):
        return last - first

    threads.side_by_side(some, 4, 2)  # the parent's threads are there
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # it would wait for them for ever
        os._exit(sum(threads.side_by_side(some, 4, 2)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
