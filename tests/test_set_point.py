"""Set-points: spikes, their traces and what a six-number rule makes of them are what the mean field says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from building import address

from metarule.collect import load_file
from metarule.credit.poisson_spikes import PoissonSpikes, trace_of_one
from metarule.learner import ANY, Learner
from metarule.network import Activity, Network
from metarule.reading import find, read
from metarule.rules.terms import Terms
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd
from metarule.tasks.set_point import SetPoint

analysis = load_file(Path(__file__).parent.parent / "analysis" / "set_point.py")

RUNS = 2
NETWORK = Network.chain((3, 2), "linear", "linear")
TAUS = torch.tensor([[5.0, 12.0]], dtype=torch.float64).expand(RUNS, 2)


def staged(credit, steps=1, rate=0.2):
    """Signals of every batch in turn, at input rates of `rate`."""
    noise = address("spikes", runs=RUNS)
    weights = credit.tied(NETWORK, {p.name: NETWORK.draw(p, noise) for p in NETWORK.projections})
    state = credit.init(TAUS, NETWORK, weights, noise)
    batch = Batch(torch.full((RUNS, 1, 3), rate, dtype=torch.float64))
    found = []
    for step in range(steps):
        signals, state = credit.stage(
            0, TAUS, NETWORK, weights, state, batch, step, noise.at(step), {"input->output": credit.gives}
        )
        found.append(signals["input->output"])
    return found


def test_traces_hold_the_spikes_before_a_time_step_and_go_on_from_batch_to_batch():
    pre, post = torch.zeros(RUNS, 3, dtype=torch.float64), torch.zeros(RUNS, 2, dtype=torch.float64)
    for signals in staged(PoissonSpikes(steps=7), steps=3):
        for time in range(7):
            torch.testing.assert_close(signals.pre_ref[:, time], pre, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(signals.post_ref[:, time], post, rtol=1e-12, atol=1e-12)
            pre = (pre + signals.pre[:, time]) * math.exp(-1 / 5)
            post = (post + signals.post[:, time]) * math.exp(-1 / 12)


def test_spikes_come_at_the_rates_of_the_network_and_traces_are_those_times_the_sum_of_one():
    (signals,) = staged(PoissonSpikes(steps=20_000))
    assert set(signals.pre.unique().tolist()) == {0.0, 1.0}
    chance = torch.einsum("rij,rj->ri", signals.weight, torch.full((RUNS, 3), 0.2, dtype=torch.float64))
    for spikes, trace, rate, tau in (
        (signals.pre, signals.pre_ref, torch.full((RUNS, 3), 0.2, dtype=torch.float64), 5.0),
        (signals.post, signals.post_ref, chance.clamp(0, 1), 12.0),
    ):
        # four standard errors of a mean of 20,000 draws
        torch.testing.assert_close(spikes.mean(1), rate, rtol=0, atol=0.015)
        one = trace_of_one(torch.tensor(tau, dtype=torch.float64))
        torch.testing.assert_close(trace.mean(1), rate * one, rtol=0, atol=0.015 * float(one))


def test_a_trace_of_one_spike_sums_to_the_geometric_series():
    tau = torch.tensor(7.0, dtype=torch.float64)
    assert float(trace_of_one(tau)) == pytest.approx(sum(math.exp(-lag / 7) for lag in range(1, 500)), rel=1e-12)


def test_the_rule_drifts_as_the_mean_field_says():
    """r_pre (alpha + kappa T_post r) + r (beta + gamma T_pre r_pre) for independent spikes."""
    alpha, kappa, beta, gamma = -0.3, 0.5, 0.2, 0.7
    (signals,) = staged(PoissonSpikes(steps=40_000))
    rule = Terms(("pre", "post_ref_pre", "post", "post_pre_ref"), normalise=False)
    theta = torch.tensor([[alpha, kappa, beta, gamma]], dtype=torch.float64).expand(RUNS, 4)
    found = rule.delta(theta, signals, {}, address("rule", runs=RUNS))[0].tensor(signals.weight)
    pre_trace, post_trace = (float(trace_of_one(tau)) for tau in TAUS[0])
    rate = torch.einsum("rij,rj->ri", signals.weight, torch.full((RUNS, 3), 0.2, dtype=torch.float64))[:, :, None]
    expected = 0.2 * (alpha + kappa * post_trace * rate) + rate * (beta + gamma * pre_trace * 0.2)
    torch.testing.assert_close(found, expected.expand_as(found), rtol=0.05, atol=0.02)


def test_weights_start_with_the_sign_of_their_population_and_others_are_refused():
    network = Network.chain((3, 4, 2), "relu", "linear")
    credit = PoissonSpikes(inhibitory=("hidden1",))
    noise = address("signs", runs=RUNS)
    drawn = {p.name: network.draw(p, noise) for p in network.projections}
    tied = credit.tied(network, drawn)
    assert (tied["input->hidden1"] >= 0).all()
    assert (tied["hidden1->output"] <= 0).all()
    assert all(torch.equal(tied[name].abs(), drawn[name].abs()) for name in drawn)
    with pytest.raises(ValueError, match="did you mean 'hidden1'"):
        Learner(network, PoissonSpikes(inhibitory=("hidden",)), {"forward": Terms(("pre",))}, {ANY: Sgd()})


def test_the_loss_is_the_squared_distance_of_the_mean_rate_in_hertz():
    episode = SetPoint(inputs=2, outputs=2, target=10.0, step=2.0).sample(address("rates", runs=RUNS), 1)
    rates = torch.tensor([[[0.01, 0.04]], [[-0.5, 0.02]]], dtype=torch.float64)  # 5 and 20, 0 and 10 Hz
    found = episode.score(lambda x: Activity({}, {"output": rates}), {})
    torch.testing.assert_close(found["held_out_loss"], torch.tensor([6.25, 25.0], dtype=torch.float64))
    torch.testing.assert_close(found["rate_error"], torch.tensor([2.5, 5.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"low": 50.0, "high": 40.0}, "lower one first"), ({"step": 10.0}, "one spike per time step")],
)
def test_rates_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        SetPoint(**settings)


@pytest.mark.parametrize("target", [6.0, 12.0])
def test_the_network_of_the_search_rests_at_the_set_point_that_the_analysis_predicts(target):
    search, _ = read(find("inhibitory_set_point"))
    assert isinstance(search.task, SetPoint)
    pull = 0.04 * float(trace_of_one(torch.tensor(10.0, dtype=torch.float64)))
    numbers = analysis.SixNumbers(10.0, 10.0, target / 1000 * search.task.step * pull, -0.02, 0.0, -0.02)
    assert 1000 / search.task.step * numbers.set_point == pytest.approx(target, rel=1e-6)
    theta = dict(zip((param.name for param in search.learner.params), numbers, strict=True))
    assert analysis.six_numbers(theta) == numbers
    rates, losses = analysis.at_rest(search, search.learner, numbers, episodes=8)
    assert sum(rates) / len(rates) == pytest.approx(target, rel=0.05)
    assert losses == pytest.approx([(rate - 10.0) ** 2 for rate in rates], rel=1e-3, abs=1e-4)


def test_a_rule_that_pushes_rates_away_has_no_set_point():
    assert math.isnan(analysis.SixNumbers(10.0, 10.0, -0.1, -0.02, 0.0, 0.0).set_point)
