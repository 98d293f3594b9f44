"""Optuna in full: pruners at rungs, conditional columns, known rules first, fronts, and the study that shows them."""

from __future__ import annotations

import copy
import json
import math
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
import torch

from metarule.outer.optuna import PRUNERS, OptunaSearch
from metarule.params import Param, starts
from metarule.rng import noise_for

PARAMS = (Param("real"), Param("rate", start=0.1, low=1e-3, high=10.0, log=True), Param("kind", choices=("a", "b")))
STEPS = 100
SETTINGS = {"percentile": {"percentile": 25.0}, "threshold": {"upper": 4.0}}


def started(params=PARAMS, objectives=1, **settings):
    loop = OptunaSearch(**settings)
    loop.start(params, objectives)
    return loop


def pruning(pruner, **settings):
    return started(pruner=pruner, pruning=SETTINGS.get(pruner, {}), **settings)


def asked(loop, generation, candidates=8):
    return loop.ask(candidates, noise_for([(0, "outer", generation)]))


def loss_of(theta):
    return ((theta[:, 0] - 1) ** 2 + theta[:, 1].log() ** 2 + theta[:, 2])[:, None]


def turn(loop, generation, spoil=()):
    """One generation as the loop runs it: rows that are dropped at a rung are told with +inf; `spoil` rows diverge."""
    theta = asked(loop, generation)
    final = loss_of(theta)
    final[list(spoil)] = math.nan
    alive = torch.arange(len(theta))
    for step in loop.rungs(STEPS):
        kept = loop.keep(theta[alive], final[alive] + 1.0 - step / STEPS, step)
        alive = alive[kept]
    loss = torch.full_like(final, math.inf)
    loss[alive] = final[alive]
    loop.tell(theta, loss)
    return theta, alive


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_search_with_any_pruner_resumes_bit_for_bit_with_the_same_rows_dropped(pruner):
    through, stopped = pruning(pruner), pruning(pruner)
    for generation in range(6):
        if generation in (1, 4):
            again = pruning(pruner)
            again.load_state_dict(copy.deepcopy(stopped.state_dict()))
            stopped = again
        ours, theirs = turn(through, generation, spoil=(3,)), turn(stopped, generation, spoil=(3,))
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    assert torch.equal(through.pruned, stopped.pruned)


@pytest.mark.parametrize("pruner", ["median", "percentile", "successive_halving", "hyperband", "threshold"])
def test_a_dropped_row_was_worse_than_one_that_went_on_beside_it(pruner):
    loop = pruning(pruner, sampler="random")
    for generation in range(8):
        turn(loop, generation)
    final = loss_of(loop._theta(loop.z))[:, 0]
    assert loop.pruned.any()
    assert final[loop.pruned].median() > final[~loop.pruned].median()
    assert final.min() == loop.losses.min()
    assert loop.report == {"pruned": float(loop.pruned[-8:].sum())}


def test_pruned_trials_are_known_to_the_study_as_pruned_and_failed_ones_as_the_worst():
    loop = pruning("threshold")
    turn(loop, 0, spoil=(0,))
    trials = loop.study.trials
    for number, trial in enumerate(trials):
        pruned = trial.state == optuna.trial.TrialState.PRUNED
        assert pruned == bool(loop.pruned[number])
        assert trial.value == (trial.intermediate_values[max(trial.intermediate_values)] if pruned else trial.value)
    assert trials[0].intermediate_values[25] == math.inf  # a row that diverged at once is pruned for that


def test_without_a_pruner_nothing_is_asked_at_rungs_and_a_failure_is_a_complete_trial():
    loop = started()
    assert loop.rungs(STEPS) == ()
    turn(loop, 0, spoil=(2,))
    assert loop.study.trials[2].state == optuna.trial.TrialState.COMPLETE
    assert loop.study.trials[2].value == math.inf


@pytest.mark.parametrize(("steps", "rungs"), [(100, (25, 50)), (3, (1, 2)), (2, (1,)), (1, ())])
def test_rungs_are_whole_steps_before_the_last(steps, rungs):
    assert pruning("median").rungs(steps) == rungs


CONDITIONAL = (
    Param("depth", when=(("kind", ("b",)),)),
    Param("kind", choices=("a", "b")),
    Param("use", choices=("off", "on"), start=1.0, when=(("kind", ("b",)),)),
    Param("gain", when=(("use", ("on",)),)),
)


def conditional_turn(loop, generation):
    theta = asked(loop, generation)
    loop.tell(theta, ((theta[:, 0] - 1) ** 2 - theta[:, 1] - theta[:, 3])[:, None])
    return theta


def test_a_column_that_does_not_count_is_not_suggested_and_stays_at_its_start():
    loop = started(CONDITIONAL)
    theta = torch.cat([conditional_turn(loop, generation) for generation in range(5)])
    seen = set()
    for row, trial in zip(theta.tolist(), loop.study.trials, strict=True):
        kind, use = trial.params["kind"], trial.params.get("use")
        there = {"kind"} | ({"depth", "use"} if kind == "b" else set()) | ({"gain"} if use == "on" else set())
        assert set(trial.params) == there
        seen.add(frozenset(there))
        for value, param in zip(row, CONDITIONAL, strict=True):
            assert param.name in there or value == param.start
    assert len(seen) == 3


@pytest.mark.parametrize("sampler", ["tpe", "cma_es", "nsga2"])
def test_conditional_columns_resume_bit_for_bit(sampler):
    through = started(CONDITIONAL, sampler=sampler)
    for generation in range(3):
        conditional_turn(through, generation)
    stopped = started(CONDITIONAL, sampler=sampler)
    stopped.load_state_dict(through.state_dict())
    assert torch.equal(conditional_turn(through, 3), conditional_turn(stopped, 3))


def test_parameters_that_are_conditions_of_one_another_are_refused():
    circle = (Param("a", choices=("x",), when=(("b", ("x",)),)), Param("b", choices=("x",), when=(("a", ("x",)),)))
    with pytest.raises(ValueError, match="a, b are conditions of one another"):
        asked(started(circle), 0)


def test_known_rules_are_tried_after_the_start_and_before_anything_else():
    known = torch.tensor([[0.5, 0.2, 1.0], [-1.0, 0.05, 0.0]], dtype=torch.float64)
    through, stopped = started(), started()
    for loop in (through, stopped):
        loop.warm(known)
    first = torch.cat((asked(through, 0, 2), torch.zeros(0, 3, dtype=torch.float64)))
    through.tell(first, loss_of(first))
    torch.testing.assert_close(first, torch.stack((starts(PARAMS), known[0])))
    stopped.load_state_dict(through.state_dict())
    for loop in (through, stopped):
        torch.testing.assert_close(asked(loop, 1, 3)[0], known[1])
    assert torch.equal(through.ask(3, noise_for([(1,)])), stopped.ask(3, noise_for([(1,)])))


def test_a_known_rule_outside_the_span_is_refused():
    with pytest.raises(ValueError, match="known rule 0: real = 4 lies 4 scales from its start"):
        started().warm(torch.tensor([[4.0, 0.1, 0.0]], dtype=torch.float64))


def two_objectives(theta):
    return torch.stack(((theta[:, 0] - 1) ** 2, theta[:, 0].abs().round()), dim=1)


def test_the_front_is_what_nothing_else_beats_with_its_losses():
    loop = started(objectives=2)
    for generation in range(5):
        theta = asked(loop, generation)
        loss = two_objectives(theta)
        loss[1] = math.inf
        loop.tell(theta, loss)
    assert torch.equal(two_objectives(loop.front), loop.front_losses)
    assert len(loop.front) >= 2
    assert bool((loop.front_losses[:, 0].diff() > 0).all())
    assert bool((loop.front_losses[:, 1].diff() < 0).all())
    assert torch.equal(loop.front[0], loop.best)
    for row in loop.losses[loop.losses.isfinite().all(1)]:
        assert bool(((loop.front_losses <= row).all(1)).any())


def shown(folder):
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}").trials
    return [(trial.state, trial.params, trial.values, trial.intermediate_values) for trial in trials]


def test_the_study_on_disk_shows_pruned_trials_and_is_rebuilt_the_same_where_it_was_deleted(tmp_path):
    loop = pruning("median")
    for generation in range(4):
        turn(loop, generation)
        loop.publish(tmp_path)
    before = shown(tmp_path)
    assert {state.name for state, *_ in before} == {"COMPLETE", "PRUNED"}
    for number, (state, _, values, intermediate) in enumerate(before):
        assert bool(loop.pruned[number]) == (state.name == "PRUNED")
        assert set(intermediate) in ({25}, {25, 50})
        assert values == ([intermediate[max(intermediate)]] if loop.pruned[number] else loop.losses[number].tolist())
    (tmp_path / "study.db").unlink()
    again = pruning("median")
    again.load_state_dict(loop.state_dict())
    again.publish(tmp_path)
    assert shown(tmp_path) == before


def test_the_study_on_disk_shows_every_objective_and_only_columns_that_count(tmp_path):
    loop = started(CONDITIONAL, objectives=2)
    theta = asked(loop, 0)
    loop.tell(theta, two_objectives(theta))
    loop.publish(tmp_path)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [trial.values for trial in study.trials] == loop.losses.tolist()
    assert {frozenset(trial.params) for trial in study.trials} == {
        frozenset(trial.params) for trial in loop.study.trials
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pruner": "medain"}, "did you mean 'median'"),
        ({"pruner": "percentile"}, "needs outer.pruning = { percentile = ... }"),
        ({"pruner": "median", "pruning": {"n_startup": 3}}, "did you mean 'n_startup_trials'"),
        ({"pruning": {"percentile": 3.0}}, "without an outer.pruner"),
        ({"pruner": "median", "prune_at": (1.5,)}, "between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        OptunaSearch(**settings)


def test_pruning_by_several_objectives_is_refused():
    with pytest.raises(ValueError, match="judges by one objective, and 2 are given"):
        started(objectives=2, pruner="median")


def test_the_dashboard_reads_the_study_on_disk(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    loop = pruning("threshold")
    turn(loop, 0)
    loop.publish(tmp_path)
    page = dashboard.wsgi(f"sqlite:///{tmp_path / 'study.db'}")

    def asked_for(path):
        environ: dict = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        return json.loads(b"".join(page(environ, lambda *answer: None)))

    (study,) = asked_for("/api/studies")["study_summaries"]
    states = [trial["state"] for trial in asked_for(f"/api/studies/{study['study_id']}")["trials"]]
    assert states.count("Pruned") == int(loop.pruned.sum()) > 0
