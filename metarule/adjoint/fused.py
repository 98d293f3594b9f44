"""The fused walk: there and back in compiled code, one run at a time with its weights, gradients and tape in cache.

A block that is scored after its last step by questions that it is asked by index is one call, kernels/round_trip.h.
"""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from metarule import tree
from metarule.adjoint.eager import run_adjoint
from metarule.adjoint.parts import Walker
from metarule.adjoint.pulled import pulled
from metarule.adjoint.walk import Cotangents, RoundTrip, Walk
from metarule.block import Block, BlockOutcome, World
from metarule.fused.learners import served, stands
from metarule.fused.library import Library, Missing, library
from metarule.fused.plan import Gradients, Spelled
from metarule.fused.run import NO_MEMORY, Part, called, parts, plain_asked, threads_of_torch
from metarule.learner import Columns
from metarule.signals import State
from metarule.tasks import scores

NAME = "fused adjoint"

BUDGET = 24 << 20
"""Bytes that the runs which are walked together may take: few at a time are as fast, and their tape stays near."""

LOSS = next(iter(scores.CLASSIFICATION))
"""The metric whose gradient the kernel has."""

WIDEST = 16
"""Numbers by which rows are filled up at most."""


def run_fused_adjoint(block: Block) -> BlockOutcome:
    """Train, score and differentiate one block of runs that `refused` has nothing against."""
    try:
        kernel = library()
    except Missing:  # this process is on another machine than the one that chose
        return run_adjoint(block)
    with threads_of_torch() as threads:
        made = functools.partial(FusedWalk, kernel._replace(threads=threads))
        outcome = pulled(block, Walker(made, FusedWalk.numbers, BUDGET, round_trips=True))
    return outcome._replace(engine=f"{NAME} ({kernel.variant})")


class FusedWalk(Walk):
    """See kernels/adjoint.h."""

    def __init__(self, kernel: Library, world: World, columns: Columns) -> None:
        super().__init__(world, columns)
        self.kernel = kernel

    @staticmethod
    def numbers(learner, batch):
        # rates, errors and reconstructions of whole vectors
        return 3 * batch * sum(size + WIDEST for size in learner.network.sizes.values())

    def there(self, state, steps, keep_weights):
        state = tree.mapped(state, torch.Tensor.contiguous)
        spelled = Spelled(self.world.learner, self.columns, state)
        tape = []
        for each in parts(self.world, steps):
            part = each._replace(keeps_weights=keep_weights)
            plan = spelled.plan(part.schedules, part.plan)
            length = self.kernel.tape(ctypes.byref(plan), spelled.dtype == torch.float64, self.kernel.place)
            if length < 0:
                raise MemoryError(NO_MEMORY)
            part = part._replace(tape=torch.empty(spelled.runs * len(part.steps) * length, dtype=spelled.dtype))
            called(self.kernel.train, self.kernel, spelled, part)
            tape.append(part)
        return state, tape

    def back(self, state: State, tape: list[Part], after: Cotangents):
        weights = {name: gradient.contiguous() for name, gradient in after.weights.items()}
        velocities = {name: gradient.contiguous() for name, gradient in after.velocities.items()}
        coefficients, rates = dict(after.coefficients), dict(after.rates)
        for part in reversed(tape):
            spelled = Spelled(self.world.learner, self.columns, state, Gradients(weights, velocities))
            called(self.kernel.back, self.kernel, spelled, part)
            _collect(spelled, coefficients, rates)
        return state, Cotangents(weights, velocities, coefficients, rates)

    def round_trip(self, state, share, weights):
        asked = plain_asked(self.world) if self.world.block.objectives[0] == LOSS else None
        part = _at_once(self.world)
        if asked is None or part is None or not asked.rows.shape[1]:
            return None
        part = part.answering(asked, self.world.block.dtype)._replace(share=share)
        state = tree.mapped(state, torch.Tensor.contiguous)
        found = self.nothing()._replace(weights={name: torch.empty_like(state["weights"][name]) for name in weights})
        missed = {name: torch.empty(len(asked.rows), 2, dtype=torch.float64) for name in served(self.world.learner)}
        spelled = Spelled(self.world.learner, self.columns, state, Gradients(found.weights, {}, missed))
        called(self.kernel.round_trip, self.kernel, spelled, part)
        _collect(spelled, found.coefficients, found.rates)
        assert part.answers is not None
        return RoundTrip(scores.classified(*part.answers.mean(dim=-1)), found, missed)


def _collect(spelled: Spelled, coefficients: dict[str, Tensor], rates: dict[str, Tensor]) -> None:
    """Add what the kernel found of the gradients in coefficients and rates."""
    for name, table, found in spelled.found:
        if table is None:
            rates[name] = rates[name] + found[:, 0]
        else:
            coefficients[name] = coefficients[name] + table.terms_gradient(found, coefficients[name].shape[1])


def _at_once(world: World) -> Part | None:
    """All steps, where they are rows of a table: how many parts others come in depends on the runs beside."""
    episode, steps = world.episode, world.block.steps
    if not steps or not stands(episode, "rows", "train") or episode.rows(steps[:1]) is None:
        return None
    found = list(parts(world, steps))
    return found[0] if len(found) == 1 else None
