"""The loop of a search: ask -> evaluate -> tell -> write down; it stops and goes on at any generation."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule import tree
from metarule.inner import ENGINES, Fastest, Fused, Inner, Map, Outcome, Runs, in_turn
from metarule.ledger import Ledger
from metarule.outer import OuterLoop
from metarule.rng import noise_for
from metarule.runs import RunFolder
from metarule.signals import State
from metarule.spec import COMPLEXITY, Search
from metarule.unrolled import Unrolled


@dataclass(frozen=True)
class Generation:
    """One turn of the loop, as it is logged and shown: losses per candidate and the rule handed over so far."""

    number: int
    loss: Float[Tensor, "C M"]
    best: Float[Tensor, "P"]
    scores: dict[str, float]
    run_steps: int
    seconds: float
    report: Mapping[str, float] = field(default_factory=dict)
    carry: State | None = None
    engine: str = "reference"

    def line(self, names: list[str]) -> dict[str, Any]:
        """The deterministic part, for the log; non-finite losses become null."""
        leading = self.loss[:, 0]
        finite = leading[torch.isfinite(leading)]
        line = {
            "generation": self.number,
            "loss": [value if math.isfinite(value) else None for value in leading.tolist()],
            "loss_mean": finite.mean().item() if len(finite) else None,
            "loss_best": finite.min().item() if len(finite) else None,
            "failed": len(leading) - len(finite),
            "scores": self.scores,
            "theta": dict(zip(names, self.best.tolist(), strict=True)),
        }
        report = {name: value if math.isfinite(value) else None for name, value in self.report.items()}
        if self.loss.shape[1] > 1:
            line["losses"] = [[v if math.isfinite(v) else None for v in row] for row in self.loss.tolist()]
        return line | ({"outer": report} if report else {})


def engine_for(search: Search, map: Map = in_turn) -> Inner:
    """The engine that a search names; `higher` where a torch module is trained."""
    dtype = getattr(torch, search.inner.precision)
    if search.model is not None:
        return Unrolled(dtype, map)
    return ENGINES[search.inner.engine](search.inner.block_runs, dtype, search.inner.segments, map)


def generations(
    search: Search, outer: OuterLoop, first: int, engine: Inner, carry: State | None = None
) -> Iterator[Generation]:
    """The loop itself, from generation `first` on, without files: `outer` hears each outcome before it is yielded.

    `carry` is the state of the inner runs where generation `first` goes on with those of the one before.
    """
    budget, episodes = search.budget, search.inner.episodes
    for number in range(first, budget.generations):
        began = time.perf_counter()
        window = outer.window(number, search.steps)
        outer.prepare(window)
        theta = outer.ask(budget.candidates, noise_for([(search.search.seed, "outer", number)]))
        candidates = len(theta)
        if not 1 <= candidates <= budget.candidates:
            raise ValueError(
                f"outer.kind = '{outer.kind}' proposed {candidates} candidates when asked for {budget.candidates}; "
                "its `ask` must return at least one and at most as many as asked for"
            )
        # budget, not candidates: a loop that proposes fewer now and then must not meet an address again
        start = window.unroll * budget.candidates
        of_episodes = 0 if search.inner.fixed_episodes else window.unroll * episodes
        runs = Runs(
            tuple(range(start, start + candidates)),
            tuple(range(of_episodes, of_episodes + episodes)),
            search.search.seed,
        )
        goes_on = outer.window(number + 1, search.steps).steps.start > 0
        race = _raced(search, outer, theta, runs, window.steps, engine, carry if window.steps.start else None, goes_on)
        carry = race.carry
        outer.tell(theta, race.loss, race.grad)
        yield Generation(
            number, race.loss, outer.best, race.scores, race.run_steps, time.perf_counter() - began, outer.report,
            carry, race.engine,
        )  # fmt: skip


class Found(NamedTuple):
    """What a search hands over: its best rule, and the rules that no other beats with their losses."""

    theta: Float[Tensor, "P"]
    front: Float[Tensor, "N P"]
    losses: Float[Tensor, "N M"]


class _Race(NamedTuple):
    """What became of a generation's rows, dropped ones included (+inf)."""

    loss: Float[Tensor, "C M"]
    scores: dict[str, float]
    run_steps: int
    grad: Float[Tensor, "C P"] | None
    carry: State | None
    engine: str


def _raced(
    search: Search,
    outer: OuterLoop,
    theta: Float[Tensor, "C P"],
    runs: Runs,
    steps: range,
    engine: Inner,
    carry: State | None,
    goes_on: bool,
) -> _Race:
    """All rows from rung to rung; those that `outer` drops at one stop there."""
    cuts = [steps.start, *(rung for rung in outer.rungs(search.steps) if rung in steps[1:]), steps.stop]
    alive = torch.arange(len(theta))
    total: Tensor | None = None
    points, run_steps = 0, 0
    for first, last in itertools.pairwise(cuts):
        wants = outer.wants | ({"carry"} if goes_on or last < steps.stop else set())
        part = range(first, last)
        score_at = search.score_at(part)
        outcome = search.family.evaluate(
            engine, theta[alive], search.task, runs, part, carry, batch=search.inner.batch, wants=wants,
            objectives=search.metrics, score_at=score_at,
        )  # fmt: skip
        run_steps += len(alive) * len(runs.episodes) * len(part)
        loss = outcome.loss.mean(1)
        if score_at:
            total = loss * len(score_at) if total is None else total + loss * len(score_at)
            points += len(score_at)
        if total is not None:
            loss = total / points
        loss = _with_complexity(search, theta[alive], loss)
        carry = outcome.carry
        if last == steps.stop:
            whole = loss.new_full((len(theta), loss.shape[1]), math.inf)
            whole[alive] = loss
            return _Race(whole, _means(outcome), run_steps, outcome.grad, carry, outcome.engine)
        kept = outer.keep(theta[alive], loss, last).nonzero()[:, 0]
        if not len(kept):
            lost = torch.full((len(theta), loss.shape[1]), math.inf)
            return _Race(lost, _means(outcome), run_steps, None, None, outcome.engine)
        slots = (kept[:, None] * len(runs.episodes) + torch.arange(len(runs.episodes))).flatten()
        alive = alive[kept]
        runs = runs._replace(candidates=tuple(runs.candidates[place] for place in kept.tolist()))
        carry = None if carry is None else tree.selected(carry, slots)
        total = None if total is None else total[kept]
    raise AssertionError("unreachable: the last cut is the end")


def _with_complexity(search: Search, theta: Float[Tensor, "C P"], loss: Tensor) -> Float[Tensor, "C M"]:
    """The task's objectives with the rule's own, where it is asked for, in their order."""
    if COMPLEXITY not in search.objectives:
        return loss
    measured = dict(zip(search.metrics, loss.unbind(1), strict=True))
    measured[COMPLEXITY] = search.family.complexity(theta).to(loss.dtype)
    return torch.stack([measured[name] for name in search.objectives], dim=1)


def _means(outcome: Outcome) -> dict[str, float]:
    return {
        name: float(finite.mean())
        for name, values in outcome.scores.items()
        if len(finite := values[torch.isfinite(values)])
    }


def begun(search: Search) -> OuterLoop:
    """A fresh outer loop over the search's parameters; the spec's own instance stays untouched."""
    outer = copy.copy(search.outer)
    outer.start(search.family.params, len(search.objectives))
    if search.known:
        outer.warm(search.known_rows)
    if search.model is None:  # a torch module is no rule: there is nothing to recognise it by
        outer.recognise(search.family.fingerprint)
    return outer


def _said(engine: str, search: Search) -> str:
    """Which engine ran, and why it was not the fused one where the choice was free."""
    why = None
    if search.model is None and search.inner.engine == Fastest.name and not engine.startswith(Fused.name):
        reasons = (Fused().can(each.learner, search.outer.wants) for each in search.structures)
        why = next((reason for reason in reasons if reason), None)
    return f"engine: {engine}{f', as {why}' if why else ''}"


def run(
    search: Search,
    folder: RunFolder,
    ledger: Ledger,
    map: Map,
    report: Callable[[Generation], None],
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Found | None:
    """Run or resume a search in its folder (which the caller has locked) until its budget is spent.

    Each block is in the ledger as it arrives, each finished generation on disk before the next begins. Returns the
    rule found (P), or None where `stopping` asked for a stop. Raises RunError where the folder's last state cannot be
    trusted.
    """
    outer = begun(search)
    checkpoint, note = folder.checkpoint()
    if note:
        warn(note)
    folder.rewind(checkpoint)
    if checkpoint:
        outer.load_state_dict(checkpoint.state)
    first = checkpoint.generation if checkpoint else 0
    carry = checkpoint.carry if checkpoint else None
    names = [param.name for param in search.family.params]
    said: set[str] = set()
    ledger.open(f"generation{first}")
    for generation in generations(search, outer, first, engine_for(search, ledger.over(map)), carry):
        folder.save(generation.number + 1, outer.state_dict(), generation.line(names), generation.carry)
        ledger.open(f"generation{generation.number + 1}")
        timing = {
            "generation": generation.number,
            "seconds": generation.seconds,
            "run_steps": generation.run_steps,
            "engine": generation.engine,
        }
        folder.append("timing.jsonl", timing)
        report(generation)
        for warning in (_said(generation.engine, search), *outer.warnings):
            if warning not in said:
                warn(warning)
            said.add(warning)
        if stopping() and generation.number + 1 < search.budget.generations:
            outer.publish(folder.path)
            return None
    outer.publish(folder.path)
    return Found(outer.best, outer.front, outer.front_losses)
