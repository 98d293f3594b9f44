"""Descent: every optimizer of torch.optim steps, remembers bit for bit, and soft thresholding is the proximal step."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from metarule.outer.descent import OPTIMIZERS, Descent
from metarule.params import Param, starts

PARAMS = (Param("a", scale=0.1), Param("b", start=1e-3, scale=0.5), Param("rate", start=0.1, low=1e-3, log=True))
TARGET = torch.tensor([0.05, -0.2, 0.3], dtype=torch.float64)
NOT_FOR_A_SLOPE = {"Muon": "2D parameters", "LBFGS": "closure", "SparseAdam": "dense gradients"}
STEPPERS = sorted(OPTIMIZERS.keys() - NOT_FOR_A_SLOPE)


def walk(descent, steps, l1=0.0):
    """Steps down the squared distance from TARGET in units of scale; the positions on the way."""
    scale = torch.tensor([param.scale for param in PARAMS], dtype=torch.float64)
    path = []
    for _ in range(steps):
        descent.step(2 * (descent.theta - TARGET) / scale**2 * descent.stretch, l1)
        path.append(descent.theta)
    return torch.stack(path)


@pytest.mark.parametrize("name", STEPPERS)
def test_it_steps_as_the_optimizer_alone_does(name):
    descent = Descent(PARAMS[:2], name, rate=0.05)
    alone = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    kind: Any = OPTIMIZERS[name]
    optimizer = kind([alone], lr=0.05)
    for _ in range(20):
        slope = torch.sin(alone.detach() * 3) + torch.tensor([1.0, -0.2], dtype=torch.float64)
        descent.step(slope)
        alone.grad = slope
        optimizer.step()
    torch.testing.assert_close(descent.z.detach(), alone.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("name", STEPPERS)
def test_it_goes_on_bit_for_bit_from_its_state(name):
    whole, first, second = (Descent(PARAMS, name, rate=0.05) for _ in range(3))
    path = walk(whole, 9)
    walk(first, 4)
    state = first.state_dict()
    json.dumps({key: value for key, value in state["optimizer"].items() if not torch.is_tensor(value)})
    walk(first, 1)  # a saved state stays as it was
    second.load_state_dict(state)
    assert torch.equal(walk(second, 5), path[4:])


@pytest.mark.parametrize("name", NOT_FOR_A_SLOPE)
def test_optimizers_that_need_more_than_a_slope_are_refused(name):
    with pytest.raises(ValueError, match=NOT_FOR_A_SLOPE[name]):
        Descent(PARAMS, name)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "Adamm"}, "did you mean 'Adam"),
        ({"options": {"beta": 0.9}}, "beta"),
        ({"options": {"betas": (0.9, 1.5)}}, "1.5"),
        ({"rate": 0.0}, "must be positive"),
        ({"clip": -1.0}, "leave it out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Descent(PARAMS, **settings)


def test_options_reach_the_optimizer():
    plain, heavy = Descent(PARAMS, "SGD", rate=1e-3), Descent(PARAMS, "SGD", rate=1e-3, options={"momentum": 0.9})
    ours, theirs = walk(plain, 3), walk(heavy, 3)
    assert torch.equal(ours[0], theirs[0])
    assert not torch.equal(ours[2], theirs[2])


def test_soft_thresholding_ends_at_the_minimum_of_the_penalised_loss():
    """min (theta - target)^2 / scale^2 + l1 |theta / scale| is the soft threshold of target by l1 / 2, exactly."""
    l1 = 0.6
    descent = Descent(PARAMS[:2], "SGD", rate=0.05)
    scale = torch.tensor([0.1, 0.5], dtype=torch.float64)
    for _ in range(400):
        descent.step(2 * (descent.theta - TARGET[:2]) / scale, l1)
    away = TARGET[:2] / scale
    expected = scale * away.sign() * (away.abs() - l1 / 2).clamp(min=0)
    torch.testing.assert_close(descent.theta, expected, rtol=0, atol=1e-12)
    assert 0.0 < abs(float(expected[0])) < float(TARGET[0])
    assert descent.nonzero == 2


def test_a_coefficient_that_is_shrunk_away_is_exactly_zero_and_one_on_a_log_scale_is_left_alone():
    descent = Descent(PARAMS, "SGD", rate=0.01)
    for _ in range(200):
        descent.step(torch.tensor([0.01, -0.01, 0.0], dtype=torch.float64), l1=1.0)
    assert descent.theta[:2].tolist() == [0.0, 0.0]
    assert descent.theta[2] == starts(PARAMS)[2]
    assert descent.nonzero == 1


def test_a_slope_that_is_not_finite_moves_nothing_and_is_counted():
    descent = Descent(PARAMS)
    walk(descent, 3)
    before = descent.state_dict()
    assert not descent.step(torch.tensor([1.0, torch.nan, 0.0], dtype=torch.float64), l1=1.0)
    after = descent.state_dict()
    for count in ("skipped", "failing"):
        assert after.pop(count) == before.pop(count) + 1
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_clipping_bounds_the_slope_and_keeps_its_direction():
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)
    descent = Descent(PARAMS[:2], "SGD", rate=0.1, clip=0.5)
    descent.step(slope)
    torch.testing.assert_close(descent.z.detach(), -0.1 * 0.5 * slope / 5)
    assert descent.norm == 5.0


def test_the_centre_stays_inside_the_bounds():
    descent = Descent((Param("low", low=-0.2), Param("rate", start=0.1, high=0.15, log=True)), "SGD", rate=1.0)
    descent.step(torch.tensor([5.0, -5.0], dtype=torch.float64))
    torch.testing.assert_close(descent.theta, torch.tensor([-0.2, 0.15], dtype=torch.float64))


def test_from_a_step_into_a_region_where_everything_fails_it_finds_back():
    descent = Descent((Param("a"),), optimizer="SGD", rate=1.0)
    descent.step(torch.tensor([-2.0], dtype=torch.float64))
    assert float(descent.z.detach()) == 2.0
    places = []
    for _ in range(5):  # nothing beyond 1 has a slope
        descent.step(torch.tensor([math.nan], dtype=torch.float64))
        places.append(float(descent.z.detach()))
    assert places == [2.0, 2.0, 1.0, 0.5, 0.25]
    assert descent.skipped == 5
    descent.step(torch.tensor([0.0], dtype=torch.float64))
    descent.step(torch.tensor([math.nan], dtype=torch.float64))
    assert float(descent.z.detach()) == 0.25
