"""A black box that imitates a known rule distils to that rule; what it keeps is said of probes and of its task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy
import torch
from building import address

from metarule.credit.backprop import Backprop
from metarule.distillation import distilled, in_words
from metarule.evaluation import Conditions
from metarule.fingerprint import probe_signals
from metarule.inner import Reference
from metarule.inspection.distilled_report import distilled_lines
from metarule.inspection.observed import Observed, observed
from metarule.inspection.subject import Subject
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import starts
from metarule.rules.expression import Expression
from metarule.rules.mlp import Mlp
from metarule.rules.textbook import Oja
from metarule.symbolic import parsed
from metarule.synapses.sgd import Sgd
from metarule.tasks.few_shot import FewShot

WIDER = 1.5
"""An imitation is trained on signals wider than the probes: a network is arbitrary where it is never asked."""


def imitation(rule: Mlp, of: Oja, runs: int = 100, size: int = 6, steps: int = 600) -> torch.Tensor:
    """Theta of a rule trained to change every synapse as another rule does, at single events (L-BFGS)."""
    noise = address("imitated", runs=runs)
    signals = probe_signals(("pre", "post"), noise, (1, size, size), {})
    assert signals.pre is not None
    assert signals.post is not None
    signals = replace(signals, pre=WIDER * signals.pre, post=WIDER * signals.post, weight=WIDER * signals.weight)
    wanted = of.delta(torch.zeros(runs, 0, dtype=torch.float64), signals, {}, noise)[0].tensor(signals.weight)
    theta = starts(rule.params)[None].clone().requires_grad_()
    descent = torch.optim.LBFGS([theta], max_iter=steps, history_size=50, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        descent.zero_grad()
        change = rule.delta(theta.expand(runs, -1), signals, {}, noise)[0].tensor(signals.weight)
        share = (change - wanted).square().mean() / wanted.square().mean()
        share.backward()
        return share.detach()

    descent.step(loss)
    return theta.detach()[0]


def test_an_mlp_that_imitates_oja_distils_to_oja_within_2_percent():
    rule = Mlp(("pre", "post", "weight"), hidden=(32,), rate=1.0, normalise=False)
    found = distilled(rule, imitation(rule, Oja()), by="terms")
    coefficients = sympy.expand(found.expression).as_coefficients_dict()
    assert {str(term) for term in coefficients} == {"post*pre", "post**2*weight"}
    assert float(coefficients[parsed("post*pre")]) == pytest.approx(1.0, abs=0.02)
    assert float(coefficients[parsed("post**2*weight")]) == pytest.approx(-1.0, abs=0.02)
    assert found.r2_held_out > 0.998


def test_a_small_term_stays_where_the_rule_is_a_sum_of_terms():
    rule = Expression(("pre", "post", "weight"), constants=1)
    row = rule.row({"out": "post * pre + small * weight"}, {"small": 0.01}, rate=1.0)
    found = distilled(rule, row, by="terms")
    coefficients = found.expression.as_coefficients_dict()
    assert float(coefficients[parsed("weight")]) == pytest.approx(0.01, rel=1e-3)
    assert len(coefficients) == 2


def test_what_was_seen_is_what_is_distilled():
    rule = Expression(("pre", "post"), ("mul", "tanh", "add"))
    row = rule.row({"out": "tanh(post + post) * pre"}, rate=1.0)
    noise = address("seen")
    post, pre = (noise.at(name).normal(600)[0].numpy() for name in ("post", "pre"))
    post = 0.05 * post  # so small that tanh is a line
    seen = Observed("here", (3, 3), {"post": post, "pre": pre}, np.tanh(2 * post) * pre)
    (coefficient, term), *others = [each.as_coeff_Mul() for each in sympy.Add.make_args(
        distilled(rule, row, by="terms", seen=seen).expression)]  # fmt: skip
    assert not others
    assert term == parsed("post * pre")
    assert float(coefficient) == pytest.approx(2.0, rel=0.02)
    assert not distilled(rule, row, by="terms").faithful


def test_of_a_black_box_the_share_that_is_kept_on_its_own_task_is_said():
    network = Network.chain((64, 9, 7, 10), "tanh", bias=True)
    rule = Mlp(("pre", "error"), hidden=(2,))
    learner = Learner(network, Backprop(), {"forward": rule}, {ANY: Sgd()})
    theta = starts(learner.params)
    subject = Subject("row", learner, theta[None], FewShot(), Conditions(Reference(), 6, 1), 1)
    (row,) = in_words(subject, theta, None, lambda key: observed(subject, key))
    assert set(row) == {"rule", "equation", "by", "r2_held_out", "on_task"}
    assert row["on_task"]["at"] == "hidden1->hidden2"
    assert row["on_task"]["r2_held_out"] >= row["on_task"]["share"] - 0.01
    assert row["on_task"]["equation"].startswith("dW = ")
    one, other = distilled_lines([row])
    assert f"keeps {100 * row['r2_held_out']:.1f} %" in str(one)
    assert f"that keeps {100 * row['on_task']['share']:.1f} %" in str(other)
    (plain,) = in_words(subject, theta)
    assert plain == {**row, "on_task": None}
