"""Every outer loop keeps its contract: it minimises, copes with failures, and goes on bit for bit."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch

from metarule.outer import OUTER
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

    loop = started("optuna")
    for generation in range(2):
        turn(loop, generation)
        loop.publish(tmp_path)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert len(study.trials) == 16
    assert study.best_value == min(value for told in loop.told for (value,) in told["values"])


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
