"""Restarts of CMA-ES: out of local minima, one solution per place of rest, and bit for bit the same after a stop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from metarule.outer.cma_es import CmaEs
from metarule.params import Param
from metarule.rng import noise_for

PLANE = (Param("x"), Param("y"))
SEEDS = range(4)


def rastrigin(theta):
    """Minima at all integers shifted by (2, 1); the least, 0, at (2, 1) itself."""
    away = theta - torch.tensor([2.0, 1.0], dtype=torch.float64)
    return 10 * theta.shape[1] + (away.square() - 10 * torch.cos(2 * math.pi * away)).sum(1)


def double_well(theta):
    """The start lies at the bottom of the shallow basin, 1 at (0, 0); the other one goes down to 0 at (2, 2)."""
    return torch.minimum(1 + theta.square().sum(1), (theta - 2).square().sum(1))


def terraces(theta):
    """Comes to rest soon: nothing is better than the lowest terrace that is in sight."""
    return rastrigin(theta).div(4).floor()


def ridge(theta):
    """All x y = 1 are equally good."""
    return (theta[:, 0] * theta[:, 1] - 1).square()


def searched(loop, function, generations, seed=0, first=0, candidates=8):
    for number in range(first, generations):
        theta = loop.ask(candidates, noise_for([(seed, "restarts", number)]))
        loop.tell(theta, function(theta)[:, None])
    return loop


def begun(**settings):
    loop = CmaEs(**settings)
    loop.start(PLANE)
    return loop


def restored(loop):
    other = begun(restarts="ipop", patience=loop.patience)
    other.load_state_dict({name: value.clone() for name, value in loop.state_dict().items()})
    return other


def test_with_restarts_the_least_of_many_minima_is_found_and_without_them_it_is_not():
    def ends(restarts):
        loops = [searched(begun(restarts=restarts, sigma=1.0), rastrigin, 250, seed) for seed in SEEDS]
        return [float(rastrigin(loop.best[None])) for loop in loops]

    without, restarted = ends("none"), ends("ipop")
    assert min(without) > 0.9  # the next best minimum is 0.995 high
    assert all(own < other + 1e-6 for own, other in zip(restarted, without, strict=True))
    assert sum(end < 1e-6 for end in restarted) >= 2


def test_every_basin_that_a_distribution_rested_in_is_kept_and_the_deeper_one_is_handed_over():
    loop = searched(begun(restarts="ipop", sigma=0.1), double_well, 300)
    losses = [solution.loss for solution in loop.solutions]
    assert losses[0] == pytest.approx(1, abs=1e-6)  # where it started
    assert min(losses) < 1e-6
    torch.testing.assert_close(loop.best, torch.full((2,), 2.0, dtype=torch.float64), rtol=0, atol=1e-3)
    assert [solution.population for solution in loop.solutions] == [8 * 2**k for k in range(len(losses))]
    assert loop.report["restarts"] == len(loop.rested) > 0


def test_restarts_show_that_an_optimum_is_degenerate():
    loop = searched(begun(restarts="ipop", sigma=1.0), ridge, 200, seed=1)
    one, other = [solution.theta for solution in loop.solutions if solution.loss < 1e-6][:2]
    assert (one - other).norm() > 1  # both solve it


def test_a_doubled_population_is_told_when_all_of_its_generations_are_in():
    loop = searched(begun(restarts="ipop", patience=6), lambda theta: torch.zeros(len(theta)), 6)
    assert len(loop.rested) == 1  # a flat loss does not get better
    halfway = len(searched(loop, double_well, 7, first=6).solutions)
    assert len(searched(loop, double_well, 8, first=7).solutions) == halfway + 1


def test_a_restart_begins_within_the_spread_and_inside_the_bounds():
    loop = CmaEs(restarts="ipop", patience=6, spread=2.0)
    loop.start(
        (Param("free"), Param("held", start=1.0, low=0.5, high=1.25), Param("rate", start=0.1, high=0.2, log=True))
    )
    searched(loop, lambda theta: torch.zeros(len(theta)), 200)
    points = np.stack(loop.points[1:])
    assert len(points) >= 4
    assert (np.abs(points) <= 2.0).all()
    assert (points[:, 1] >= -0.5).all()
    assert (points[:, 1] <= 0.25).all()
    assert (points[:, 2] <= math.log(2)).all()


@pytest.mark.parametrize("cut", [3, 11, 19, 30, 47])
def test_stopped_at_any_generation_and_resumed_it_restarts_at_the_same_bits(cut):
    through = searched(begun(restarts="ipop", patience=6), terraces, 60)
    assert len(through.rested) >= 2
    first = searched(begun(restarts="ipop", patience=6), terraces, cut)
    stopped = searched(restored(first), terraces, 60, first=cut)
    assert torch.equal(through.best, stopped.best)
    assert all(torch.equal(own, stopped.state_dict()[name]) for name, own in through.state_dict().items())
    assert all(
        torch.equal(one.theta, other.theta) and one[1:] == other[1:]
        for one, other in zip(through.solutions, stopped.solutions, strict=True)
    )


def test_failures_stop_no_restart_and_are_no_numbers_in_the_file_of_solutions(tmp_path):
    loop = searched(begun(restarts="ipop", patience=6), lambda theta: torch.full((len(theta),), math.nan), 6)
    loop.publish(tmp_path)
    assert json.loads((tmp_path / "solutions.json").read_text()) == [
        {"loss": None, "population": 8, "theta": {"x": 0.0, "y": 0.0}}
    ]
    searched(loop, double_well, 200, first=6)
    loop.publish(tmp_path)
    rows = json.loads((tmp_path / "solutions.json").read_text())
    assert [row["theta"] for row in rows] == [
        dict(zip("xy", solution.theta.tolist(), strict=True)) for solution in loop.solutions
    ]
    assert torch.isfinite(double_well(loop.best[None])).all()


def test_without_restarts_nothing_is_reported_or_written(tmp_path):
    loop = searched(begun(), double_well, 3)
    loop.publish(tmp_path)
    assert not list(tmp_path.iterdir())
    assert loop.report == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"restarts": "bipop"}, "did you mean 'ipop'"),
        ({"patience": 3}, "at least 6"),
        ({"spread": 0.0}, "must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        CmaEs(**settings)
