"""Before a search: does it fit this machine, and does one step of everything that it will compute work?"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from metarule.adjoint.parts import COPIES
from metarule.evaluation import GRID, SPARE, check_tunable
from metarule.inner import ADJOINTS, InBlocks, Runs
from metarule.learner import Learner
from metarule.loop import engine_for
from metarule.module_learner import ONE_RATE
from metarule.params import starts
from metarule.plugins import SpecError
from metarule.rng import noise_for
from metarule.spec import Search
from metarule.tables import NetworkSpec
from metarule.zoo import algorithm

EVERY_BASELINE = ("momentum", "adam", "backprop_terms")
"""What `battery.baselines = "all"` adds to the task's own baselines."""

WITH_BACKPROP = "backprop_terms"
"""The baseline that is a search of its own: backprop with the search's own rules."""

PER_RUN = 300
"""Bytes that a run costs the driver besides its row of theta and its scores: an address, its noise, lists of both."""

PER_EVENT = 4
"""Copies of every unit's rate that one batch takes: drives, rates, errors and the data they come from."""


class Baselines(NamedTuple):
    """The battery's baselines in the order of their rows; of those that cannot be built, why."""

    learners: dict[str, Learner]
    left_out: dict[str, str]


def baselines(search: Search) -> Baselines:
    """Whom the battery compares the rule with; raises SpecError where one of the task's own cannot be built."""
    if not search.battery.episodes:
        return Baselines({}, {})
    if search.model is not None:
        return Baselines({ONE_RATE: search.learner.with_one_rate()}, {})
    names = tuple(search.task.baselines)
    if search.battery.baselines == "all" and "backprop" in names:  # a task without targets has no gradient to descend
        names += EVERY_BASELINE
    network = search.network.build(search.task)
    found = Baselines({}, {})
    for name in names:
        try:
            if name == WITH_BACKPROP:
                found.learners[name] = _with_backprop_checked(search)
                continue
            learner = algorithm(name).learner(network)
            check_tunable(name, learner)
        except ValueError as error:
            if name in search.task.baselines:
                raise SpecError(
                    f"baseline '{name}' of the battery: {error}; battery.episodes = 0 leaves it out"
                ) from error
            found.left_out[name] = str(error)
            continue
        found.learners[name] = learner
    return found


def with_backprop(search: Search) -> Search:
    """The same search with gradients for its errors."""
    return replace(search, credit=algorithm("backprop").credit)


def _with_backprop_checked(search: Search) -> Learner:
    learner = with_backprop(search).learner
    if not learner.params:
        raise ValueError("every parameter of its rule is fixed")
    return learner


def rehearse(search: Search, workers: int = 1, searches: int = 1) -> None:
    """One step of one run of everything that a search computes, scored on its own task and on the held-out one.

    Raises SpecError where anything in it cannot work or does not fit into this machine's memory.
    """
    check_memory(search, workers, searches)
    engine = engine_for(replace(search, inner=replace(search.inner, block_runs=1, segments=1)))
    runs = Runs((0,), (0,), search.search.seed)
    batch, steps = search.inner.batch, range(1)
    fresh = search.task.held_out()
    compared: set[NetworkSpec] = set()
    try:
        for each in search.structures:
            learner = each.learner
            rows = starts(learner.params)[None]
            if "grad" in search.outer.wants and search.model is None:
                _check_gradient(each)
            engine.evaluate(learner, rows, search.task, runs, steps, batch, search.outer.wants, search.metrics)
            if not search.battery.episodes:
                continue
            engine.evaluate(learner, rows, fresh, runs, steps, batch)
            for other in baselines(each).learners.values() if each.network not in compared else ():
                engine.evaluate(other, starts(other.params)[None], fresh, runs, steps, batch)
            compared.add(each.network)
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(str(error)) from error


def _check_gradient(search: Search) -> None:
    learner, network, credit = search.learner, search.learner.network, search.credit
    noise = noise_for([(search.search.seed, "episode", 0)], getattr(torch, search.inner.precision))
    columns = learner.columns(starts(learner.params, noise.dtype)[None])
    state = learner.init(columns, noise)
    weights = {name: weight.detach().requires_grad_() for name, weight in state["weights"].items()}

    def respond(x: torch.Tensor):
        return credit.respond(columns.credit, network, weights, state["credit"], x, noise.at("respond"))

    scores = search.task.sample(noise.at("data"), search.inner.batch).score(respond, weights)
    smooth = [name for name, value in scores.items() if value.requires_grad]
    leading = search.objectives[0]
    if leading not in smooth:
        needs = f"needs one of {', '.join(smooth)}" if smooth else "fits no metric of this task"
        raise SpecError(
            f"search.objective = '{leading}' has no gradient; outer.kind = '{search.outer.kind}' {needs}, or take "
            "outer.kind = 'cma_es'"
        )


@dataclass(frozen=True)
class Memory:
    """What a search needs at its peak, computed from sizes: blocks of runs that are computed at once, and the lists of
    all runs of a generation or of the battery."""

    weights: int
    rules: int
    rates: int
    together: int
    working: int
    copies: float
    runs: int
    blocks_bytes: float
    lists_bytes: float

    @property
    def bytes(self) -> float:
        """Both together."""
        return self.blocks_bytes + self.lists_bytes


def memory(search: Search, workers: int = 1) -> Memory:
    """The memory of a search on `workers` processes, over structure that of its largest; nothing is computed."""
    return max((_memory(each, workers) for each in search.structures), key=lambda found: found.bytes)


def _memory(search: Search, workers: int) -> Memory:
    learner, inner, budget = search.learner, search.inner, search.budget
    weights, rules = learner.weights_per_run, learner.rule_numbers_per_run
    rates = PER_EVENT * inner.batch * sum(learner.units)
    width = torch.finfo(getattr(torch, inner.precision)).bits // 8
    kept = _kept(search) if "grad" in search.outer.wants and "forward" not in search.outer.wants else 0
    generation = budget.candidates * inner.episodes
    tested = search.battery.episodes
    tuning = GRID * (budget.generations * generation // (GRID + SPARE)) if tested and search.task.baselines else 0

    def block(runs: int, copies: float) -> tuple[float, int, int, float]:
        together = max(min(inner.block_runs, runs), 1)
        working = max(min(workers, -(-runs // together)), 1)
        numbers = weights * copies + (rates + rules) * max(copies - 1, 1)
        return numbers * width * together * working, together, working, copies

    blocks_bytes, together, working, copies = max(block(generation, 2 + kept), block(max(tested, tuning), 2))
    runs = max(generation, tested, tuning)
    lists_bytes = runs * (PER_RUN + len(learner.params) * (8 + width) + 8 * 3 * len(search.task.metrics))
    return Memory(weights, rules, rates, together, working, copies, runs, blocks_bytes, lists_bytes)


def _kept(search: Search) -> float:
    """Copies of the state that a gradient through the steps keeps: those of one segment, and one for each segment."""
    if search.model is not None:
        return search.steps + 1
    if _by_adjoint(search):
        return COPIES
    return search.steps / search.segments + (search.segments if search.segments > 1 else 0)


def _by_adjoint(search: Search) -> bool:
    """Whether its gradients are computed by an adjoint, which takes as many runs at a time as fit."""
    if search.model is not None or "grad" not in search.outer.wants:
        return False
    engine = engine_for(search)
    return isinstance(engine, InBlocks) and engine.serving(search.learner, search.outer.wants, None) in ADJOINTS


def physical() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(search: Search, workers: int = 1, searches: int = 1) -> None:
    """Raises SpecError, naming what to lower, where `searches` at a time cannot fit into this machine's memory."""
    needed, there = memory(search, workers), physical()
    if needed.bytes * searches <= there:
        return
    sums = (
        f"this search needs about {_gib(needed.bytes * searches)} GiB of memory, and this machine has {_gib(there)}: "
    )
    if searches > 1:
        sums += f"{searches} searches at a time (--workers), each "
    if needed.lists_bytes > needed.blocks_bytes:
        inner, budget = search.inner, search.budget
        raise SpecError(
            f"{sums}addresses and scores of {needed.runs} runs (inner.episodes = {inner.episodes}, outer.candidates = "
            f"{budget.candidates}, outer.generations = {budget.generations}, battery.episodes = "
            f"{search.battery.episodes}); lower one of them"
        )
    by_adjoint = _by_adjoint(search)
    of = "the weights" if by_adjoint else f"{search.steps} steps in inner.segments = {search.segments}"
    copies = f" x {math.ceil(needed.copies)} copies of {of}"
    of_rules = f", {needed.rules} numbers of rules at them" if needed.rules else ""
    raise SpecError(
        f"{sums}{needed.weights} weights{of_rules} and {needed.rates} rates per run (network of {_units(search)} "
        f"units, inner.batch = {search.inner.batch}) x {needed.together} runs together (inner.block_runs = "
        f"{search.inner.block_runs}) x {needed.working} workers (--workers){copies if needed.copies > 2 else ''}; "
        f"lower one of them{', or raise inner.segments' if needed.copies > 2 and not by_adjoint else ''}"
    )


def _units(search: Search) -> str:
    return "-".join(map(str, search.learner.units))


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g}"
