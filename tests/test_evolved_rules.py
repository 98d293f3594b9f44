"""The problems that rules were evolved on, their searches, and the analyses of what evolution wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from building import EXACT

from metarule.collect import load_file
from metarule.inner import Runs
from metarule.loop import begun, engine_for, generations
from metarule.network import Activity
from metarule.reading import find, read
from metarule.rng import noise_for
from metarule.rules.expression import Expression
from metarule.symbolic import parsed
from metarule.tasks.leaky_neuron import LeakyNeuron
from metarule.tasks.poisson import counts
from metarule.tasks.rewarded_patterns import RewardedPatterns

ROOT = Path(__file__).parent.parent
rules = load_file(ROOT / "analysis" / "evolved_rules.py")
chance = load_file(ROOT / "analysis" / "evolution_against_random.py")
SEARCHES = ("error_driven", "reward_driven", "linear_regression_programs")


def losses(name, programs, episodes, rate=None, **changed):
    """The mean loss of programs, as the search sees it."""
    search = read(find(name), tuple(f"{key.replace('__', '.')}={value}" for key, value in changed.items()))[0]
    rule = search.rules["forward"]
    assert isinstance(rule, Expression)
    names = [param.name.removeprefix("rule.forward.") for param in search.learner.params]
    own = [param.name for param in rule.params]
    rows = torch.stack(
        [rule.row({"out": program}, rate=rate)[[own.index(each) for each in names]] for program in programs]
    )
    runs = Runs(tuple(range(len(programs))), tuple(range(episodes)))
    steps = range(search.steps)
    outcome = EXACT.evaluate(
        search.learner, rows, search.task, runs, steps, search.inner.batch, score_at=search.score_at(steps)
    )
    return dict(zip(programs, outcome.loss[:, :, 0].mean(1).tolist(), strict=True))


def test_poisson_counts_have_the_mean_and_the_variance_of_their_rate():
    mean = torch.tensor([0.3, 4.25], dtype=torch.float64).expand(1, 20_000, 2)
    found = counts(noise_for([("poisson",)]), mean, 4.25)[0]
    assert torch.equal(found, found.round())
    error = 5 / 20_000**0.5
    for column, rate in enumerate((0.3, 4.25)):
        assert float(found[:, column].mean()) == pytest.approx(rate, abs=error * rate**0.5)
        assert float(found[:, column].var()) == pytest.approx(rate, rel=error * (2 + 1 / rate) ** 0.5)
        assert float((found[:, column] == 0).double().mean()) == pytest.approx(2.718281828**-rate, abs=error)


def test_the_membrane_forgets_as_it_should_and_begins_where_it_is_on_average():
    task = LeakyNeuron(inputs=1, rates=(500.0, 500.0), duration=50.0, bin=5.0, tau=10.0)
    trace = task.sample(noise_for([("leaky",)]), 10).traces[0, :, 0]
    assert float(trace.mean()) == pytest.approx(1.0, abs=0.01)
    many = task.sample(noise_for([("leaky", run) for run in range(400)]), 10).traces[:, 0, 0]
    # a first bin has a standard deviation of 0.25; without what came before it, it would be 0.4 on average
    assert float(many.mean()) == pytest.approx(1.0, abs=0.05)
    centred = trace - trace.mean()
    assert float((centred[1:] * centred[:-1]).mean() / centred.square().mean()) == pytest.approx(
        2.718281828**-0.5, abs=0.02
    )


def test_the_loss_of_the_teacher_itself_is_zero_and_of_its_mean_potential_one():
    task = LeakyNeuron()
    episode = task.sample(noise_for([("leaky", run) for run in range(3)]), 10)

    def says(potential):
        return lambda x: Activity({}, {"output": potential(x)})

    exact = episode.score(says(lambda x: x @ episode.teacher.transpose(1, 2)), {})["held_out_loss"]
    flat = episode.score(
        says(lambda x: (x @ episode.teacher.transpose(1, 2)).mean(1, keepdim=True).expand(-1, x.shape[1], 1)), {}
    )
    torch.testing.assert_close(exact, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(flat["held_out_loss"], torch.ones(3, dtype=torch.float64))


def test_an_act_is_paid_for_its_side_and_scored_with_its_exact_chance():
    task = RewardedPatterns(patterns=5, inputs=40, noise_sd=0.0)
    episode = task.sample(noise_for([("patterns",)]), 6)
    batch = episode.train(3)
    assert batch.reward is not None
    sides = batch.reward(torch.ones(1, 6, 1, dtype=torch.float64))
    assert set(sides.flatten().tolist()) <= {-1.0, 1.0}
    assert torch.equal(batch.reward(-3 * sides), -torch.ones_like(sides))
    drawn = 0.3 + task.spread * noise_for([("acts",)]).normal(40_000)
    rate = (drawn[0][:, None] * episode.sides[0, :, 0]).sign().mean()
    drive = {"output": torch.full((1, 5, 1), 0.3, dtype=torch.float64)}
    found = episode.score(lambda x: Activity(drive, {}), {})
    assert float(found["reward"]) == pytest.approx(float(rate), abs=0.01)
    assert float(found["held_out_loss"]) == pytest.approx((1 - float(found["reward"])) / 2)


def test_urbanczik_and_senn_follow_the_teacher_and_what_lacks_a_factor_does_not():
    found = losses("error_driven", ["(post - post_ref) * pre", "post - post_ref", "post * pre", "post_ref * pre"], 3)
    known, *others = found.values()
    assert known < 0.6
    assert all(not loss < 2 * known for loss in others)


def test_a_rule_that_leaves_right_acts_alone_learns_best_from_reward():
    found = losses(
        "reward_driven",
        ["eligibility * (reward - 1)", "eligibility * reward", "eligibility * (reward + 1)", "eligibility", "reward"],
        24,
        inner__steps=250,
    )
    best, *others = found.values()
    assert best < min(others) - 0.05
    assert best < 0.4


def test_least_mean_squares_is_acceptable_and_hebb_is_not():
    found = losses("linear_regression_programs", ["(post - post_ref) * pre", "post * pre"], 2, rate=0.15)
    lms, hebb = found.values()
    assert lms < chance.ACCEPTABLE < 0.1 < hebb


@pytest.mark.parametrize("name", SEARCHES)
def test_nothing_but_the_program_is_searched_over_and_no_error_is_given(name):
    search = read(find(name))[0]
    real = [param.name for param in search.learner.params if not param.choices]
    assert real == (["rule.forward.c0", "rule.forward.rate"] if name == "linear_regression_programs" else [])
    assert "error" not in search.rules["forward"].reads
    assert search.inner.fixed_episodes


def test_the_published_factor_is_found_in_whatever_it_is_multiplied_with():
    known = rules.KNOWN["error_driven"]
    for text in ("0.2*pre*(post - post_ref)", "pre**2*(post**2 - post_ref**2)/post", "post*pre/post_ref - pre"):
        assert rules.has_factor(parsed(text), known), text
    for text in (
        "post*pre",
        "post - post_ref",
        "(post - 1.01*post_ref)*pre",
        "pre*(post - post_ref) + 0.1*pre",
        "0*pre",
    ):
        assert not rules.has_factor(parsed(text), known), text


def test_rules_of_reward_are_the_same_where_they_agree_on_one_and_minus_one():
    for text in ("3*eligibility*(reward - 1)", "eligibility*(reward - 1)/reward**2", "eligibility*(reward**3 - 1)"):
        assert rules.is_published("reward_driven", parsed(text)), text
    for text in ("eligibility*(1 - reward)", "eligibility*reward", "eligibility*(reward - 0.9)"):
        assert not rules.is_published("reward_driven", parsed(text)), text


def test_a_run_of_evolution_ends_at_its_first_acceptable_program_and_random_search_goes_on():
    losses = [[1.0, None], [1e-9, 1e-9], [0.5, 1e-9]]
    assert chance.counted(losses, stops=True) == (1, 3)
    assert chance.counted(losses, stops=False) == (3, 6)
    ratio, low, high = chance.interval([chance.Count(1, 100)] * 5, [chance.Count(0, 3000)] * 5)
    assert ratio == pytest.approx(low) == pytest.approx(high) == 50


def test_the_analyses_read_run_folders(tmp_path, capsys):
    import metarule as mr

    tiny = ("outer.generations=2", "inner.episodes=2", "inner.steps=100")
    paths = [mr.search(name, *tiny, runs_dir=tmp_path).path for name in ("error_driven", "reward_driven")]
    rules.main([str(path) for path in paths])
    said = capsys.readouterr().out
    assert "of 1 runs found pre*(post - post_ref)" in said
    assert "of 1 runs found eligibility*(reward - 1)" in said
    few = ("outer.candidates=8", "outer.generations=2", "inner.steps=5")
    evolved = mr.search("linear_regression_programs", *few, runs_dir=tmp_path).path
    random = mr.search("linear_regression_programs", "outer.scheme=random", *few, runs_dir=tmp_path).path
    chance.main([str(evolved), str(random)])
    assert "evolution over random search: 1.0" in capsys.readouterr().out


def test_hurdles_save_inner_steps_of_programs_that_lag_behind():
    changed = ("inner.episodes=2", "outer.candidates=8", "outer.generations=6", "inner.steps=100")
    steps = {}
    for hurdles in ("[]", "[0.2]"):
        search = read(find("error_driven"), (*changed, f"outer.hurdles={hurdles}"))[0]
        outer = begun(search)
        steps[hurdles] = sum(each.run_steps for each in generations(search, outer, 0, engine_for(search)))
        assert (outer.report["dropped"] > 0) == (hurdles != "[]")
        assert outer.report["evaluated"] == 48
    assert steps["[]"] == 48 * 2 * 100
    assert steps["[0.2]"] < 0.8 * steps["[]"]
