"""The battery's own mathematics: intervals, tuning on a known curve, and pairing by episode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from building import EXACT, Imitation, fitting_learner, start_row
from scipy import stats

from metarule.credit.backprop import Backprop
from metarule.evaluation import GRID, SPARE, Conditions, Contender, compare, interval, tuned
from metarule.inner import Inner, Outcome
from metarule.params import starts
from metarule.rules.terms import Terms

LEARNER = fitting_learner(Backprop())
START = float(starts(LEARNER.params)[0])


def quiet(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, eq=False)
class Curve(Inner):
    """An engine that only knows how good a rate is: a peak at START * 2**peak, the same on all episodes.

    Scores within `plateau` octaves of the peak are equal. It counts what it is asked for.
    """

    name: ClassVar[str] = "curve"
    peak: float
    asked: list
    plateau: float = 0.0

    def evaluate(
        self, learner, theta, task, runs, steps, batch=1, wants=frozenset(), objectives=(), score_at=(), record=None,
        carry=None,
    ):  # fmt: skip
        self.asked.append((len(theta), len(runs.episodes), runs.seed, task))
        away = ((theta[:, 0] / START).log2() - self.peak).abs().clamp(min=self.plateau)
        closeness = -away[:, None].expand(-1, len(runs.episodes))
        return Outcome(-closeness[:, :, None], {"distance": -closeness, "closeness": closeness}, steps)


def tuning_of(peak, budget=1100, plateau=0.0):
    engine = Curve(peak, [], plateau)
    contender = tuned("curve", LEARNER, Imitation(), Conditions(engine, 5, 3), budget, 0, quiet)
    assert contender.tuning is not None
    assert contender.theta.tolist() == [[contender.tuning.best]]
    return contender.tuning, engine.asked


@pytest.mark.parametrize("values", [(1.0, 2.0), (0.3, 0.1, -4.0, 2.5, 2.5), tuple(range(40))])
def test_interval_is_that_of_student(values):
    mean, low, high = interval(values)
    expected = stats.t.interval(0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=1e-12)
    assert mean == pytest.approx(stats.tmean(values), rel=1e-12)


def test_interval_by_hand_and_where_there_is_none():
    # two values 0 and 2: mean 1, standard error 1, t of one degree of freedom 12.706204736432095
    assert interval((0.0, 2.0)) == pytest.approx((1.0, 1 - 12.706204736432095, 1 + 12.706204736432095), rel=1e-9)
    assert interval((3.0, 3.0, 3.0)) == (3.0, 3.0, 3.0)
    assert interval((0.0, 2e200)) == pytest.approx((1e200, -1.17062047364321e201, 1.37062047364321e201), rel=1e-9)
    for values, mean in (((5.0,), 5.0), ((1.0, math.inf), math.inf)):
        found = interval(values)
        assert found[0] == mean
        assert all(map(math.isnan, found[1:]))


@pytest.mark.parametrize("peak", [0.0, 2.4, -3.0, 4.0, -4.0])
def test_tuning_finds_a_known_best_also_outside_its_first_grid(peak):
    tuning, asked = tuning_of(peak)
    # rates are sqrt(2) apart about the best: it is at most half of that off
    assert abs(math.log2(tuning.best / START) - peak) <= 0.25 + 1e-9
    assert tuning.bracketed
    assert tuning.rates[0] < tuning.best < tuning.rates[-1]
    best = tuning.means[tuning.rates.index(tuning.best)]
    assert tuning.means[0] < best > tuning.means[-1]
    assert list(tuning.rates) == sorted(tuning.rates)
    assert asked[0][0] == GRID


@pytest.mark.parametrize("budget", [11, 100, 1100, 1109])
@pytest.mark.parametrize("peak", [0.0, 4.0])
def test_tuning_spends_no_more_episodes_than_its_budget_where_the_grid_is_wide_enough(peak, budget):
    tuning, asked = tuning_of(peak, budget)
    assert tuning.episodes == budget // (GRID + SPARE)
    assert sum(rates * episodes for rates, episodes, *_ in asked) == len(tuning.rates) * tuning.episodes <= budget
    assert len({seed for *_, seed, _ in asked}) == 1  # every rate on the same episodes
    assert len({task for *_, task in asked}) == 1


def test_tuning_with_next_to_no_budget_tries_every_rate_once():
    tuning, _ = tuning_of(0.0, 1)
    assert tuning.episodes == 1
    assert tuning.bracketed


@pytest.mark.parametrize("peak", [9.0, -9.0])
def test_tuning_goes_beyond_its_budget_rather_than_miss_a_baselines_best(peak):
    tuning, _ = tuning_of(peak)
    assert tuning.bracketed
    assert len(tuning.rates) > GRID + SPARE


@pytest.mark.parametrize(("peak", "plateau"), [(0.0, 300.0), (200.0, 10.0), (-200.0, 10.0)])
def test_a_tie_at_an_edge_or_a_best_out_of_reach_is_not_bracketed(peak, plateau):
    tuning, _ = tuning_of(peak, plateau=plateau)
    assert not tuning.bracketed


def test_a_plateau_inside_the_grid_is_bracketed():
    tuning, _ = tuning_of(0.0, plateau=1.0)
    assert tuning.bracketed


def test_tuning_takes_learners_without_a_free_number_as_they_are_and_refuses_two():
    fixed = fitting_learner(Backprop(), fixed={LEARNER.params[0].name: 0.1})
    contender = tuned("fixed", fixed, Imitation(), Conditions(EXACT, 5, 3), 100, 0, quiet)
    assert contender.tuning is None
    assert contender.theta.shape == (1, 0)
    two = fitting_learner(Backprop(), rule=Terms(("error_pre", "post_pre")))
    with pytest.raises(ValueError, match=r"'two' has 2 free parameters .* fix all but one rate"):
        tuned("two", two, Imitation(), Conditions(EXACT, 5, 3), 100, 0, quiet)


def test_learners_are_compared_on_the_same_held_out_episodes():
    theta = start_row(LEARNER)
    contenders = [
        Contender("first", LEARNER, theta),
        Contender("twin", LEARNER, theta.clone()),
        Contender("still", LEARNER, theta * 1e-9),
    ]
    battery = compare(contenders, Imitation(), Conditions(EXACT, 5, 3), 4, (3, 8), quiet, "imitating")
    assert battery.episodes["first"] == battery.episodes["twin"]
    assert all(len(values) == 8 for values in battery.episodes["first"].values())
    assert len(set(battery.episodes["first"]["closeness"])) == 8  # seeds and episodes are all different problems
    # the metric that counts comes first, and in each the learners as they were given
    assert [(row.metric, row.learner) for row in battery.rows] == [
        (metric, name) for metric in ("closeness", "distance") for name in ("first", "twin", "still")
    ]
    assert {(row.task, row.episodes, row.seeds) for row in battery.rows} == {("imitating", 8, 2)}
    twin, still = [d for d in battery.differences if d.metric == "closeness"]
    assert (twin.other, twin.mean, twin.low, twin.high) == ("twin", 0.0, 0.0, 0.0)
    pairs = zip(battery.episodes["first"]["closeness"], battery.episodes["still"]["closeness"], strict=True)
    assert (still.mean, still.low, still.high) == interval([a - b for a, b in pairs])
    assert still.mean > 0
    for row in battery.rows:
        assert (row.mean, row.low, row.high) == interval(battery.episodes[row.learner][row.metric])


def test_a_learner_that_diverged_has_no_paired_difference():
    theta = start_row(LEARNER)
    contenders = [Contender("first", LEARNER, theta), Contender("lost", LEARNER, torch.full_like(theta, math.inf))]
    battery = compare(contenders, Imitation(), Conditions(EXACT, 5, 3), 2, (0,), quiet)
    assert battery.episodes["lost"]["distance"] == (math.inf, math.inf)
    assert not [each for each in battery.differences if each.metric == "distance"]
    row = next(row for row in battery.rows if (row.learner, row.metric) == ("lost", "distance"))
    assert row.mean == math.inf
    assert math.isnan(row.low)
