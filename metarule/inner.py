"""The inner loop: C candidates x E episodes = R learners in lockstep, and what their losses and gradients are."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarule import tree
from metarule.adjoint.eager import run_adjoint
from metarule.adjoint.fused import run_fused_adjoint
from metarule.block import Address, Block, BlockOutcome, Recording, run_block
from metarule.collect import unknown
from metarule.fused.learners import refused
from metarule.fused.library import reason
from metarule.fused.run import run_fused
from metarule.signals import State
from metarule.tasks import Task


class Runs(NamedTuple):
    """The addresses of a population: they survive blocks, groups and pruning.

    Data, initial and feedback weights belong to (seed, "episode", e), shared by the candidates tried on it; noise of
    exploration belongs to (seed, "run", c, e).
    """

    candidates: tuple[int, ...]
    episodes: tuple[int, ...]
    seed: int = 0

    @property
    def addresses(self) -> list[Address]:
        """All runs, candidate-major."""
        return [(candidate, episode) for candidate in self.candidates for episode in self.episodes]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the candidates.

    `loss` (C E M), mean over `score_at`; +inf where a run diverged. `scores` holds every metric of the task (C E).
    `grad` (C P) of objective 0, the mean over episodes of per-run gradients, nan where a run diverged.
    `carry` is the state after `steps`, detached. `record` where asked for. `engine` says what computed it.
    """

    loss: Float[Tensor, "C E M"]
    scores: dict[str, Float[Tensor, "C E"]]
    steps: range
    grad: Float[Tensor, "C P"] | None = None
    carry: State | None = None
    record: Recording | None = None
    engine: str = "reference"


Job = TypeVar("Job")
Result = TypeVar("Result")


class Arrived(Protocol):
    """Who hears of each result, by the place of its job, the moment that it is there."""

    def __call__(self, place: int, result: Any, /) -> object: ...


def unheard(place: int, result: Any, /) -> None:
    """Nobody."""


class Map(Protocol):
    """A function applied to every job wherever it is computed; jobs and results are plain data.

    Results come back in the order of the jobs; `arrived` hears of each in this process, once, in whatever order they
    are finished.
    """

    def __call__(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], /, arrived: Arrived = unheard
    ) -> Iterable[Result]: ...


class Group(NamedTuple):
    """Candidates of one learner, their addresses and the state that they go on from."""

    learner: Any
    theta: Float[Tensor, "C P"]
    runs: Runs
    carry: State | None = None


class Inner(ABC):
    """The engine behind one call; all engines equal the reference."""

    name: ClassVar[str]

    def can(self, learner: Any, wants: frozenset[str] = frozenset({"loss"}), record: int | None = None) -> str | None:
        """Why the engine cannot do what it is asked, a sentence without its end; None where it can."""
        return None

    @abstractmethod
    def evaluate(
        self,
        learner: Any,
        theta: Float[Tensor, "C P"],
        task: Task,
        runs: Runs,
        steps: range,
        batch: int = 1,
        wants: frozenset[str] = frozenset({"loss"}),
        objectives: tuple[str, ...] = (),
        score_at: tuple[int, ...] = (),
        record: int | None = None,
        carry: State | None = None,
    ) -> Outcome:
        """Train every candidate on every episode for `steps` and score it.

        `learner` is a Learner, or what else the engine can train: the rows of theta are its `params`.
        `wants` of {"loss", "grad", "forward", "carry"}, "forward" beside "grad" for forward mode;
        `objectives` are metrics of the task (default its loss; those that are better when larger count negatively);
        `score_at` numbers of steps done after which to score (default the end); `record` every so many
        steps; `carry` the state to go on from. Raises ValueError on a mismatch of these.
        """

    def evaluate_each(self, groups: Sequence[Group], task: Task, steps: range, **settings: Any) -> list[Outcome]:
        """`evaluate` of several learners with the same settings, side by side where the engine spreads its work."""
        return [
            self.evaluate(group.learner, group.theta, task, group.runs, steps, carry=group.carry, **settings)
            for group in groups
        ]


def in_turn(function: Callable[[Job], Result], jobs: Sequence[Job], /, arrived: Arrived = unheard) -> Iterator[Result]:
    """The map of a single process."""
    for place, job in enumerate(jobs):
        result = function(job)
        arrived(place, result)
        yield result


@dataclass(frozen=True, eq=False)
class InBlocks(Inner):
    """An engine that cuts the population into blocks.

    `block_runs` runs are computed together; with `wants` "grad", `segments` > 1 stores only the state between
    segments and computes each twice (Griewank and Walther, 2000); None leaves their number to the engine. `map` may
    spread blocks over processes.
    """

    block_runs: int | None = None
    dtype: torch.dtype = torch.float32
    segments: int | None = 1
    map: Map = field(default=in_turn)

    def evaluate(
        self,
        learner,
        theta,
        task,
        runs,
        steps,
        batch=1,
        wants=frozenset({"loss"}),
        objectives=(),
        score_at=(),
        record=None,
        carry=None,
    ):
        (outcome,) = self.evaluate_each(
            [Group(learner, theta, runs, carry)], task, steps, batch=batch, wants=wants, objectives=objectives,
            score_at=score_at, record=record,
        )  # fmt: skip
        return outcome

    def evaluate_each(self, groups, task, steps, **settings):
        split = [self._split(group, task, steps, **settings) for group in groups]
        outcomes = iter(list(self.map(run, [block for _, blocks in split for block in blocks])))
        return [gathered(list(itertools.islice(outcomes, len(blocks))), asked) for asked, blocks in split]

    def check(self, learner: Any, wants: frozenset[str], record: int | None) -> None:
        """Raises ValueError, with the sentence of `can`, where the engine cannot do what it is asked."""
        why = self.can(learner, wants, record)
        if why:
            raise ValueError(f"inner.engine = '{self.name}' cannot do this: {why}; take 'auto', or 'reference'")

    @abstractmethod
    def serving(self, learner: Any, wants: frozenset[str], record: int | None) -> str:
        """The key of `RUN` that computes a learner's blocks; raises ValueError where the engine cannot."""

    def _split(
        self,
        group: Group,
        task: Task,
        steps: range,
        batch: int = 1,
        wants: frozenset[str] = frozenset({"loss"}),
        objectives: tuple[str, ...] = (),
        score_at: tuple[int, ...] = (),
        record: int | None = None,
    ) -> tuple[Question, list[Block]]:
        """What a group is asked, and its blocks."""
        learner, theta, runs, carry = group
        asked = question(theta, task, runs, steps, objectives, score_at)
        addresses = runs.addresses
        rows = theta.to(self.dtype).repeat_interleave(len(runs.episodes), dim=0)
        size = self.block_runs or len(addresses)
        serving = self.serving(learner, wants, record)

        def part(first: int) -> State | None:
            if carry is None or size >= len(addresses):
                return carry  # a block overwrites nothing that it is handed
            return tree.selected(carry, slice(first, first + size))

        return asked, [
            Block(
                learner, rows[first : first + size], task, addresses[first : first + size], runs.seed, steps, batch,
                wants, asked.objectives, asked.score_at, record, part(first),
                self.dtype, self.segments, serving,
            )
            for first in range(0, len(addresses), size)
        ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reference(InBlocks):
    """Eager torch, in place where no gradient is asked for; what all other engines must equal."""

    name = "reference"

    def serving(self, learner, wants, record):
        return Reference.name


FUSED_ADJOINT = "fused adjoint"
"""What computes gradients where the fused engine is asked for them."""


@dataclass(frozen=True, eq=False)
class Fused(InBlocks):
    """Compiled code, one run at a time through all its steps with its weights in cache.

    For rules that are lists of terms, explicit errors and plain synapse models on chains of layers, where nothing is
    recorded; and where there is a kernel, or a compiler to build it. Gradients are computed backwards, as by `Adjoint`.
    Runs are spread over as many threads as torch has.
    """

    name = "fused"

    def can(self, learner, wants=frozenset({"loss"}), record=None):
        if "forward" in wants:
            return "its gradients are computed backwards"
        if record is not None:
            return "it records nothing"
        return refused(learner) or reason()

    def serving(self, learner, wants, record):
        self.check(learner, wants, record)
        return FUSED_ADJOINT if "grad" in wants else Fused.name


@dataclass(frozen=True, eq=False)
class Adjoint(InBlocks):
    """The gradient of the reference engine by a hand-written walk back, weights rebuilt: less time, little memory.

    For rules that are lists of terms, explicit errors and plain synapse models on chains of layers; what is asked for
    without a gradient is the reference's own work.
    """

    name = "adjoint"

    def can(self, learner, wants=frozenset({"loss"}), record=None):
        if "grad" not in wants:
            return None
        if "forward" in wants:
            return "its gradients are computed backwards"
        if record is not None:
            return "it records nothing beside a gradient"
        return refused(learner)

    def serving(self, learner, wants, record):
        self.check(learner, wants, record)
        return Adjoint.name if "grad" in wants else Reference.name


@dataclass(frozen=True, eq=False)
class Fastest(InBlocks):
    """Each learner by the fused engine or the adjoint where they can, by the reference elsewhere."""

    name = "auto"

    def serving(self, learner, wants, record):
        for engine in (Fused(), Adjoint()):
            if engine.can(learner, wants, record) is None:
                return engine.serving(learner, wants, record)
        return Reference.name


RUN: dict[str, Callable[[Block], BlockOutcome]] = {
    Reference.name: run_block,
    Fused.name: run_fused,
    Adjoint.name: run_adjoint,
    FUSED_ADJOINT: run_fused_adjoint,
}
"""Engine of a block -> the function that computes it."""

ADJOINTS = frozenset({Adjoint.name, FUSED_ADJOINT})
"""Those that go back by hand, as many runs at a time as fit into a fixed share of memory."""


def run(block: Block) -> BlockOutcome:
    """A block by its engine."""
    return RUN[block.engine](block)


class Question(NamedTuple):
    """What every engine is asked of a task, checked and with its defaults filled in."""

    task: Task
    runs: Runs
    steps: range
    objectives: tuple[str, ...]
    score_at: tuple[int, ...]


def question(
    theta: Tensor, task: Task, runs: Runs, steps: range, objectives: tuple[str, ...], score_at: tuple[int, ...]
) -> Question:
    """The arguments of `Inner.evaluate` that need no engine; raises ValueError where they do not fit together."""
    if len(theta) != len(runs.candidates):
        raise ValueError(f"theta has {len(theta)} rows for {len(runs.candidates)} candidates")
    objectives = objectives or (next(iter(task.metrics)),)
    for name in objectives:
        if name not in task.metrics:
            raise ValueError(unknown("search.objective", name, task.metrics))
    if not steps:
        raise ValueError(f"steps = {steps} is empty; train for at least one step")
    score_at = score_at or (steps.stop,)
    if not all(steps.start < point <= steps.stop for point in score_at):
        raise ValueError(f"score_at = {score_at} lies outside steps {steps.start + 1} to {steps.stop}")
    return Question(task, runs, steps, objectives, score_at)


def gathered(parts: list[BlockOutcome], asked: Question) -> Outcome:
    """The outcome of all blocks, in the order of their runs; where a run diverged its loss is +inf."""
    task, runs, steps, objectives, _ = asked
    shape = (len(runs.candidates), len(runs.episodes))
    scores = {name: _joined([part.scores[name] for part in parts]) for name in parts[0].scores}
    grads = [part.grad for part in parts if part.grad is not None]
    rows = _joined(grads).to(torch.float64) if grads else None
    loss = torch.stack([-scores[name] if task.metrics[name] == "max" else scores[name] for name in objectives], dim=-1)
    leading = scores[next(iter(task.metrics))]
    if not math.isfinite(leading.sum()):  # one number says that none of them diverged
        failed = ~torch.isfinite(leading)
        loss = loss.masked_fill(failed[:, None], math.inf)
        # a diverged run answers nothing: its accuracy is 0
        lost = {"min": math.inf, "max": 0.0}
        scores = {name: value.masked_fill(failed, lost[task.metrics[name]]) for name, value in scores.items()}
        rows = None if rows is None else rows.masked_fill(failed[:, None], math.nan)
    carries = [part.carry for part in parts if part.carry is not None]
    records = [part.record for part in parts if part.record is not None]
    record = None
    if records:
        series = {name: torch.cat([each.series[name] for each in records]) for name in records[0].series}
        record = Recording(records[0].steps, series)
    engine = ", ".join(dict.fromkeys(part.engine for part in parts))
    return Outcome(
        loss.reshape(*shape, len(objectives)),
        {name: value.reshape(shape) for name, value in scores.items()},
        steps,
        None if rows is None else rows.reshape(*shape, -1).mean(1),
        tree.joined(carries) if carries else None,
        record,
        engine,
    )


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


ENGINES: dict[str, Callable[[int | None, torch.dtype, int | None, Map], Inner]] = {
    engine.name: engine for engine in (Fastest, Reference, Fused, Adjoint)
}
"""Engines by name, made from (block_runs, dtype, segments, map)."""
