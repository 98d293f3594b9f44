"""The loop of a search: ask -> evaluate -> tell -> write down; it stops and goes on at any generation."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.inner import ENGINES, Inner, Map, Outcome, Runs, in_turn
from metarule.outer import OuterLoop
from metarule.rng import noise_for
from metarule.runs import RunFolder
from metarule.spec import Search


@dataclass(frozen=True)
class Generation:
    """One turn of the loop, as it is logged and shown: losses per candidate and the rule handed over so far."""

    number: int
    loss: Float[Tensor, "C M"]
    best: Float[Tensor, "P"]
    scores: dict[str, float]
    run_steps: int
    seconds: float

    def line(self, names: list[str]) -> dict[str, Any]:
        """The deterministic part, for the log; non-finite losses become null."""
        leading = self.loss[:, 0]
        finite = leading[torch.isfinite(leading)]
        return {
            "generation": self.number,
            "loss": [value if math.isfinite(value) else None for value in leading.tolist()],
            "loss_mean": finite.mean().item() if len(finite) else None,
            "loss_best": finite.min().item() if len(finite) else None,
            "failed": len(leading) - len(finite),
            "scores": self.scores,
            "theta": dict(zip(names, self.best.tolist(), strict=True)),
        }


def engine_for(search: Search, map: Map = in_turn) -> Inner:
    """The engine that a search names; "auto" is the reference until a faster one can do the job."""
    engine = ENGINES["reference" if search.inner.engine == "auto" else search.inner.engine]
    return engine(search.inner.block_runs, getattr(torch, search.inner.precision), search.inner.segments, map)


def generations(search: Search, outer: OuterLoop, first: int, engine: Inner) -> Iterator[Generation]:
    """The loop itself, from generation `first` on, without files: `outer` hears each outcome before it is yielded."""
    learner, budget, episodes = search.learner, search.budget, search.inner.episodes
    for number in range(first, budget.generations):
        began = time.perf_counter()
        noise = noise_for([(search.search.seed, "outer", number)])
        theta = outer.ask(budget.candidates, noise)
        candidates = len(theta)
        if not 1 <= candidates <= budget.candidates:
            raise ValueError(
                f"outer.kind = '{outer.kind}' proposed {candidates} candidates when asked for {budget.candidates}; "
                "its `ask` must return at least one and at most as many as asked for"
            )
        # budget, not candidates: a loop that proposes fewer now and then must not meet an address again
        start = number * budget.candidates
        runs = Runs(
            tuple(range(start, start + candidates)),
            tuple(range(number * episodes, (number + 1) * episodes)),
            search.search.seed,
        )
        outcome = engine.evaluate(
            learner, theta, search.task, runs, range(search.steps), search.inner.batch, outer.wants, search.objectives
        )
        loss = outcome.loss.mean(1)
        outer.tell(theta, loss, outcome.grad)
        run_steps = candidates * episodes * search.steps
        yield Generation(number, loss, outer.best, _means(outcome), run_steps, time.perf_counter() - began)


def _means(outcome: Outcome) -> dict[str, float]:
    return {
        name: float(finite.mean())
        for name, values in outcome.scores.items()
        if len(finite := values[torch.isfinite(values)])
    }


def begun(search: Search) -> OuterLoop:
    """A fresh outer loop over the search's parameters; the spec's own instance stays untouched."""
    outer = copy.copy(search.outer)
    outer.start(search.learner.params, len(search.objectives))
    return outer


def run(
    search: Search,
    folder: RunFolder,
    map: Map,
    report: Callable[[Generation], None],
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Tensor | None:
    """Run or resume a search in its folder (which the caller has locked) until its budget is spent.

    Each finished generation is on disk before the next begins. Returns the rule found (P), or None where `stopping`
    asked for a stop. Raises RunError where the folder's last state cannot be trusted.
    """
    outer = begun(search)
    checkpoint, note = folder.checkpoint()
    if note:
        warn(note)
    folder.rewind(checkpoint)
    if checkpoint:
        outer.load_state_dict(checkpoint.state)
    first = checkpoint.generation if checkpoint else 0
    names = [param.name for param in search.learner.params]
    for generation in generations(search, outer, first, engine_for(search, map)):
        folder.save(generation.number + 1, outer.state_dict(), generation.line(names))
        timing = {"generation": generation.number, "seconds": generation.seconds, "run_steps": generation.run_steps}
        folder.append("timing.jsonl", timing)
        report(generation)
        if stopping() and generation.number + 1 < search.budget.generations:
            outer.publish(folder.path)
            return None
    outer.publish(folder.path)
    return outer.best
