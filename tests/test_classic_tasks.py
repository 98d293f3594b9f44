"""Boolean functions and problems of the plane: what is counted, what is held out, what a perfect answer scores."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from metarule.network import Activity
from metarule.rng import noise_for
from metarule.tasks.boolean import FUNCTIONS, Boolean, separable
from metarule.tasks.plane import Plane

RUNS = 60


def episodes(task, count=RUNS) -> Any:
    return task.sample(noise_for([(0, "episode", number) for number in range(count)]), 5)


def answering(drive):
    """Networks whose output has this drive."""

    def respond(x):
        found = {"input": x, "output": drive(x)}
        return Activity(found, found)

    return respond


# boolean


def test_as_many_functions_are_separable_as_muroga_counted():
    # the numbers of threshold functions of 2, 3 and 4 variables
    assert [len(separable(inputs)) for inputs in (2, 3, 4)] == [14, 104, 1882]
    xor, both = 0b0110, 0b1000
    assert both in separable(2)
    assert xor not in separable(2)


@pytest.mark.parametrize("inputs", [2, 3])
def test_a_function_is_searched_over_or_held_out_and_keeps_its_side(inputs):
    sides = {}
    for functions in FUNCTIONS:
        task = Boolean(inputs, functions)
        search, held_out = set(task.codes), set(task.held_out().codes)
        assert not search & held_out
        assert abs(len(search) - len(held_out)) <= 1
        sides[functions] = search, held_out
    (one, other), (hard, harder) = sides["separable"], sides["non_separable"]
    assert sides["all"] == (one | hard, other | harder)
    assert set.union(*sides["all"]) == set(range(1, 2**2**inputs - 1))


def test_problems_are_the_first_of_an_order_and_bound_the_search_only():
    whole, few = Boolean(3), Boolean(3, problems=4)
    assert few.codes == whole.codes[:4]
    other = Boolean(3, problems=4, shuffle=1)
    assert set(other.codes) != set(few.codes)
    assert set(other.held_out().codes) == set(few.held_out().codes) == set(whole.held_out().codes)
    answers = {tuple(row) for row in episodes(few).answers.tolist()}
    assert answers == {tuple(code >> pattern & 1 for pattern in range(8)) for code in few.codes}
    assert few.seen().startswith("4 of the 102 separable Boolean functions of 3 inputs")


def test_patterns_are_seen_with_noise_and_named_by_the_truth_table():
    task = Boolean(3, "all", noise_sd=0.0)
    episode = episodes(task)
    batch = episode.train(0)
    assert set(batch.x.unique().tolist()) == {-1.0, 1.0}
    pattern = ((batch.x > 0) * torch.tensor([1, 2, 4])).sum(-1)
    assert batch.y is not None
    assert torch.equal(batch.y.argmax(-1), episode.answers.gather(1, pattern))
    noisy = episodes(Boolean(3, "all", noise_sd=0.1)).train(0).x
    spread = (noisy - batch.x).std()
    assert float(spread) == pytest.approx(0.1, rel=0.15)  # 60 x 5 x 3 numbers: 2.4 % of standard error


def test_who_knows_the_truth_table_is_always_right_and_every_pattern_counts_the_same():
    episode = episodes(Boolean(2, "non_separable"))

    def known(x):
        answer = episode.answers.gather(1, ((x > 0) * torch.tensor([1, 2])).sum(-1))
        return 50.0 * torch.eye(2, dtype=x.dtype)[answer]

    found = episode.score(answering(known), {})
    assert found["accuracy"].tolist() == [1.0] * RUNS
    one_sided = episode.score(answering(lambda x: torch.stack((x[..., 0], -x[..., 0]), -1)), {})
    assert one_sided["accuracy"].tolist() == [0.5] * RUNS


# plane


def test_who_knows_the_centres_does_as_well_as_can_be_done():
    task = Plane(spread=0.4, test_size=400)
    episode = episodes(task)

    def posterior(x):
        squares = (x[:, :, None] - episode.centres[:, None]).square().sum(-1)
        likelihoods = -squares / (2 * task.spread**2)
        return torch.stack([torch.logsumexp(likelihoods[..., k :: task.outputs], -1) for k in range(task.outputs)], -1)

    best = episode.score(answering(posterior), {})
    assert float(best["accuracy"].mean()) > 0.8
    for other in (lambda x: 1.2 * posterior(x), lambda x: 0.8 * posterior(x), lambda x: 0 * posterior(x)):
        assert float(episode.score(answering(other), {})["held_out_loss"].mean()) > float(best["held_out_loss"].mean())


@pytest.mark.parametrize("outputs", [2, 3])
def test_conics_have_equally_frequent_classes_and_exact_boundaries(outputs):
    episode = episodes(Plane("conics", outputs, test_size=200))
    labels = torch.cat([episode.train(step).y for step in range(40)], 1).argmax(-1)
    for k in range(outputs):
        # 200 points, and levels from 512 points: standard deviation below .04
        assert ((labels == k).double().mean(1) - 1 / outputs).abs().max() < 0.16

    def known(x):
        a, b, c, d, e = episode.coefficients.T[..., None]
        first, second = x.unbind(-1)
        height = a * first + b * second + c * first**2 + d * first * second + e * second**2
        return 99.0 * torch.eye(outputs, dtype=x.dtype)[(height[..., None] > episode.levels[:, None]).sum(-1)]

    assert episode.score(answering(known), {})["accuracy"].tolist() == [1.0] * RUNS


@pytest.mark.parametrize("problem", ["clusters", "conics"])
def test_problems_of_the_plane_are_as_many_as_asked_for_and_fresh_where_held_out(problem):
    def drawn(task):
        episode = episodes(task)
        table = episode.centres.flatten(1) if problem == "clusters" else episode.coefficients
        return {tuple(row) for row in table.tolist()}, episode.train(0).x

    few, x = drawn(Plane(problem, problems=3))
    assert len(few) == 3
    assert len({tuple(row) for row in x.flatten(1).tolist()}) == RUNS  # the points are every episode's own
    assert drawn(Plane(problem, problems=5))[0] > few
    assert not drawn(Plane(problem, problems=3, shuffle=1))[0] & few
    fresh = drawn(Plane(problem, problems=3).held_out())[0]
    assert len(fresh) == RUNS
    assert not fresh & few


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Boolean(functions="seperable"), "did you mean 'separable'"),
        (lambda: Boolean(5), "task.inputs = 5 must lie between 2 and 4"),
        (lambda: Boolean(noise_sd=-0.1), "task.noise_sd = -0.1 must not be negative"),
        (lambda: Boolean(repeats=0), "task.repeats = 0 must be at least 1"),
        (lambda: Boolean(problems=7), "the search split has 1 to 6 separable functions of 2 inputs"),
        (lambda: Boolean(split="test"), "task.split"),
        (lambda: Plane("cluster"), "did you mean 'clusters'"),
        (lambda: Plane(outputs=1), "task.outputs = 1 must be at least 2"),
        (lambda: Plane(spread=0.0), "task.spread = 0.0 must be positive"),
        (lambda: Plane(problems=0), "task.problems = 0 must be at least 1"),
        (lambda: Plane(split="test"), "task.split"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_rewards_are_paid_for_the_right_answer():
    for task in (Boolean(), Plane()):
        batch = episodes(task).train(0)
        assert batch.reward is not None
        assert batch.y is not None
        assert torch.equal(batch.reward(batch.y), torch.ones(RUNS, 5, 1, dtype=torch.float64))
        assert math.isclose(float(batch.reward(1 - batch.y).abs().max()), 0.0)
