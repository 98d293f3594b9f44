"""One block of runs with the gradient of its objective, by a walk there and back; memory of a few runs at a time.

Autograd does what is no step: from theta to coefficients, rates and initial weights, and from weights to scores. Where
weights can be rebuilt on the way back the tape is of low rank: activities and errors, never a weight. Runs whose
weights do not come home, as strong decay has lost them in rounding, are walked again with their weights kept. Where a
walk can make a round trip, it does the scores too, and nothing of a run is left but numbers.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarule import tree
from metarule.adjoint.parts import Walker, chosen, in_one, joined, only, parts, round_trips
from metarule.adjoint.walk import Cotangents, Walk, rebuildable, shrinking
from metarule.block import Block, BlockOutcome, World
from metarule.fused.learners import listed, rate, served
from metarule.learner import Columns
from metarule.signals import State

GROWTH = 32.0
"""How much rounding errors may grow by undoing decay, of about one unit without; beyond, weights are kept at once."""

HOME = 256.0
"""Units of rounding, of their norm, by which the weights of a projection may miss their beginning."""


def pulled(block: Block, walk: Walker) -> BlockOutcome:
    """Train, score and differentiate one block of runs, which `fused.learners.refused` has nothing against."""
    if not rebuildable(block.learner):
        return _keeping(block, walk)
    if not in_one(block, walk):
        return _rebuilding(block, walk)
    return joined([_rebuilt(part, walk, _round_trip) for part in round_trips(block, walk)])


def _keeping(block: Block, walk: Walker) -> BlockOutcome:
    return joined([_through(part, walk, keep_weights=True)[0] for part in parts(block, walk, keep_weights=True)])


def _rebuilding(block: Block, walk: Walker) -> BlockOutcome:
    return joined([_rebuilt(part, walk, _through) for part in parts(block, walk, keep_weights=False)])


Through = Callable[[Block, Walker], tuple[BlockOutcome, Bool[Tensor, "R"]] | None]
"""All steps of a few runs there and back, and which of them did not come home; None where it cannot be done so."""


def _rebuilt(block: Block, walk: Walker, through: Through) -> BlockOutcome:
    """The runs of one part. Which run is walked again says its own decay and path: its neighbours keep their bits."""
    lost = _fading(block)
    if lost.all():
        return _keeping(block, walk)
    found = through(block, walk)
    if found is None:
        return _rebuilding(block, walk)
    outcome, astray = found
    lost = lost | astray
    return chosen(lost, _keeping(only(block, lost), walk), outcome) if lost.any() else outcome


def _fading(block: Block) -> Bool[Tensor, "R"]:
    """Runs whose weights decay so much that undoing it would not bring them back."""
    learner, frozen = block.learner, block.task.frozen(block.learner.network)
    columns = learner.columns(block.theta)
    fading = block.theta.new_zeros(len(block.theta), dtype=torch.bool)
    for name, projection in served(learner).items():
        lost = shrinking(learner, projection, columns) * rate(learner, projection, columns)
        if lost.any():
            scheduled = lost.new_tensor([learner.rates(step, frozen)[name] for step in block.steps])
            growth = -(1 - lost[:, None] * scheduled).abs().log().sum(1) / (block.segments or 1)
            fading = fading | ~(growth <= math.log(GROWTH))
    return fading


class _Begun(NamedTuple):
    """A part before its first step; `columns` and `start` as made of `theta`, with autograd."""

    world: World
    theta: Tensor
    columns: Columns
    start: State
    walk: Walk


def _begun(block: Block, walker: Walker) -> _Begun:
    world, learner = World(block), block.learner
    theta = block.theta.detach().clone().requires_grad_()
    columns = learner.columns(theta)
    constant = Columns(columns.credit.detach(), _detached(columns.rules), _detached(columns.synapses))
    return _Begun(world, theta, columns, world.start(columns), walker.made(world, constant))


def _round_trip(block: Block, walker: Walker) -> tuple[BlockOutcome, Bool[Tensor, "R"]] | None:
    world, theta, columns, start, walk = _begun(block, walker)
    asked = frozenset(name for name in served(block.learner) if start["weights"][name].requires_grad)
    with torch.no_grad():
        found = walk.round_trip(_constant(start), _share(block), asked)
    if found is None:
        return None
    astray = [_astray(missed[:, 0].sqrt(), missed[:, 1].sqrt(), block.dtype) for missed in found.missed.values()]
    grad = _in_theta(world, theta, columns, start, found.gradient)
    return world.outcome({}, found.scores, grad), _any(astray, len(theta))


def _through(block: Block, walker: Walker, keep_weights: bool = False) -> tuple[BlockOutcome, Bool[Tensor, "R"]]:
    world, theta, columns, start, walk = _begun(block, walker)
    segments = _segments(block)
    # steps after the last score matter to the carry alone
    rest = range(segments[-1][-1].stop, block.steps.stop)
    astray = theta.new_zeros(len(theta), dtype=torch.bool)
    total: dict[str, Tensor] = {}
    with torch.no_grad():
        begun = [_constant(start)]
        for spans in segments[:-1]:
            begun.append(walk.there(_copied(begun[-1], world), _whole(spans), False)[0])
        end: State | None = None
        gradient: Cotangents | None = None
        for spans, before in zip(reversed(segments), reversed(begun), strict=True):
            state, tapes = _copied(before, world), []
            for span in spans:
                state, tape = walk.there(state, span, keep_weights)
                tapes.append(tape)
            if end is None and "carry" in block.wants:
                end, _ = walk.there(_copied(state, world), rest, False)
            for span in reversed(spans):
                if span.stop in block.score_at:
                    scores, found = _judged(world, columns, state)
                    total = {name: total[name] + value if total else value for name, value in scores.items()}
                    gradient = _joining(gradient, found, walk, state)
                assert gradient is not None
                state, gradient = walk.back(state, tapes.pop(), gradient)
            if not keep_weights:
                astray = astray | _away(world, state, before)
    assert gradient is not None
    outcome = world.outcome(end or {}, total, _in_theta(world, theta, columns, start, gradient))
    return outcome, astray


def _segments(block: Block) -> list[list[range]]:
    """The steps before the last score in segments, each cut at the scoring points."""
    length = math.ceil(len(block.steps) / (block.segments or 1))
    segments, stop = [], max(block.score_at)
    for first in range(block.steps.start, stop, length):
        last = min(first + length, stop)
        cuts = sorted({first, last, *(point for point in block.score_at if first < point < last)})
        segments.append([range(*pair) for pair in itertools.pairwise(cuts)])
    return segments


def _whole(spans: list[range]) -> range:
    return range(spans[0].start, spans[-1].stop)


def _detached(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: part.detach() for name, part in parts.items()}


def _constant(state: State) -> State:
    # weights in the order they were drawn in: a task may look at them by it
    return tree.mapped(state, torch.Tensor.detach) | {"weights": _detached(state["weights"])}


def _copied(state: State, world: World) -> State:
    """A state whose weights and velocities a walk may overwrite."""
    mine = served(world.learner)
    weights, synapses = dict(state["weights"]), dict(state["synapses"])
    for name in mine:
        weights[name] = weights[name].clone(memory_format=torch.contiguous_format)
        synapses[name] = tree.mapped(synapses[name], torch.clone)
    return {**state, "weights": weights, "synapses": synapses}


def _joining(gradient: Cotangents | None, found: dict[str, Tensor], walk: Walk, state: State) -> Cotangents:
    """The cotangents with those that a score's gradient adds; the first ones are it, and nothing else."""
    if gradient is not None:
        for name, more in found.items():
            gradient.weights[name].add_(more)
        return gradient
    mine = served(walk.world.learner)
    velocities = {name: state["synapses"][name].get("velocity") for name in mine}
    return walk.nothing()._replace(
        weights={name: _own(found.get(name), state["weights"][name]) for name in mine},
        velocities={name: torch.zeros_like(velocity) for name, velocity in velocities.items() if velocity is not None},
    )


def _own(found: Tensor | None, weight: Tensor) -> Tensor:
    # autograd may hand out one tensor twice, and a walk overwrites it
    return torch.zeros_like(weight) if found is None else found.clone(memory_format=torch.contiguous_format)


def _share(block: Block) -> float:
    """What the gradient of one score is multiplied by: runs descend, by the mean of all their scores."""
    return (-1.0 if block.task.metrics[block.objectives[0]] == "max" else 1.0) / len(block.score_at)


def _judged(world: World, columns: Columns, state: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Every metric, and the gradient of the objective in the weights that learn."""
    weights = {name: state["weights"][name].detach().requires_grad_() for name in served(world.learner)}
    with torch.enable_grad():
        scores = world.score(columns, {**state, "weights": {**state["weights"], **weights}})
    score = scores[world.block.objectives[0]]
    if not score.requires_grad:
        return scores, {}
    found = torch.autograd.grad(
        score, list(weights.values()), torch.full_like(score, _share(world.block)), materialize_grads=True
    )
    return {name: value.detach() for name, value in scores.items()}, dict(zip(weights, found, strict=True))


def _away(world: World, state: State, before: State) -> Bool[Tensor, "R"]:
    """Runs whose rebuilt weights, which are overwritten, are not those that they began with."""
    away = []
    for name in served(world.learner):
        weight = before["weights"][name]
        missed, norm = (
            torch.linalg.vector_norm(each, dim=(1, 2)) for each in (state["weights"][name].sub_(weight), weight)
        )
        away.append(_astray(missed, norm, weight.dtype))
    return _any(away, len(world.block.addresses))


def _astray(missed: Float[Tensor, "R"], norm: Float[Tensor, "R"], dtype: torch.dtype) -> Bool[Tensor, "R"]:
    """Whether weights miss by more than rounding; a diverged run is none of them."""
    return missed > HOME * torch.finfo(dtype).eps * norm


def _any(away: list[Bool[Tensor, "R"]], runs: int) -> Bool[Tensor, "R"]:
    return functools.reduce(torch.logical_or, away, torch.zeros(runs, dtype=torch.bool))


def _in_theta(world: World, theta: Tensor, columns: Columns, start: State, found: Cotangents) -> Tensor:
    """The gradient in theta, from those in all that is made of it."""
    learner = world.learner
    pairs = []
    for name, projection in served(learner).items():
        pairs += [
            (listed(learner, projection, columns).coefficients, found.coefficients[name]),
            (rate(learner, projection, columns), found.rates[name]),
        ]
        if name in found.weights:
            pairs.append((start["weights"][name], found.weights[name]))
        if name in found.velocities:
            pairs.append((start["synapses"][name]["velocity"], found.velocities[name]))
    pairs = [(made, seed) for made, seed in pairs if made.requires_grad]
    if not pairs:
        return torch.zeros_like(theta)
    made, seeds = zip(*pairs, strict=True)
    return torch.autograd.grad(made, theta, seeds, materialize_grads=True)[0].detach()
