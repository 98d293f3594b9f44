"""The contract of a task: data by address, shapes, scores that are finite, data that a search never sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from metarule.contracts import probes
from metarule.contracts.base import Check, has_source, require, verified
from metarule.contracts.probes import RUNS
from metarule.network import Network
from metarule.signals import Batch
from metarule.tasks import Task
from metarule.tasks.base import Episode

BATCH = 2


def check_task(task: Task) -> Iterator[Check]:
    """Every property of one task."""
    return verified(f"task.{task.kind}", task, PROPERTIES)


def declares(task: Task) -> str:
    """declares sizes, metrics and length"""
    require(
        task.inputs > 0 and task.outputs > 0, f"inputs = {task.inputs} and outputs = {task.outputs} must be positive"
    )
    require(bool(task.metrics), "metrics is empty; the first one is the loss")
    for name, way in task.metrics.items():
        require(way in ("min", "max"), f"metrics['{name}'] = {way!r} must be 'min' or 'max'")
    require(task.metrics[next(iter(task.metrics))] == "min", "the first metric is the loss: it must be 'min'")
    length = task.steps(BATCH)
    require(length is None or length > 0, f"steps({BATCH}) = {length} must be positive or None")
    return f"{task.inputs} inputs, {task.outputs} outputs, metrics {', '.join(task.metrics)}"


def batches(task: Task) -> None:
    """gives batches of the declared shapes, finite, with R first"""
    for dtype in (torch.float64, torch.float32):
        batch = task.sample(probes.noise("task", dtype=dtype), BATCH).train(0)
        probes.check_tensor("x", batch.x, (RUNS, BATCH, task.inputs), dtype)
        if batch.y is not None:
            probes.check_tensor("y", batch.y, (RUNS, BATCH, task.outputs), dtype)
        if batch.reward is not None:
            action = torch.ones(RUNS, BATCH, task.outputs, dtype=dtype)
            probes.check_tensor("reward", batch.reward(action), (RUNS, BATCH, 1), dtype)


def by_address(task: Task) -> None:
    """equal addresses give equal data, other addresses other data, and a step gives the same batch again"""
    first, again = _episode(task), _episode(task, ("task", "task", "other"))
    require(_same(first.train(1), first.train(1)), "train(1) gave two different batches")
    same, other = again.train(0), first.train(0)
    require(torch.equal(same.x[0], same.x[1]), "two runs of one address saw different inputs")
    require(torch.equal(same.x[0], other.x[0]), "another batch of runs changed an episode's data")
    require(not torch.equal(same.x[0], same.x[2]), "two addresses gave the same inputs")


def scores(task: Task) -> str:
    """scores an untrained network with every declared metric, finite, one number per run"""
    found = _scored(task, range(RUNS))
    require([*found] == [*task.metrics], f"score gives {', '.join(found)}; metrics declares {', '.join(task.metrics)}")
    for name, value in found.items():
        probes.check_tensor(name, value, (RUNS,), torch.float64)
    return ", ".join(f"{name} {float(value.mean()):.3g}" for name, value in found.items())


def alone(task: Task) -> str:
    """run r of a batch is scored as run r alone"""
    whole, single = _scored(task, range(RUNS)), _scored(task, (1,))
    gaps = [probes.check_equal(name, single[name][0], whole[name][1]) for name in whole]
    return gaps[0]


def held_out(task: Task) -> str:
    """has held-out data of its own, and says which"""
    fresh = task.held_out()
    require(type(fresh) is type(task), f"held_out gave a {type(fresh).__name__}")
    sizes = (fresh.inputs, fresh.outputs, fresh.output)
    require(sizes == (task.inputs, task.outputs, task.output), "the held-out task has other sizes")
    one, other = _scored(task, range(RUNS)), _scored(fresh, range(RUNS))
    lead = next(iter(task.metrics))
    require(not torch.equal(one[lead], other[lead]), "the held-out task scores exactly as the search's: the same data?")
    return fresh.seen()


def _episode(task: Task, names: Iterable[str] = ("task",) * RUNS) -> Episode:
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return task.sample(probes.noise("episode", runs=[places[name] for name in names]), BATCH)


def _same(one: Batch, other: Batch) -> bool:
    both = one.y is not None and other.y is not None
    return torch.equal(one.x, other.x) and (not both or torch.equal(_given(one.y), _given(other.y)))


def _given(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def _scored(task: Task, runs: Iterable[int]) -> dict[str, Tensor]:
    network = Network.chain((task.inputs, task.outputs), output=task.output)
    stream = probes.noise("episode", runs=runs)
    weights = {p.name: network.draw(p, stream) for p in network.projections}
    episode = task.sample(stream, BATCH)
    return episode.score(lambda x: network.forward(weights, x), weights)


PROPERTIES = (has_source, declares, batches, by_address, scores, alone, held_out)
