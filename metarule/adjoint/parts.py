"""A block in parts that fit into memory, and the outcomes of parts put together again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from metarule import tree
from metarule.adjoint.walk import Walk
from metarule.block import Address, Block, BlockOutcome, World
from metarule.fused.learners import plain, served
from metarule.learner import Columns, Learner

BUDGET = 64 << 20
"""Bytes that the runs which are walked together may take: eager torch wants many at a time."""

WORTH = 1 << 18
"""Products of a weight and an event in a step, over all runs walked together, from which on its calls are worth it."""

COPIES = 4
"""Times that what learns is there at once: as it was before, as it goes, its gradient, and that of a later score."""

INDICES = 32
"""Bytes of indices per event: of the rows of two tables, as a task draws them and as they are read."""


class Walker(NamedTuple):
    """What makes a walk of a world and its columns, `Walk.numbers` of such walks, and bytes that one may take.

    `round_trips`: whether `Walk.round_trip` of such a walk may be more than None.
    """

    made: Callable[[World, Columns], Walk]
    numbers: Callable[[Learner, int], int]
    budget: int = BUDGET
    round_trips: bool = False


class _Cut(NamedTuple):
    runs: int
    segments: int


def _cut(block: Block, walk: Walker, keep_weights: bool) -> _Cut:
    """How many runs at a time, in how many segments: more segments where too few runs would fit, at most sqrt(T)."""
    learner, steps = block.learner, len(block.steps)
    weights = sum(
        math.prod(learner.network.shape(p)) * (1 if plain(learner, p).momentum is None else 2)
        for p in served(learner).values()
    )
    root = max(math.isqrt(steps), 1)
    taped = walk.numbers(learner, block.batch) + keep_weights * weights
    wanted = min(len(block.addresses), math.ceil(WORTH / max(weights * block.batch, 1)))

    def fitting(segments: int) -> int:
        copies = COPIES + (segments if segments > 1 else 0)
        numbers = learner.weights_per_run + copies * weights + math.ceil(steps / segments) * taped
        return max(walk.budget // (numbers * block.dtype.itemsize), 1)

    segments = max(block.segments or 1, root if keep_weights else 1)
    while segments < root and fitting(segments) < wanted:
        segments = min(2 * segments, root)
    return _Cut(fitting(segments), segments)


def parts(block: Block, walk: Walker, keep_weights: bool) -> Iterator[Block]:
    """The block in parts that fit, each a block of its own."""
    runs, segments = _cut(block, walk, keep_weights)
    return _split(block._replace(segments=segments), runs)


def in_one(block: Block, walk: Walker) -> bool:
    """Whether a round trip may serve a block: the tape of one run fits, whatever is beside it."""
    taped = len(block.steps) * walk.numbers(block.learner, block.batch) * block.dtype.itemsize
    at_the_end = block.score_at == (block.steps.stop,) and "carry" not in block.wants
    return walk.round_trips and at_the_end and taped <= walk.budget


def round_trips(block: Block, walk: Walker) -> Iterator[Block]:
    """The block in parts whose first weights fit, and what they are shown; tapes are those of one run at a time."""
    shown = INDICES * len(block.steps) * block.batch
    taken = block.learner.weights_per_run * block.dtype.itemsize + shown
    return _split(block, max(walk.budget // taken, 1))


def _split(block: Block, runs: int) -> Iterator[Block]:
    if runs >= len(block.addresses):
        yield block
        return
    runs = math.ceil(len(block.addresses) / math.ceil(len(block.addresses) / runs))  # all parts about as large
    for first in range(0, len(block.addresses), runs):
        part = slice(first, first + runs)
        yield _of(block, block.addresses[part], part)


def only(block: Block, where: Bool[Tensor, "R"]) -> Block:
    """The runs of a block where it is True."""
    runs = where.nonzero()[:, 0]
    return _of(block, [block.addresses[run] for run in runs.tolist()], runs)


def _of(block: Block, addresses: list[Address], runs: slice | Tensor) -> Block:
    carry = None if block.carry is None else tree.selected(block.carry, runs)
    return block._replace(theta=block.theta[runs], addresses=addresses, carry=carry)


def chosen(where: Bool[Tensor, "R"], these: BlockOutcome, others: BlockOutcome) -> BlockOutcome:
    """An outcome of all runs, with `these` of the runs where it is True."""

    def choose(this: Tensor, other: Tensor) -> Tensor:
        return other.index_copy(0, where.nonzero()[:, 0], this)

    assert these.grad is not None
    assert others.grad is not None
    carry = None
    if these.carry is not None and others.carry is not None:
        pairs = zip(tree.leaves(these.carry), tree.leaves(others.carry), strict=True)
        carry = tree.rebuilt(these.carry, [choose(*pair) for pair in pairs])
    scores = {name: choose(value, others.scores[name]) for name, value in these.scores.items()}
    return others._replace(scores=scores, grad=choose(these.grad, others.grad), carry=carry)


def joined(parts: list[BlockOutcome]) -> BlockOutcome:
    """The outcome of all parts, in the order of their runs."""
    if len(parts) == 1:
        return parts[0]
    carries = [part.carry for part in parts if part.carry is not None]
    return parts[0]._replace(
        scores={name: torch.cat([part.scores[name] for part in parts]) for name in parts[0].scores},
        grad=torch.cat([part.grad for part in parts if part.grad is not None]),
        carry=tree.joined(carries) if carries else None,
    )
