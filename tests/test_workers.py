"""The pool: as many workers as one likes, one of them dead, and the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import Imitation, Job, doubled, fitting_learner, start_row

from metarule.credit.backprop import Backprop
from metarule.inner import Reference, Runs, in_turn
from metarule.workers import ATTEMPTS, pool


def mapped(map: Any, jobs: list[Job]) -> list[int]:
    return list(map(doubled, jobs))  # the pool's map is typed for blocks; it hands over whatever it is given


@pytest.fixture(scope="module")
def pair():
    with pool(2) as map:
        yield map


def test_one_worker_is_this_process():
    with pool(1) as map:
        assert map is in_turn


def test_blocks_give_the_same_bits_in_two_workers_as_in_turn(pair):
    learner = fitting_learner(Backprop())
    theta = torch.cat([start_row(learner) * factor for factor in (0.5, 1.0, 2.0)])

    def evaluated(map):
        engine = Reference(block_runs=2, map=map)
        return engine.evaluate(
            learner, theta, Imitation(), Runs((0, 1, 2), (0, 1, 2)), range(6), 3, frozenset({"loss", "grad"})
        )

    alone, shared = evaluated(in_turn), evaluated(pair)
    assert torch.equal(alone.loss, shared.loss)
    assert alone.grad is not None
    assert shared.grad is not None
    assert torch.equal(alone.grad, shared.grad)
    assert all(torch.equal(alone.scores[name], shared.scores[name]) for name in alone.scores)


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(pair, tmp_path):
    flag = tmp_path / "died"
    jobs = [Job(0), Job(1), Job(2, flag), Job(3)]
    assert mapped(pair, jobs) == [0, 2, 4, 6]
    assert flag.read_text() == "died\n"
    assert mapped(pair, jobs) == [0, 2, 4, 6]  # and the pool goes on


def test_a_block_that_always_kills_is_given_up_after_three_attempts(pair, tmp_path):
    flag = tmp_path / "died"
    with pytest.raises((ValueError, RuntimeError), match=f"killed its worker {ATTEMPTS} times"):
        mapped(pair, [Job(0, flag, once=False)])
    assert flag.read_text() == "died\n" * ATTEMPTS
