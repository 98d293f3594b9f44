"""Unrolled: the engine for modules that no batched engine knows, one run at a time, differentiated by `higher`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarule.block import Address, BlockOutcome
from metarule.inner import Inner, Map, gathered, in_turn, question
from metarule.module_learner import ModuleLearner
from metarule.network import Activity
from metarule.nonlinearities import OUTPUTS
from metarule.rng import noise_for
from metarule.signals import Batch
from metarule.tasks import Task
from metarule.tasks.base import Episode


class ModuleRun(NamedTuple):
    """One run of a module with all that it needs, plain data."""

    learner: ModuleLearner
    row: Float[Tensor, "P"]
    task: Task
    address: Address
    seed: int
    steps: range
    batch: int
    gradient: bool
    objective: str
    score_at: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Unrolled(Inner):
    """Exact gradients in rates, initial weights and settings of torch.optim, through every step.

    Memory is that of steps + 1 sets of weights, one run at a time; `map` may spread runs over processes. Raises
    ValueError on what it cannot do: go on from a carry, record, forward-mode gradients.
    """

    name = "higher"

    dtype: torch.dtype = torch.float32
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
        if record is not None or carry is not None or not wants <= {"loss", "grad"}:
            raise ValueError(
                "inner.engine = 'higher' trains whole runs: it neither records, nor goes on from where a run stopped "
                "(truncation, pruning), nor takes forward-mode gradients; use an outer loop without these"
            )
        asked = question(theta, task, runs, steps, objectives, score_at)
        rows = theta.to(self.dtype).repeat_interleave(len(runs.episodes), dim=0)
        jobs = [
            ModuleRun(
                learner, row, task, address, runs.seed, steps, batch, "grad" in wants, asked.objectives[0],
                asked.score_at, self.dtype,
            )
            for row, address in zip(rows, runs.addresses, strict=True)
        ]  # fmt: skip
        return gathered(list(self.map(run_module, jobs)), asked)


def run_module(job: ModuleRun) -> BlockOutcome:
    """Train and score one run."""
    noise = noise_for([(job.seed, "episode", job.address[1])], job.dtype)
    episode = job.task.sample(noise.at("data"), job.batch)
    row = job.row.clone().requires_grad_(job.gradient)
    found: list[dict[str, Tensor]] = []

    def scored(step: int, module: nn.Module) -> None:
        if step in job.score_at:
            scores = _scores(job, episode, module)
            found.append(scores if job.gradient else {name: value.detach() for name, value in scores.items()})

    job.learner.trained(row, noise, _batches(episode, job.steps), job.gradient, scored)
    total = {name: sum((scores[name] for scores in found), torch.zeros(())) / len(found) for name in found[0]}
    grad = None
    if job.gradient:
        sign = -1.0 if job.task.metrics[job.objective] == "max" else 1.0
        (grad,) = torch.autograd.grad(sign * total[job.objective].sum(), row, materialize_grads=True)
        grad = grad[None]
    found_scores = {name: value.detach().to(torch.float64) for name, value in total.items()}
    return BlockOutcome(found_scores, grad, None, None, Unrolled.name)


def _batches(episode: Episode, steps: range) -> Iterator[Batch]:
    for step in steps:
        batch = episode.train(step)
        if batch.y is None:
            raise ValueError("inner.engine = 'higher' descends a loss, and the task gives no targets")
        yield batch


def _scores(job: ModuleRun, episode: Episode, module: nn.Module) -> dict[str, Tensor]:
    def respond(x: Tensor) -> Activity:
        drive = module(x[0])[None]
        return Activity({"output": drive}, {"output": OUTPUTS[job.learner.output](drive)})

    return episode.score(respond, {})
