"""One block of runs, trained and scored: the reference engine's work, a pure function of plain data."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as forward_ad
from jaxtyping import Float
from torch import Tensor

from metarule import tree
from metarule.lazy_weight import LazyWeight, Parts, written
from metarule.learner import Columns, Learner
from metarule.rng import Noise, noise_for
from metarule.signals import Batch, State
from metarule.tasks import Task
from metarule.tasks.base import Episode

Address = tuple[int, int]
"""(candidate, episode): what a run is called wherever randomness is asked for."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Snapshots every `every` steps, before the step's update, each (R S ...), S snapshots; `steps` (S) says when."""

    steps: tuple[int, ...]
    series: dict[str, Tensor]


LARGE = 4096
"""Weights of a projection from which on its gradient is kept in factors; below, a step is more calls than memory."""
SEEN, REACH = 2, 8
"""That is for batches of few events, and for so many events at a time."""


class Block(NamedTuple):
    """A slice of the population with all it needs: a pure function of plain data, wherever it is computed."""

    learner: Learner
    theta: Float[Tensor, "R P"]
    task: Task
    addresses: list[Address]
    seed: int
    steps: range
    batch: int
    wants: frozenset[str]
    objectives: tuple[str, ...]
    score_at: tuple[int, ...]
    record: int | None
    carry: State | None
    dtype: torch.dtype
    segments: int | None
    engine: str = "reference"


class BlockOutcome(NamedTuple):
    """`Outcome` of one block, by runs, and the engine that computed it."""

    scores: dict[str, Float[Tensor, "R"]]
    grad: Float[Tensor, "R P"] | None
    carry: State | None
    record: Recording | None
    engine: str = "reference"


def run_block(block: Block) -> BlockOutcome:
    """Train and score one block of runs."""
    world = World(block)
    theta = block.theta.clone()
    if "grad" in block.wants:
        return _pushed_forward(world, theta) if "forward" in block.wants else _differentiated(world, theta)
    with torch.no_grad():
        state, total = _walked(world, block.learner.columns(theta), in_place=True)
    return world.outcome(state, total)


def _walked(world: World, columns: Columns, in_place: bool, record: bool = True) -> tuple[State, dict[str, Tensor]]:
    """All steps of a block, and the sums of its scores on the way."""
    state = world.start(columns)
    state = _owned(state) if in_place else state
    advance = functools.partial(world.advance, columns, in_place=in_place, record=record)
    return world.scored(columns, state, world.block.steps, advance)


def _pushed_forward(world: World, theta: Float[Tensor, "R P"]) -> BlockOutcome:
    """A pass per parameter with a tangent beside the state: memory that does not grow with the steps, P passes."""
    block = world.block
    leading = block.objectives[0]
    sign = -1.0 if block.task.metrics[leading] == "max" else 1.0
    gradient = torch.zeros_like(theta)
    total: dict[str, Tensor] = {}
    state: State = {}
    for place in range(theta.shape[1]):
        tangent = torch.zeros_like(theta)
        tangent[:, place] = 1.0
        with torch.no_grad(), forward_ad.dual_level():
            columns = block.learner.columns(forward_ad.make_dual(theta, tangent))
            state, total = _walked(world, columns, in_place=False, record=place == 0)
            moved = forward_ad.unpack_dual(total[leading]).tangent
            state = tree.mapped(state, torch.Tensor.detach)
            total = {name: value.detach() for name, value in total.items()}
        if moved is not None:
            gradient[:, place] = sign * moved / len(block.score_at)
    return world.outcome(state, total, gradient)


class _Piece(NamedTuple):
    """Some steps with their graph: from which leaves they began, and what became of them."""

    row: Float[Tensor, "R P"]
    inputs: list[Tensor]
    weights: dict[int, Parts]  # place among the inputs -> a weight whose gradient comes in pairs
    end: State
    scores: dict[str, Tensor]
    moving: list[bool]  # which leaves of `end` depend on theta


def _differentiated(world: World, theta: Float[Tensor, "R P"]) -> BlockOutcome:
    """Forward in segments without a graph, backward segment by segment: memory of one segment, time of two passes."""
    block = world.block
    segments = block.segments or round(math.sqrt(len(block.steps)))
    spans = _spans(block.steps, segments=segments)
    born = [
        leaf.requires_grad for leaf in tree.leaves(world.start(block.learner.columns(theta.clone().requires_grad_())))
    ]
    with torch.no_grad():
        columns = block.learner.columns(theta)
        states, moving = [world.start(columns)], [born]
        for first, last in spans[:-1]:
            states.append(world.advance(columns, states[-1], range(first, last), in_place=False, record=False))
            moving.append(_moved(moving[-1], states[-2], states[-1]))
    total: dict[str, Tensor] = {}
    gradient = torch.zeros_like(theta)
    cotangents: list[Tensor] = []
    final: State = {}
    for place in reversed(range(len(spans))):
        # theta may enter the state through init, so the beginning is made anew
        pieces = _pieces(world, theta, states[place] if place else None, moving[place], range(*spans[place]))
        final = final or tree.mapped(pieces[-1].end, torch.Tensor.detach)
        for piece in reversed(pieces):
            total = total | _summed(total, {name: value.detach() for name, value in piece.scores.items()})
            found, cotangents = _pulled_back(block, piece, cotangents)
            gradient = gradient + found
    return world.outcome(final, total, gradient)


def _pieces(world: World, theta: Tensor, state: State | None, moving: list[bool], steps: range) -> list[_Piece]:
    """A segment with its graph, cut into pieces between which the state is written out."""
    block = world.block
    # a weight of which few events see much is cheaper as what was added to it
    lazy = [
        name
        for name, (size_out, size_in) in world.shapes.items()
        if block.batch <= SEEN and size_out * size_in >= LARGE
    ]
    pieces = []
    for first, last in _spans(steps, segments=math.ceil(len(steps) * block.batch / REACH) if lazy else 1):
        row = theta.clone().requires_grad_()
        columns = block.learner.columns(row)
        begin = world.start(columns) if state is None else _live(state, moving)
        inputs = (
            [] if state is None else [leaf for leaf, moves in zip(tree.leaves(begin), moving, strict=True) if moves]
        )
        parts = {name: _parts(begin["weights"][name], inputs) for name in lazy}
        weights = begin["weights"] | {name: LazyWeight.of(part) for name, part in parts.items()}
        advance = functools.partial(world.advance, columns, in_place=False)
        end, scores = world.scored(columns, {**begin, "weights": weights}, range(first, last), advance)
        end = {**end, "weights": {name: written(weight) for name, weight in end["weights"].items()}}
        moving = _moved(moving, begin, end)
        places = {place: part for part in parts.values() for place, leaf in enumerate(inputs) if leaf is part.base}
        pieces.append(_Piece(row, inputs, places, end, scores, moving))
        state = end
    return pieces


def _parts(weight: Tensor, inputs: list[Tensor]) -> Parts:
    wanted = any(leaf is weight for leaf in inputs)
    return Parts(weight, torch.zeros((), dtype=weight.dtype, requires_grad=True) if wanted else None)


def _pulled_back(block: Block, piece: _Piece, cotangents: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The gradients of a piece in theta and in what it began from, given those of what it ended in."""
    outputs, seeds = [], []
    if cotangents:
        outputs = [leaf for leaf, moves in zip(tree.leaves(piece.end), piece.moving, strict=True) if moves]
        seeds = cotangents
    if piece.scores:
        objective = piece.scores[block.objectives[0]] / len(block.score_at)
        outputs = [*outputs, -objective if block.task.metrics[block.objectives[0]] == "max" else objective]
        seeds = [*seeds, torch.ones_like(objective)]
    pairs = [(output, seed) for output, seed in zip(outputs, seeds, strict=True) if output.requires_grad]
    if not pairs:  # nothing here depends on theta
        return torch.zeros_like(piece.row), [torch.zeros_like(leaf) for leaf in piece.inputs]
    tokens = [part.token for part in piece.weights.values() if part.token is not None]
    found = torch.autograd.grad(
        [output for output, _ in pairs],
        [piece.row, *piece.inputs, *tokens],
        [seed for _, seed in pairs],
        materialize_grads=True,
    )
    back = list(found[1 : 1 + len(piece.inputs)])
    for place, part in piece.weights.items():
        back[place] = part.gradient(back[place])
    return found[0], back


def _moved(before: list[bool], begin: State, end: State) -> list[bool]:
    """Which leaves a gradient has to cross: what theta enters by init, and what was ever replaced."""
    flat = zip(before, tree.leaves(begin), tree.leaves(end), strict=True)
    return [new.is_floating_point() and (moves or old is not new) for moves, old, new in flat]


def _live(state: State, moving: list[bool]) -> State:
    flat = zip(tree.leaves(state), moving, strict=True)
    return tree.rebuilt(state, [leaf.detach().requires_grad_() if moves else leaf for leaf, moves in flat])


def _owned(state: State) -> State:
    """A state whose weights nothing else refers to, so that they may be overwritten."""
    return {**state, "weights": {name: weight.clone() for name, weight in state["weights"].items()}}


def _apart(state: State, weights: Iterable[Tensor]) -> State:
    """A state without the very weights that are about to be overwritten: a part that kept one gets a copy."""
    if not state:
        return state
    shared = {weight.data_ptr() for weight in weights}
    return tree.mapped(state, lambda leaf: leaf.clone() if leaf.data_ptr() in shared else leaf)


class World:
    """One block at work: its episode, its noise, and its recording, the only thing that it remembers."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.learner = block.learner
        self.episode_noise = _noise(block, "episode")
        self.episode: Episode = block.task.sample(self.episode_noise.at("data"), block.batch)
        self.frozen = block.task.frozen(block.learner.network)
        self.snapshots: list[dict[str, Tensor]] = []
        self.snapshot_steps: list[int] = []
        self.shapes = {p.name: block.learner.network.shape(p) for p in block.learner.plastic}

    @functools.cached_property
    def run_noise(self) -> Noise:
        """The noise of exploration; many learners have none."""
        return _noise(self.block, "run")

    def start(self, columns: Columns) -> State:
        """The state before the first step."""
        if self.block.carry is not None:
            return self.block.carry
        return self.learner.init(columns, self.episode_noise)

    def advance(self, columns: Columns, state: State, steps: range, in_place: bool, record: bool = True) -> State:
        """The state after `steps`; with `in_place` the weights of `state` are overwritten."""
        learner, network, credit = self.learner, self.learner.network, self.learner.credit
        weights, credit_state = dict(state["weights"]), state["credit"]
        rule_states, synapse_states = dict(state["rules"]), dict(state["synapses"])
        rule_keys = {p.name: learner.rule_key(p) or "" for p in learner.plastic}
        synapse_keys = {p.name: learner.synapse_key(p) or "" for p in learner.plastic}
        for step in steps:
            batch = self.episode.train(step)
            rates = learner.rates(step, self.frozen)
            noise = self.run_noise.at(step)
            wanted = {name: reads for name, reads in learner.wanted.items() if rates[name] != 0.0}
            if record and self.block.record and step % self.block.record == 0:
                self._snapshot(step, columns, weights, credit_state, batch)
            for k in range(credit.stages(network, batch)):
                signals, credit_state = credit.stage(
                    k, columns.credit, network, weights, credit_state, batch, step, noise.at("credit", k), wanted
                )
                if in_place:
                    credit_state = _apart(credit_state, weights.values())
                for name, seen in signals.items():
                    if name not in wanted:
                        continue
                    rule_key, synapse_key = rule_keys[name], synapse_keys[name]
                    change, rule_states[name] = learner.rules[rule_key].delta(
                        columns.rules[rule_key], seen, rule_states[name], noise.at("rule", name, k)
                    )
                    change, synapse_states[name] = learner.synapses[synapse_key].step(
                        columns.synapses[synapse_key], weights[name], change, rates[name], synapse_states[name],
                        noise.at("synapse", name, k),
                    )  # fmt: skip
                    if in_place:
                        rule_states[name] = _apart(rule_states[name], (weights[name],))
                        synapse_states[name] = _apart(synapse_states[name], (weights[name],))
                    weights[name] = change.apply(weights[name], in_place)
        return {"weights": weights, "credit": credit_state, "rules": rule_states, "synapses": synapse_states}

    def scored(
        self,
        columns: Columns,
        state: State,
        steps: range,
        advance: Callable[[State, range], State],
        score: Callable[[Columns, State], dict[str, Tensor]] | None = None,
    ) -> tuple[State, dict[str, Tensor]]:
        """The state after `steps`, and the sums of every metric over those after which the block is scored.

        `advance` and `score` are this world's own, or what comes to the same.
        """
        total: dict[str, Tensor] = {}
        for first, last in _spans(steps, self.block.score_at):
            state = advance(state, range(first, last))
            if last in self.block.score_at:
                total = _summed(total, (score or self.score)(columns, state))
        return state, total

    def score(self, columns: Columns, state: State) -> dict[str, Tensor]:
        """Every metric of the task, (R) each."""
        credit, network = self.learner.credit, self.learner.network

        def respond(x: Tensor):
            noise = self.run_noise.at("respond")
            return credit.respond(columns.credit, network, state["weights"], state["credit"], x, noise)

        return self.episode.score(respond, state["weights"])

    def _snapshot(self, step: int, columns: Columns, weights: State, credit_state: State, batch: Batch) -> None:
        with torch.no_grad():
            network, credit = self.learner.network, self.learner.credit
            activity = credit.respond(
                columns.credit, network, weights, credit_state, batch.x, self.run_noise.at("record")
            )
        snapshot = {f"weights/{name}": weight.detach().clone() for name, weight in weights.items()}
        snapshot |= {f"activity/{name}": rate.detach() for name, rate in activity.rates.items()}
        snapshot["input"] = batch.x
        if batch.y is not None:
            snapshot["target"] = batch.y
        self.snapshots.append(snapshot)
        self.snapshot_steps.append(step)

    def outcome(self, state: State, total: dict[str, Tensor], grad: Tensor | None = None) -> BlockOutcome:
        """What the block comes to, from its last state and the sums of its scores."""
        return BlockOutcome(_mean(total, self.block), grad, _kept(state, self.block), self.recording())

    def recording(self) -> Recording | None:
        """All snapshots so far, stacked."""
        if not self.snapshots:
            return None
        # segments are walked backwards where a gradient is wanted
        order = sorted(range(len(self.snapshots)), key=self.snapshot_steps.__getitem__)
        shots = [self.snapshots[place] for place in order]
        series = {name: torch.stack([shot[name] for shot in shots], dim=1) for name in shots[0]}
        return Recording(tuple(self.snapshot_steps[place] for place in order), series)


def _noise(block: Block, kind: str) -> Noise:
    addresses = [
        (block.seed, kind, episode) if kind == "episode" else (block.seed, kind, candidate, episode)
        for candidate, episode in block.addresses
    ]
    return noise_for(addresses, block.dtype)


def _spans(steps: range, score_at: tuple[int, ...] = (), segments: int = 1) -> list[tuple[int, int]]:
    """`steps` cut at every scoring point, and into at least `segments` parts."""
    length = math.ceil(len(steps) / segments)
    cuts = {*range(steps.start, steps.stop, max(length, 1)), *score_at, steps.stop}
    return list(itertools.pairwise(sorted(cut for cut in cuts if steps.start <= cut <= steps.stop)))


def _kept(state: State, block: Block) -> State | None:
    return tree.mapped(state, torch.Tensor.detach) if "carry" in block.wants else None


def _summed(total: dict[str, Tensor], scores: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: total[name] + value if name in total else value for name, value in scores.items()}


def _mean(total: dict[str, Tensor], block: Block) -> dict[str, Tensor]:
    return {name: value.detach().to(torch.float64) / len(block.score_at) for name, value in total.items()}
