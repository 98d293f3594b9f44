"""Every outer loop keeps its contract: it minimises, copes with failures, and goes on bit for bit."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch

from metarule.outer import OUTER
from metarule.outer.cma_es import CmaEs
from metarule.outer.optuna import ALIASES, OptunaSearch
from metarule.params import Param, starts
from metarule.rng import noise_for

PARAMS = (
    Param("real"),
    Param("small", scale=0.1, low=-0.5),
    Param("rate", start=0.1, scale=1.0, low=1e-3, high=10.0, log=True),
)
TARGET = torch.tensor([1.0, -0.3, 0.5], dtype=torch.float64)
GENERATIONS = 40


def candidates_of(loop):
    return 1 if "grad" in loop.wants else 8


def turn(loop, generation, spoil=()):
    """One ask and tell on the shifted quadratic, in units of each parameter's scale; `spoil` rows fail."""
    theta = loop.ask(candidates_of(loop), noise_for([(0, "outer", generation)]))
    stretch = torch.tensor([param.scale for param in PARAMS], dtype=torch.float64)
    away = (theta - TARGET) / stretch
    loss = (away**2).sum(1, keepdim=True)
    grad = 2 * away / stretch
    for row in spoil:
        loss[row] = math.inf
        grad[row] = math.nan
    loop.tell(theta, loss, grad if "grad" in loop.wants else None)
    return theta, loss


def made(kind, **settings):
    plug: Any = OUTER[kind]
    return plug(**settings)


def started(kind, **settings):
    if kind == "meta_gradient":
        settings = {"rate": 0.1, **settings}  # its default step is for coefficients near 0
    loop = made(kind, **settings)
    loop.start(PARAMS)
    return loop


def saved_and_restored(loop):
    """The state through what the run folder does to it: tensors copied, the rest through JSON."""

    def through(value):
        if isinstance(value, torch.Tensor):
            return value.clone()
        if isinstance(value, dict):
            return {key: through(part) for key, part in value.items()}
        return json.loads(json.dumps(value))

    other = copy.copy(loop)
    other.start(PARAMS)
    other.load_state_dict(through(loop.state_dict()))
    return other


@pytest.mark.parametrize("kind", OUTER)
def test_it_minimises_a_quadratic(kind):
    loop = started(kind)
    first = turn(loop, 0)[1].mean()
    for generation in range(1, GENERATIONS):
        turn(loop, generation)
    stretch = torch.tensor([param.scale for param in PARAMS], dtype=torch.float64)
    assert (((loop.best - TARGET) / stretch) ** 2).sum() < 0.5 * first


@pytest.mark.parametrize("kind", OUTER)
def test_proposals_are_float64_rows_inside_their_bounds(kind):
    loop = started(kind)
    assert torch.equal(loop.best, starts(PARAMS))
    for generation in range(10):
        theta, _ = turn(loop, generation)
        assert theta.dtype == torch.float64
        assert theta.shape == (candidates_of(loop), len(PARAMS))
        for row in (*theta, loop.best):
            for value, param in zip(row.tolist(), PARAMS, strict=True):
                assert param.low <= value <= param.high


@pytest.mark.parametrize("kind", OUTER)
def test_it_copes_with_failed_candidates_and_failed_generations(kind):
    loop = started(kind)
    for generation in range(GENERATIONS):
        everyone = range(candidates_of(loop))
        turn(loop, generation, spoil=everyone if generation == 2 else (0,) if generation % 3 == 1 else ())
    assert torch.isfinite(loop.best).all()
    assert (loop.best[0] - TARGET[0]).abs() < 1.0


@pytest.mark.parametrize("cut", [1, 2, 7])
@pytest.mark.parametrize("kind", OUTER)
def test_stopped_and_resumed_it_proposes_the_same_bits(kind, cut):
    through, stopped = started(kind), started(kind)
    for generation in range(10):
        if generation == cut:
            stopped = saved_and_restored(stopped)
        ours, theirs = turn(through, generation)[0], turn(stopped, generation)[0]
        assert torch.equal(ours, theirs)
    assert torch.equal(through.best, stopped.best)


@pytest.mark.parametrize("kind", OUTER)
def test_a_single_parameter_can_be_searched(kind):
    loop = made(kind)
    loop.start(PARAMS[:1])
    theta = loop.ask(candidates_of(loop), noise_for([(0, "outer", 0)]))
    loop.tell(theta, theta**2, 2 * theta)
    assert loop.best.shape == (1,)


@pytest.mark.parametrize("sampler", ALIASES)
def test_optuna_resumes_identically_with_every_sampler(sampler):
    through, stopped = started("optuna", sampler=sampler), started("optuna", sampler=sampler)
    for generation in range(4):
        if generation in (1, 3):
            stopped = saved_and_restored(stopped)
        assert torch.equal(turn(through, generation)[0], turn(stopped, generation)[0])


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
@pytest.mark.parametrize("cut", [51, 55])
def test_optuna_breeds_the_same_offspring_after_a_resume(sampler, cut):
    def generation(loop, number):
        theta = loop.ask(4, noise_for([(0, "outer", number)]))
        loop.tell(theta, torch.stack(((theta[:, 0] - 1) ** 2, theta[:, 1] ** 2), dim=1))
        return theta

    params = (*PARAMS, Param("kind", choices=("bad", "good")))
    through, stopped = (OptunaSearch(sampler=sampler) for _ in range(2))
    for loop in (through, stopped):
        loop.start(params, objectives=2)
    for number in range(cut):  # the second generation of its population of 50 begins at trial 50, the fifth at 200
        generation(through, number)
    stopped.load_state_dict(through.state_dict())
    for number in range(cut, cut + 3):
        assert torch.equal(generation(through, number), generation(stopped, number))


def test_optuna_chooses_among_names_and_keeps_a_front():
    params = (Param("real"), Param("kind", choices=("bad", "good")))
    loop = OptunaSearch()
    loop.start(params, objectives=2)
    for generation in range(10):
        theta = loop.ask(4, noise_for([(0, "outer", generation)]))
        first = (theta[:, 0] - 1) ** 2 + (theta[:, 1] == 0)
        loop.tell(theta, torch.stack((first, theta[:, 0] ** 2), dim=1))
    assert loop.best[1] == 1
    assert loop.front.shape[1] == 2
    assert ((loop.front[:, 0] >= -0.5) & (loop.front[:, 0] <= 1.5)).all()


def test_the_study_in_the_run_folder_is_a_view_that_optuna_reads(tmp_path):
    import optuna

    loop = OptunaSearch()
    loop.start(PARAMS)
    for generation in range(2):
        turn(loop, generation)
        loop.publish(tmp_path)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert len(study.trials) == 16
    assert study.best_value == loop.losses.min()


def test_publishing_again_adds_new_trials_only_and_replaces_those_of_another_search(tmp_path):
    import optuna

    def shown():
        trials = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}").trials
        return [trial.params for trial in trials], [trial.datetime_complete for trial in trials]

    loop, other = OptunaSearch(), OptunaSearch(sampler="random", span=1.0)
    loop.start(PARAMS)
    other.start(PARAMS)
    turn(loop, 0, spoil=(3,))
    loop.publish(tmp_path)
    before = shown()
    turn(loop, 1)
    loop.publish(tmp_path)
    loop.publish(tmp_path)
    after = shown()
    assert len(after[0]) == 16
    assert (after[0][:8], after[1][:8]) == before
    theta, _ = turn(other, 5)
    other.publish(tmp_path)
    names = [param.name for param in PARAMS]
    assert shown()[0] == [dict(zip(names, row, strict=True)) for row in theta.tolist()]  # units of theta


def test_a_study_is_saved_without_what_samplers_pickle_and_without_what_nobody_answered():
    loop = OptunaSearch(sampler="cma_es")
    loop.start(PARAMS)
    for generation in range(3):
        turn(loop, generation)
    before = loop.state_dict()
    assert set(before) == {"z", "losses", "reports", "rungs_met", "pruned", "marks", "seeds", "counts"}
    expected = loop.ask(8, noise_for([(0, "outer", 3)]))
    assert torch.equal(loop.ask(8, noise_for([(0, "outer", 3)])), expected)
    assert all(torch.equal(before[name], loop.state_dict()[name]) for name in ("z", "losses"))


def test_optuna_begins_at_the_start_and_ranks_a_failure_behind_every_loss():
    loop = OptunaSearch()
    loop.start(PARAMS)
    theta = loop.ask(2, noise_for([(0, "outer", 0)]))
    assert torch.equal(theta[0], starts(PARAMS))
    loop.tell(theta, torch.tensor([[math.nan], [1e9]], dtype=torch.float64))
    assert torch.equal(loop.best, theta[1])
    assert torch.equal(loop.front, theta[1:])


@pytest.mark.parametrize("kind", OUTER)
def test_a_saved_state_stays_as_it_was_while_the_search_goes_on(kind):
    loop, restored = started(kind), started(kind)
    turn(loop, 0)
    state = loop.state_dict()
    kept = copy.deepcopy(state)
    turn(loop, 1)
    restored.load_state_dict(state)
    turn(restored, 1)
    torch.testing.assert_close(state, kept, rtol=0, atol=0)


def test_cma_es_without_bounds_stays_finite_and_keeps_its_number_of_candidates():
    loop = CmaEs()
    loop.start((Param("rate", start=1.0, log=True), Param("real")))
    for generation in range(400):
        theta = loop.ask(8, noise_for([(0, "outer", generation)]))
        loop.tell(theta, -theta[:, :1].log() - theta[:, 1:])
    assert torch.isfinite(loop.best).all()
    with pytest.raises(ValueError, match="began with 8"):
        loop.ask(6, noise_for([(0, "outer", 400)]))


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("cma_es", {"sigma": 0.0}, "must be positive"),
        ("optuna", {"sampler": "tpee"}, "did you mean 'tpe'"),
        ("meta_gradient", {"rate": -1.0}, "must be positive"),
        ("meta_gradient", {"clip": 0.0}, "leave it out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, settings, said):
    with pytest.raises(ValueError, match=said):
        made(kind, **settings)


@pytest.mark.parametrize(("kind", "candidates", "said"), [("cma_es", 2, "at least 4"), ("meta_gradient", 3, "to 1")])
def test_a_number_of_candidates_that_does_not_fit_is_refused(kind, candidates, said):
    with pytest.raises(ValueError, match=said):
        started(kind).ask(candidates, noise_for([(0,)]))
