"""Quadratics: the slope that a synapse sees is the gradient, and the zoo's optimizers do what they are published to."""

from __future__ import annotations

import math

import pytest
import torch
from building import address

from metarule.evaluation import Conditions, compare, tuned
from metarule.inner import Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rng import seed_number
from metarule.rules.terms import Terms
from metarule.synapses.sgd import Sgd
from metarule.tasks.quadratics import Quadratics
from metarule.zoo import algorithm

SIZE, RUNS = 10, 5
POINT = Network.chain((SIZE, 1), output="linear", init="gaussian", init_scale=0.01 * math.sqrt(SIZE))
EXACT = Reference(dtype=torch.float64)
EVERY = tuple(range(1, 101))

# gradients of f in a rate: the slope that a synapse sees is -grad f / (2 size)
UNIT = 2 * SIZE


def trained(name, rate, score_at=(), episodes=400, distribution="uniform"):
    learner = algorithm(name).learner(POINT)
    runs = Runs((0,), tuple(range(episodes)))
    theta = torch.tensor([[rate]], dtype=torch.float64)
    task = Quadratics(distribution=distribution).held_out()
    outcome = EXACT.evaluate(learner, theta, task, runs, range(100), SIZE, score_at=score_at)
    return outcome.loss[0, :, 0]


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_error_pre_is_the_gradient_and_the_score_is_the_quadratic(distribution):
    noise = address("quadratics", runs=RUNS)
    episode = Quadratics(distribution=distribution).sample(noise, SIZE)
    learner = Learner(POINT, algorithm("backprop").credit, {ANY: Terms(("error_pre",), normalise=False)}, {ANY: Sgd()})
    columns = learner.columns(torch.ones(RUNS, 1, dtype=torch.float64))
    state = learner.init(columns, noise)
    (name,) = state["weights"]
    batch = episode.train(3)
    assert batch.y is not None
    change = learner.induced(columns, state, batch, 3, noise)[name]
    point = state["weights"][name][:, 0].clone().requires_grad_()
    value = (torch.einsum("rbj,rj->rb", batch.x, point) - batch.y[:, :, 0]).square().sum(1)
    (slope,) = torch.autograd.grad(value.sum(), point)
    torch.testing.assert_close(change[:, 0], -slope / UNIT, rtol=1e-12, atol=1e-14)
    scored = episode.score(lambda x: POINT.forward(state["weights"], x), state["weights"])
    torch.testing.assert_close(scored["held_out_loss"], value.detach(), rtol=1e-12, atol=1e-14)


def test_a_smaller_batch_shows_every_row_in_turn():
    episode = Quadratics().sample(address("quadratics", runs=RUNS), 4)
    whole = Quadratics().sample(address("quadratics", runs=RUNS), SIZE).train(0)
    seen = torch.cat([episode.train(step).x for step in range(5)], dim=1)
    torch.testing.assert_close(seen, whole.x.repeat(1, 2, 1))


def test_points_start_near_zero_and_problems_are_drawn_as_asked():
    noise = address("quadratics", runs=2000)
    (projection,) = POINT.projections
    assert float(POINT.draw(projection, noise).std()) == pytest.approx(0.01, rel=0.03)
    uniform = Quadratics().sample(noise, SIZE)
    assert 0 <= uniform.matrix.min() < 0.01 < 0.99 < uniform.matrix.max() < 1
    normal = Quadratics(distribution="normal").sample(noise, SIZE)
    assert float(normal.matrix.std()) == pytest.approx(1.0, abs=0.02)
    assert float(normal.aim.mean()) == pytest.approx(0.0, abs=0.03)


# an independent prototype's figures, 128 problems: the standard error of its means is about 4 %
@pytest.mark.parametrize(
    ("name", "rate", "published"),
    [("adam", 0.2, 0.092), ("momentum", 0.01 * UNIT, 0.098), ("backprop", 0.02 * UNIT, 0.192)],
)
def test_the_zoos_optimizers_end_where_the_published_ones_do(name, rate, published):
    assert float(trained(name, rate).mean()) == pytest.approx(published, rel=0.1)


def test_the_mean_over_a_trajectory_is_the_published_one_with_its_start():
    start = float(trained("backprop", 0.0).mean())
    along = float(trained("adam", 0.1, EVERY).mean())
    assert (start + 100 * along) / 101 == pytest.approx(0.326, rel=0.06)


def test_normal_problems_are_harder():
    assert float(trained("adam", 0.3, distribution="normal").mean()) == pytest.approx(0.344, rel=0.1)


def test_a_battery_tunes_and_compares_along_the_trajectory_where_the_search_does():
    steps, problems = 20, 8
    learner = algorithm("backprop").learner(POINT)
    conditions = Conditions(EXACT, steps, SIZE, EVERY[:steps])

    def along(task, rate, seed, episodes):
        runs = Runs((0,), tuple(range(episodes)), seed)
        theta = torch.tensor([[rate]], dtype=torch.float64)
        ends = [EXACT.evaluate(learner, theta, task, runs, range(step), SIZE).loss for step in EVERY[:steps]]
        return float(torch.stack(ends).mean())

    contender = tuned("backprop", learner, Quadratics(), conditions, 11 * problems, 0, lambda text: None)
    assert contender.tuning is not None
    first = contender.tuning.rates[0]
    assert contender.tuning.means[0] == pytest.approx(along(Quadratics(), first, seed_number(0, "tuning"), problems))
    battery = compare([contender], Quadratics(), conditions, problems, [0], lambda text: None)
    expected = along(Quadratics().held_out(), contender.tuning.best, seed_number(0, "battery"), problems)
    assert battery.rows[0].mean == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"size": 0}, "task.size = 0"), ({"distribution": "gaussian"}, "normal, uniform"), ({"split": "all"}, "held_out")],
)
def test_settings_that_make_no_problem_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Quadratics(**settings)
