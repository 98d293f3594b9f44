"""The gated family: closed forms of its memories, and the rules that are its members."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from building import address, given_signals, random_signals, random_theta

from metarule.contracts.rules import check_rule
from metarule.rules.eligibility import Eligibility
from metarule.rules.gated import Gated
from metarule.rules.terms import Terms
from metarule.terms import TERMS, combine

STEPS = 6
SIZE_OUT, SIZE_IN = 4, 3

FAMILY = {
    "as it comes": Gated(),
    "time constants searched": Gated(search_taus=True),
    "raw": Gated(normalise=False, search_taus=True),
    "ungated": Gated(("error_pre", "weight_decay"), gate="none"),
    "a gate that is not local": Gated(("error_pre",), gate="match"),
}
every_member = pytest.mark.parametrize("rule", FAMILY.values(), ids=FAMILY.keys())


def course(rule, steps=STEPS, runs=2):
    """Signals of one event after the other at a projection whose weights stay."""
    signals = random_signals(address("gated", runs=runs), SIZE_OUT, SIZE_IN, steps, rule.reads)
    for t in range(steps):
        now = {
            name: value if name == "weight" else value[:, t : t + 1] for name, value in given_signals(signals).items()
        }
        yield replace(signals, **now)


def changes(rule, theta, events):
    """What every event of a course changes."""
    events = list(events)
    state, found = rule.init(theta, events[0].weight), []
    for signals in events:
        change, state = rule.delta(theta, signals, state, address("rule", runs=len(theta)))
        found.append(change.tensor(signals.weight))
    return torch.stack(found)


@every_member
def test_every_member_keeps_the_contract_of_a_rule(rule):
    assert [check for check in check_rule(rule) if not check.ok] == []


@every_member
def test_the_change_is_the_gate_times_the_weighted_sum_over_the_past(rule):
    theta = random_theta(rule.params, address("gated", "theta", runs=2))
    events = list(course(rule))
    found = changes(rule, theta, events)
    names = [param.name for param in rule.params]
    size = TERMS["error_pre"].scale(SIZE_OUT, SIZE_IN)
    for run in range(2):
        value = dict(zip(names, theta[run].tolist(), strict=True))
        for t, now in enumerate(events):
            total = torch.zeros_like(now.weight[run])
            for name in rule.terms:
                for place, given in enumerate(rule.taus):
                    tau = value.get(f"tau{place}", given)
                    raw = value[f"{name}_tau{place}"]
                    if rule.normalise:
                        scale = 1.0 if name == "weight_decay" else size
                        raw *= scale * (1 - math.exp(-1 / tau)) / (SIZE_OUT if rule.gate == "match" else 1)
                    for then in range(t + 1):
                        term = combine((TERMS[name],), torch.ones(2, 1, dtype=theta.dtype), events[then])
                        total += raw * math.exp(-(t - then) / tau) * term.tensor(now.weight)[run]
            gate = {
                "reward": lambda now: now.reward,
                "none": lambda now: torch.ones(2, 1, 1),
                "match": lambda now: torch.einsum("rbi,rij,rbj->rb", now.error, now.weight, now.pre)[..., None],
            }[rule.gate](now)
            torch.testing.assert_close(found[t, run], float(gate[run]) * total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("term", ["post_change_pre", "post_pre", "oja"])
def test_one_raw_term_with_one_time_constant_is_an_eligibility(term):
    one = Gated((term,), (10.0,), search_taus=True, normalise=False)
    other = Eligibility(term)
    theta = torch.tensor([[0.3, 4.0], [0.1, 7.0]], dtype=torch.float64)
    assert [param.name for param in one.params] == [f"{term}_tau0", "tau0"]
    torch.testing.assert_close(
        changes(one, theta, course(one)), changes(other, theta, course(one)), rtol=1e-12, atol=1e-14
    )


def test_a_time_constant_that_is_short_leaves_the_three_factors_of_the_moment():
    rule = Gated(("post_change_pre",), (0.1,), normalise=False)
    terms = Terms(("reward_post_change_pre",), normalise=False)
    theta = torch.tensor([[0.3], [-0.2]], dtype=torch.float64)
    # exp(-1 / 0.1) of the past is left
    torch.testing.assert_close(
        changes(rule, theta, course(rule)), changes(terms, theta, course(rule)), rtol=0, atol=1e-3
    )


def test_a_normalised_memory_of_what_happens_all_the_time_does_not_depend_on_its_time_constant():
    rule = Gated(("error_pre",), (2.0, 5.0), gate="none")
    now = next(course(rule))
    for row in ([0.3, 0.0], [0.0, 0.3]):
        found = changes(rule, torch.tensor([row, row], dtype=torch.float64), [now] * 200)[-1]
        at_once = changes(Terms(("error_pre",)), torch.full((2, 1), 0.3, dtype=torch.float64), [now])[0]
        torch.testing.assert_close(found, at_once, rtol=1e-10, atol=1e-12)


def test_only_coefficients_count_as_parts_in_use():
    theta = torch.tensor([[0.3, 0.0, 0.0, 0.1, 2.0, 20.0], [0.0, 0.0, 0.0, 0.0, 2.0, 20.0]], dtype=torch.float64)
    assert Gated(search_taus=True).complexity(theta).tolist() == [2.0, 0.0]


def test_terms_that_hear_nothing_are_left_out_with_their_starts():
    rule = Gated(("error_pre", "post_pre"), start={"error_pre_tau0": 0.1, "post_pre_tau1": 0.2})
    fitted = rule.fitted(frozenset({"pre", "post", "reward"}))
    assert (fitted.terms, fitted.start) == (("post_pre",), {"post_pre_tau1": 0.2})
    with pytest.raises(ValueError, match="read none of the signals reward"):
        rule.fitted(frozenset({"reward"}))


def test_raw_coefficients_are_reported_as_they_act():
    searched, fixed = Gated(search_taus=True), Gated()
    shape = (SIZE_OUT, SIZE_IN)
    assert fixed.scales(shape)[0] == pytest.approx(searched.scales(shape)[0] * (1 - math.exp(-1 / 2.0)))
    assert searched.scales(shape)[-2:] == (1.0, 1.0)
    assert set(Gated(normalise=False).scales(shape)) == {1.0}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"terms": ()}, "rule.terms is empty"),
        ({"terms": ("hebb",)}, "rule.terms = 'hebb' is not one of"),
        ({"terms": ("post_pre", "post_pre")}, "has one twice"),
        ({"terms": ("reward_post_pre",)}, "reads the reward, which comes after the memory"),
        ({"taus": ()}, "rule.taus is empty"),
        ({"taus": (0.01,)}, "a time constant is at least 0.1 events"),
        ({"gate": "rewards"}, "did you mean 'reward'"),
        ({"gate": "post"}, "rule.gate = 'post' is not one of agreement, match, none, reward, total_post"),
        ({"start": {"post_pre": 1.0}}, "rule.start = 'post_pre' is not one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Gated(**settings)


def test_more_than_one_event_at_a_time_is_refused():
    rule = Gated()
    signals = random_signals(address("gated"), SIZE_OUT, SIZE_IN, 3, rule.reads)
    theta = torch.zeros(1, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"rule 'gated' was given 3 events; it needs one at a time: inner\.batch = 1"):
        rule.delta(theta, signals, rule.init(theta, signals.weight), address("rule"))
