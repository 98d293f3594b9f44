"""One block of runs in the fused engine: `block.run_block`, with the steps between two scores in compiled code."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarule import tree
from metarule.block import Block, BlockOutcome, World, run_block
from metarule.credit.feedback import target_of
from metarule.fused import layout
from metarule.fused.learners import stands
from metarule.fused.library import Library, Missing, library
from metarule.fused.plan import Spelled
from metarule.fused.threads import side_by_side
from metarule.learner import Columns, always_one
from metarule.network import Network
from metarule.signals import Batch, State
from metarule.tasks import scores
from metarule.tasks.base import Asked, Episode, Rows

AT_ONCE = 1 << 22
"""Indices, or numbers of batches that are no rows of a table, that are held at a time."""

NAME = "fused"

NO_MEMORY = "the fused kernel found no memory for a run; lower the layers' sizes or inner.batch"


def run_fused(block: Block) -> BlockOutcome:
    """Train and score one block of runs that `refused` has nothing against, wherever there is a kernel."""
    try:
        kernel = library()
    except Missing:  # this process is on another machine than the one that chose
        return run_block(block)
    with torch.no_grad(), threads_of_torch() as threads:
        world = World(block)
        columns = block.learner.columns(block.theta)
        training = Training(kernel._replace(threads=threads), world, columns)
        state, totals = world.scored(
            columns, world.start(columns), block.steps, training.advance, training.score if training.asked else None
        )
    return world.outcome(state, totals)._replace(engine=f"{NAME} ({kernel.variant})")


@contextlib.contextmanager
def threads_of_torch() -> Iterator[int]:
    """As many threads as torch has, which meanwhile gets along with one: its others would wait busily beside ours."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield count
    finally:
        torch.set_num_threads(count)


class Training:
    """The steps of a block, and its scores where an episode says what they ask."""

    def __init__(self, kernel: Library, world: World, columns: Columns) -> None:
        self.kernel, self.world, self.columns = kernel, world, columns
        self.asked = plain_asked(world)
        self.answers: Tensor | None = None  # log-likelihoods and whether they were right, (2 R Q)
        self.owns = False  # the state's weights are ours to overwrite
        self.forgets = self.asked is not None and "carry" not in world.block.wants

    def advance(self, state: State, steps: range) -> State:
        """The state after `steps`; its weights are those before where nobody reads them any more."""
        block = self.world.block
        for part in parts(self.world, steps):
            if part.steps.stop == steps.stop and steps.stop in block.score_at and self.asked:
                part = part._replace(forgets=self.forgets and steps.stop == block.steps.stop)
                part = part.answering(self.asked, block.dtype)
                self.answers = part.answers
            if not part.forgets and not self.owns:
                state, self.owns = owned(state, self.world), True
            spelled = Spelled(self.world.learner, self.columns, tree.mapped(state, torch.Tensor.contiguous))
            called(self.kernel.train, self.kernel, spelled, part)
        return state

    def score(self, columns: Columns, state: State) -> dict[str, Tensor]:
        """The scores of the answers to what was asked last."""
        assert self.answers is not None
        return scores.classified(*self.answers.mean(dim=-1))


def plain_asked(world: World) -> Asked | None:
    """What an episode asks, as the kernel reads it; None where the kernel cannot answer."""
    asked = world.episode.asked() if stands(world.episode, "asked", "score") else None
    if asked is None:
        return None
    network = world.learner.network
    return Asked(
        _plain_table(asked.x, network, network.input_name, world.block.dtype),
        _within_table(asked.rows, asked.x),
        _within(asked.answers, network.sizes[network.output_name], "units of the output"),
    )


class Part(NamedTuple):
    """Some steps, what they show, and what they leave for the way back."""

    steps: range
    rows: Rows
    schedules: dict[str, ctypes.Array]  # the multipliers of the rates at every step, by projection
    tape: Tensor | None = None
    keeps_weights: bool = False
    asked: Asked | None = None
    answers: Tensor | None = None  # (2 R Q): where log-likelihoods are written, and whether they were right
    forgets: bool = False
    share: float = 0.0  # of their loss in what a round trip differentiates

    def answering(self, asked: Asked, dtype: torch.dtype) -> Part:
        """The same steps with questions after them."""
        return self._replace(asked=asked, answers=torch.empty(2, *asked.rows.shape, dtype=dtype))

    @property
    def plan(self) -> dict[str, Any]:
        """The fields of `layout.Plan` that are data."""
        x, x_rows, y, y_rows = self.rows
        asked = {}
        if self.asked is not None and self.answers is not None:
            asked = {
                "asked": self.asked.rows.shape[1],
                "asked_x": self.asked.x.data_ptr(),
                "asked_rows": self.asked.rows.data_ptr(),
                "answers": self.asked.answers.data_ptr(),
                "likelihood": self.answers[0].data_ptr(),
                "right": self.answers[1].data_ptr(),
                "forgets": self.forgets,
                "share": self.share,
            }
        return asked | {
            "steps": len(self.steps),
            "events": x_rows.shape[2],
            "x": x.data_ptr(),
            "x_rows": x_rows.data_ptr(),
            "y": None if y is None else y.data_ptr(),
            "y_rows": None if y_rows is None else y_rows.data_ptr(),
            "tape": None if self.tape is None else self.tape.data_ptr(),
            "keeps_weights": self.keeps_weights,
        }


def parts(world: World, steps: range) -> Iterator[Part]:
    """The steps with their batches as rows of tables, some at a time."""
    taught = world.learner.credit.crossing != "nothing"
    for part, rows in _batches(world.episode, steps, world.block):
        if not taught:
            rows = rows._replace(y=None, y_rows=None)
        elif rows.y is None:
            target_of(Batch(rows.x))  # says what is missing
        yield Part(part, _plain_rows(rows, world.block), _schedules(world, part))


def called(function: Callable[..., int], kernel: Library, spelled: Spelled, part: Part) -> None:
    """One function of the kernel on all runs, spread over its threads."""
    plan = spelled.plan(part.schedules, part.plan)
    double = spelled.dtype == torch.float64

    def some(first: int, last: int) -> int:
        return function(ctypes.byref(plan), double, kernel.place, first, last)

    if any(side_by_side(some, spelled.runs, min(kernel.threads, spelled.runs))):
        raise MemoryError(NO_MEMORY)


def _schedules(world: World, steps: range) -> dict[str, ctypes.Array]:
    """The multipliers of the rates at every step, by projection."""
    learner = world.learner
    if learner.schedule is always_one:
        rates = learner.rates(steps.start, world.frozen)
        return {name: layout.repeated(rate, len(steps)) for name, rate in rates.items()}
    each = [learner.rates(step, world.frozen) for step in steps]
    return {p.name: layout.numbers(ctypes.c_double, [rates[p.name] for rates in each]) for p in learner.plastic}


def owned(state: State, world: World) -> State:
    """A state whose plastic weights and velocities nothing else refers to, all as the kernel reads them."""
    plastic = {projection.name for projection in world.learner.plastic}
    weights = {
        name: _copy(weight) if name in plastic else weight.contiguous() for name, weight in state["weights"].items()
    }
    return {**state, "weights": weights, "synapses": tree.mapped(state["synapses"], _copy)}


def _copy(values: Tensor) -> Tensor:
    return values.clone(memory_format=torch.contiguous_format)


def _batches(episode: Episode, steps: range, block: Block) -> Iterator[tuple[range, Rows]]:
    """The batches of all steps as rows of tables, some steps at a time."""
    per_step = len(block.addresses) * block.batch
    at_once = max(AT_ONCE // per_step, 1)
    for first in range(steps.start, steps.stop, at_once):
        part = range(first, min(first + at_once, steps.stop))
        rows = episode.rows(part) if stands(episode, "rows", "train") else None
        if rows is None:
            yield from _written(episode, part, block)
        else:
            yield part, rows


def _written(episode: Episode, steps: range, block: Block) -> Iterator[tuple[range, Rows]]:
    """Batches that are no rows of a table, written into one."""
    sizes = block.learner.network.sizes.values()
    at_once = max(AT_ONCE // (len(block.addresses) * block.batch * max(sizes)), 1)
    first = steps.start
    shown = []
    for step in steps:
        batch = episode.train(step)
        if shown and (len(shown) == at_once or batch.x.shape != shown[0].x.shape):
            yield range(first, step), _table(shown)
            first, shown = step, []
        shown.append(batch)
    yield range(first, steps.stop), _table(shown)


def _table(batches: list) -> Rows:
    def stacked(values: list[Tensor]) -> Tensor:
        return torch.stack(list(values), dim=1).flatten(0, 2)

    runs, events, _ = batches[0].x.shape
    rows = torch.arange(runs * len(batches) * events).reshape(runs, len(batches), events)
    y = None if batches[0].y is None else stacked([batch.y for batch in batches])
    return Rows(stacked([batch.x for batch in batches]), rows, y, None if y is None else rows)


def _plain_rows(rows: Rows, block: Block) -> Rows:
    network, y, y_rows = block.learner.network, rows.y, rows.y_rows
    x, x_rows = _plain_table(rows.x, network, network.input_name, block.dtype), _within_table(rows.x_rows, rows.x)
    if y is not None and y_rows is not None:
        seen = y_rows is rows.x_rows and y.shape[0] == x.shape[0]
        y = _plain_table(y, network, network.output_name, block.dtype)
        y_rows = x_rows if seen else _within_table(y_rows, y)
    return Rows(x, x_rows, y, y_rows)


def _plain_table(table: Tensor, network: Network, name: str, dtype: torch.dtype) -> Tensor:
    """A table of what a population does, as the kernel reads it."""
    size = network.sizes[name]
    if table.shape[1] != size:
        raise ValueError(
            f"the task gives {table.shape[1]} numbers per event to the {size} units of '{name}'; "
            f"make the network for this task, or choose a task of {size}"
        )
    return table.to(dtype).contiguous()


def _within_table(rows: Tensor, table: Tensor) -> Tensor:
    return _within(rows, table.shape[0], "rows of a table")


def _within(places: Tensor, count: int, of: str) -> Tensor:
    """Places as the kernel reads them: it never looks where they end."""
    if places.numel():
        least, most = map(int, places.aminmax())
        if least < 0 or most >= count:
            raise ValueError(f"the task names {least} to {most} of {count} {of}; it counts them from 0 to {count - 1}")
    return places.to(torch.int64).contiguous()
