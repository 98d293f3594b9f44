"""A walk: some runs of a learner trained once, looked at by every probe at a few moments on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.block import Block, World
from metarule.inspection.activities import activity, saturated, silent
from metarule.inspection.angles import error_angle, update_angle
from metarule.inspection.fixed_points import drift, rest
from metarule.inspection.seen import ByLayer, Seen, shown
from metarule.inspection.weight_norms import row_orthonormality, step_size, weight_norm
from metarule.learner import Learner
from metarule.tasks import Task

FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Fractions of the training after which a walk is looked at."""

SINGLE = 8
"""Batches, as the learner learns from them, of which a step's size is the mean."""


class Probe(NamedTuple):
    """What is measured, how it is called, in which unit."""

    label: str
    unit: str
    measure: Callable[[Seen], ByLayer]


PROBES: dict[str, Probe] = {
    "error_angle": Probe("angle of the errors to backprop's", "degrees", error_angle),
    "angle_to_backprop": Probe("angle of the update to backprop's", "degrees", update_angle),
    "orthonormality": Probe("distance of rows from orthonormal, E", "1", row_orthonormality),
    "weight_norm": Probe("length of a unit's weights", "1", weight_norm),
    "step_size": Probe("a step's change of the weights", "of their length", step_size),
    "drift": Probe("mean change of the weights", "of their length per step", drift),
    "activity": Probe("activity, root mean square", "1", activity),
    "saturated": Probe("saturated units", "share of units × events", saturated),
    "silent": Probe("silent units", "share of units", silent),
}
"""Every probe by the name of its curve."""

Numbers = list[float]
"""One number per run, nan where the run diverged or the probe has no answer."""


class Walk(NamedTuple):
    """What to train and where to look: a job that any process can do. `probes` are names of `PROBES`."""

    learner: Learner
    theta: Float[Tensor, "1 P"]
    task: Task
    episodes: tuple[int, ...]
    seed: int
    batch: int
    moments: tuple[int, ...]
    probes: tuple[str, ...]
    dtype: torch.dtype = torch.float32
    rests: bool = False


class Walked(NamedTuple):
    """Probe -> layer -> moment -> numbers; of the last moment, layer -> what `fixed_points.rest` found."""

    found: dict[str, dict[str, list[Numbers]]]
    rests: dict[str, dict[str, Numbers]]


def moments(steps: int) -> tuple[int, ...]:
    """Numbers of steps done at which a training of `steps` is looked at, its start and end included."""
    return tuple(sorted({round(fraction * steps) for fraction in FRACTIONS}))


def walk(job: Walk) -> Walked:
    """Train the runs of one job, and look."""
    total = job.moments[-1]
    theta = job.theta.to(job.dtype).expand(len(job.episodes), -1)
    world = World(
        Block(
            job.learner, theta, job.task, [(0, episode) for episode in job.episodes], job.seed, range(total), job.batch,
            frozenset(), (), (total,), None, None, job.dtype, 1,
        )
    )  # fmt: skip
    found: dict[str, dict[str, list[Numbers]]] = {name: {} for name in job.probes}
    rests: dict[str, dict[str, Numbers]] = {}
    with torch.no_grad():
        columns = job.learner.columns(theta)
        state, done = world.start(columns), 0
        batches = shown(world, columns, state, total)
        single = tuple(world.episode.train(place * total // SINGLE) for place in range(min(SINGLE, total)))
        for moment in job.moments:
            state, done = world.advance(columns, state, range(done, moment), in_place=False, record=False), moment
            seen = Seen(world, columns, state, moment, batches, single)
            for name in job.probes:
                for layer, numbers in PROBES[name].measure(seen).items():
                    found[name].setdefault(layer, []).append(numbers.tolist())
        if job.rests:
            last = Seen(world, columns, state, done, batches, single)
            rests = {
                layer: {name: numbers.tolist() for name, numbers in each._asdict().items()}
                for layer, each in rest(last).items()
            }
    return Walked(found, rests)
