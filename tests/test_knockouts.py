"""Knock-outs and knock-ins: a term of no weight costs nothing, a term that the rule lives on costs the rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from building import EXACT, start_row

from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.evaluation import Conditions
from metarule.inner import Runs
from metarule.inspection.knockouts import (
    FLIPPED,
    STRENGTHS,
    WHOLE,
    knock_ins,
    knock_outs,
    knocked,
    measured_with,
    measured_without,
    normalised,
    opened,
)
from metarule.inspection.subject import Subject
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules.bcm import Bcm
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits

TASK = Digits(test_size=60)
NETWORK = Network.chain((64, 12, 10))
COURSE = Conditions(EXACT, 60, 8)


def subject_of(rules, theta=(), fixed=None, credit=None):
    learner = Learner(NETWORK, credit or FeedbackAlignment(), rules, {ANY: Sgd()}, fixed=fixed or {})
    row = torch.tensor([theta], dtype=torch.float64)
    return Subject("feedback_alignment", learner, row, TASK, COURSE, 10)


def of_terms(*coefficients, normalise=True):
    return subject_of({"forward": Terms(("error_pre", "post_pre"), normalise=normalise)}, coefficients)


def knock_outs_of(subject, episodes=4):
    scores = measured_without(knock_outs(subject, episodes))
    return scores, {each["term"]: each for each in knocked(subject, scores, []) if each["kind"] == "knock-out"}


def test_leaving_out_a_term_of_weight_0_changes_nothing_at_all():
    scores, found = knock_outs_of(of_terms(0.8, 0.0))
    assert scores["rule.forward.post_pre"] == scores[WHOLE]
    assert found["post_pre"]["change"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert not found["post_pre"]["necessary"]


def test_the_term_that_a_rule_lives_on_is_found_necessary():
    _, found = knock_outs_of(of_terms(0.8, 1e-6))
    assert found["error_pre"]["necessary"]
    assert found["error_pre"]["change"]["high"] < -0.2
    assert "necessary" in found["error_pre"]["sentence"]
    assert not found["post_pre"]["necessary"]


def test_flipping_a_sign_is_the_rule_with_that_coefficient_negated():
    subject = of_terms(0.8, 0.001)
    scores = measured_without(knock_outs(subject, 2))
    negated = measured_without(knock_outs(of_terms(0.8, -0.001), 2))
    assert scores[FLIPPED + "rule.forward.post_pre"] == negated[WHOLE] != scores[WHOLE]
    (entry,) = [
        each for each in knocked(subject, scores, []) if (each["term"], each["kind"]) == ("error_pre", "sign flip")
    ]
    assert entry["change"]["mean"] < -0.2
    assert not entry["necessary"]
    assert "error_pre with its sign flipped" in entry["sentence"]


@pytest.mark.parametrize(
    "subject",
    [
        of_terms(0.8, 0.1),
        subject_of({"forward": Terms(("error_pre",), normalise=False)}, fixed={"rule.forward.error_pre": 0.1}),
        subject_of({"forward": Delta()}, (0.1,)),
        subject_of({"forward": Terms(("error_pre", "post_pre"), switches=True)}, (0.8, 0.3, 1.0, 0.0)),
    ],
    ids=["free", "fixed", "no numbers of its own", "switched off"],
)
def test_the_rule_taken_apart_is_the_rule(subject):
    own = COURSE.outcome(subject.learner, subject.theta, TASK, Runs((0,), (0, 1)))
    apart = opened(subject)
    again = COURSE.outcome(apart.learner, apart.theta, TASK, Runs((0,), (0, 1)))
    assert torch.equal(own.loss, again.loss)
    assert all(".rate" not in param.name for param in apart.learner.params)


def test_a_rule_that_is_no_list_of_terms_is_refused_by_its_kind():
    learner = Learner(Network.chain((64, 10)), Backprop(), {"forward": Bcm()}, {ANY: Sgd()})
    subject = Subject("bcm", learner, start_row(learner), TASK, COURSE, 10)
    with pytest.raises(ValueError, match="a rule of kind bcm is no list of terms"):
        opened(subject)


def test_knock_ins_are_all_terms_that_the_credit_gives_and_the_rule_lacks():
    names = {work.param.rpartition(".")[2] for work in knock_ins(of_terms(0.8, 0.1), 4, 2)}
    assert {"oja", "error_pre_error", "weight_decay"} <= names
    assert not names & {"error_pre", "post_pre"}  # it has them
    assert not names & {"reward_post_pre", "contrastive", "eligibility"}  # feedback alignment gives no such signals


@pytest.mark.parametrize("normalise", [True, False])
def test_strengths_are_normalised_and_relative_to_the_largest_term(normalise):
    subject = of_terms(0.8, 0.1, normalise=normalise)
    largest = max(normalised(opened(subject)).values())
    (work,) = [each for each in knock_ins(subject, 4, 2) if each.param.endswith(".oja")]
    assert work.strengths == tuple(strength * largest for strength in STRENGTHS)
    scaled = work.opened.theta.clone()
    column = [param.name for param in work.opened.learner.params].index(work.param)
    scaled[0, column] = work.values[-1]
    assert normalised(work.opened._replace(theta=scaled))[work.param] == pytest.approx(STRENGTHS[-1] * largest)


def test_what_a_rule_needs_is_found_by_knocking_it_in():
    subject = subject_of({"forward": Terms(("post_pre",))}, (0.001,))
    (work,) = [each for each in knock_ins(subject, 4, 3) if each.param.endswith(".error_pre")]
    work = work._replace(strengths=(-0.5, 0.5), values=(-0.5, 0.5))
    added = measured_with(work)
    assert added.strength == 0.5  # chosen on the search's own episodes
    *_, entry = knocked(subject, measured_without(knock_outs(subject, 4)), [added])
    assert entry["kind"] == "knock-in"
    assert entry["change"]["low"] > 0
    assert "would help" in entry["sentence"]


def test_a_metric_that_is_better_when_smaller_is_worse_when_it_grows():
    subject = replace(of_terms(0.1, 0.0), task=Digits("autoencoder"))
    whole, worse = {"held_out_loss": [1.0, 1.1, 1.0]}, {"held_out_loss": [2.0, 2.2, 2.0]}
    gone = {"held_out_loss": [float("inf")] * 3}
    names = ("rule.forward.error_pre", "rule.forward.post_pre")
    entries = knocked(subject, {WHOLE: whole, names[0]: worse, names[1]: gone}, [])
    assert [entry["necessary"] for entry in entries] == [True, True]
    assert "diverged" in entries[1]["sentence"]
    assert not knocked(subject, {WHOLE: worse, names[0]: whole}, [])[0]["necessary"]
