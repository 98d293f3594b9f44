"""Conditions that a rule was not found under: other networks, other courses of training, other data."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarule.inner import InBlocks, in_turn
from metarule.inspection.altered import Again, ByClass, Mislabelled, Noisy, Permuted
from metarule.inspection.subject import Subject
from metarule.network import Network
from metarule.nonlinearities import NONLINEARITIES
from metarule.rng import noise_for
from metarule.signals import Batch
from metarule.tasks import Task
from metarule.tasks import images as image_sets
from metarule.tasks.over_images import OverImages

OWN = "own task"
"""The condition that a rule was found under, to which all others are held."""

LONGER = 10
"""Times the training."""

BATCHES = (4, 16)
"""Times the events per step."""

INPUT_NOISE = 0.5
"""Standard deviation of the noise in standard deviations of the inputs."""

WRONG = 0.2
"""Share of the samples that are taught as another one."""

BLOCK_RUNS = 64
"""Runs at once: enough that a step is more work than calls."""

HELD = 50_000_000
"""Numbers that a task whose samples are put in another order may hold at once."""

SCORED = 500
"""Images of another set that are scored at most."""

CLASSES = 100
"""Outputs at most where a task has one for every class of a set."""


class Condition(NamedTuple):
    """The subject elsewhere, as `name` of a `group` says; without a `subject`, `reason` is why it cannot be made."""

    name: str
    group: str
    detail: str
    subject: Subject | None
    reason: str = ""


def conditions(subject: Subject) -> list[Condition]:
    """Every condition of the battery, its own task first; those that this subject cannot have say why."""
    at_home = alone(subject)
    made = [Condition(OWN, OWN, at_home.task.seen(), at_home)]
    for name, group, detail, make in (*_networks(at_home), *_courses(at_home), *_data(at_home)):
        try:
            moved = _checked(make())
        except ValueError as error:
            made.append(Condition(name, group, detail, None, str(error)))
        else:
            made.append(Condition(name, group, detail + _course(at_home, moved), moved))
    return made


def alone(subject: Subject, runs: int = BLOCK_RUNS) -> Subject:
    """The subject with an engine that computes `runs` runs at once in the process that asks it."""
    engine = subject.conditions.engine
    if isinstance(engine, InBlocks):
        engine = replace(engine, block_runs=runs, map=in_turn)
    return subject.on(conditions=replace(subject.conditions, engine=engine))


def _course(own: Subject, moved: Subject) -> str:
    """What is otherwise in the course of training, to be said after what was asked for; "" where nothing is."""
    before, after, task = own.conditions, moved.conditions, moved.task
    said = (
        f", {after.steps} steps of {after.batch}" if (before.steps, before.batch) != (after.steps, after.batch) else ""
    )
    if isinstance(task, Again) and task.period < before.steps:
        said += f", {task.period * after.batch} samples over and over"
    return said


Asked = tuple[str, str, str, Callable[[], Subject]]


def _networks(subject: Subject) -> Iterator[Asked]:
    group, network = "network", subject.network
    if len(network.populations) < 3:
        for name in ("width", "depth", "nonlinearity"):
            yield name, group, "another one", lambda: _refuse("its network has no hidden layers")
        return
    sizes = "-".join(str(population.size) for population in network.populations[1:-1])
    for name, factor in (("width × 1/2", 0.5), ("width × 2", 2.0)):
        yield name, group, f"hidden layers {sizes} times {factor:g}", lambda f=factor: subject.on(wider(network, f))
    for name, change in (("one hidden layer more", 1), ("one hidden layer fewer", -1)):
        what = "the last hidden layer twice" if change > 0 else "without the last hidden layer"
        yield name, group, what, lambda c=change: subject.on(deeper(network, c))
    own = {population.activation for population in network.populations[1:-1]}
    for activation in NONLINEARITIES:
        if own != {activation}:
            detail = f"{activation} in place of {', '.join(sorted(own))}"
            yield activation, group, detail, lambda a=activation: subject.on(activated(network, a))


def _courses(subject: Subject) -> Iterator[Asked]:
    group, task, course = "training", subject.task, subject.conditions
    how = f"the same samples {LONGER} times" if task.steps(course.batch) is not None else "new samples"
    yield f"{LONGER} × longer", group, how, lambda: _longer(subject)
    for factor in BATCHES:
        yield f"batch × {factor}", group, "as many samples", lambda f=factor: _batched(subject, f)
    yield "class by class", group, "the classes of an episode one after the other", lambda: _by_class(subject)


def _data(subject: Subject) -> Iterator[Asked]:
    group, task, course = "data", subject.task, subject.conditions
    if isinstance(task, OverImages):
        for name in image_sets.IMAGES:
            if name not in ("idx", task.images):
                yield name, group, f"images of {name} in place of {task.images}", lambda n=name: _on_images(subject, n)
    else:
        yield (
            "another data set",
            group,
            "images it never saw",
            lambda: _refuse(
                f"the {task.kind} task has no images to exchange: its problems are random, and fresh in every episode"
            ),
        )
    yield "permuted inputs", group, "one fixed random order of the inputs", lambda: _permuted(subject)
    yield (
        "noisy inputs",
        group,
        f"noise of {INPUT_NOISE:g} standard deviations of the inputs",
        lambda: subject.on(task=Noisy(task, INPUT_NOISE * _spread(task, course.batch))),
    )
    yield "wrong labels", group, f"{WRONG:.0%} of the samples taught as another one", lambda: _mislabelled(subject)


def _refuse(reason: str) -> Subject:
    raise ValueError(reason)


def _checked(subject: Subject) -> Subject:
    """The subject, once its task has shown an episode of either split; raises ValueError where it cannot."""
    for task in (subject.task, subject.task.held_out()):
        _first(task, subject.conditions.batch)
    return subject


def _first(task: Task, batch: int, step: int = 0) -> Batch:
    return task.sample(noise_for([("looked at",)]), batch).train(step)


def _hidden(network: Network) -> range:
    """Places of the hidden populations."""
    return range(1, len(network.populations) - 1)


def resized(network: Network, sizes: dict[int, int]) -> Network:
    """The network with populations of other sizes, by place."""
    populations = tuple(
        population._replace(size=sizes.get(place, population.size))
        for place, population in enumerate(network.populations)
    )
    return replace(network, populations=populations)


def wider(network: Network, factor: float) -> Network:
    """Every hidden layer `factor` times as wide."""
    return resized(
        network, {place: max(round(network.populations[place].size * factor), 1) for place in _hidden(network)}
    )


def deeper(network: Network, change: int) -> Network:
    """The last hidden layer once more (1) or left out (-1); raises ValueError where it is no plain chain of layers."""
    hidden = [network.populations[place] for place in _hidden(network)]
    sizes = [network.populations[0].size, *(population.size for population in hidden), network.populations[-1].size]

    def chain(sizes: list[int]) -> Network:
        return Network.chain(
            tuple(sizes), hidden[0].activation, network.output, network.beta, network.projections[0].bias,
            init=network.init, init_scale=network.init_scale,
        )  # fmt: skip

    if chain(sizes) != network:
        raise ValueError("its network is no plain chain of layers, to which one could be added")
    return chain([*sizes[:-1], sizes[-2], sizes[-1]] if change > 0 else [*sizes[:-2], sizes[-1]])


def activated(network: Network, activation: str) -> Network:
    """Another nonlinearity of all units that had the hidden ones', with beta = 1."""
    own = {network.populations[place].activation for place in _hidden(network)}
    populations = tuple(
        population._replace(activation=activation) if population.activation in own else population
        for population in network.populations[:-1]
    )
    return replace(network, populations=(*populations, network.populations[-1]), beta=1.0)


def _longer(subject: Subject) -> Subject:
    course, task = subject.conditions, subject.task
    if task.steps(course.batch) is not None:
        task = Again(task, course.steps)
    points = tuple(LONGER * point for point in course.score_at)
    return subject.on(task=task, conditions=replace(course, steps=LONGER * course.steps, score_at=points))


def _batched(subject: Subject, factor: int) -> Subject:
    """As many samples in batches of about `factor` times as many events, as the task allows."""
    course, task = subject.conditions, subject.task
    samples, wanted = course.steps * course.batch, course.batch * factor
    sizes = sorted(range(course.batch + 1, min(4 * wanted, samples) + 1), key=lambda size: abs(math.log(size / wanted)))
    for size in sizes:
        if samples % size and task.steps(course.batch) is not None:
            continue
        steps = samples // size
        points = tuple(sorted({max(round(point * steps / course.steps), 1) for point in course.score_at}))
        try:
            return _checked(subject.on(conditions=replace(course, batch=size, steps=steps, score_at=points)))
        except ValueError:  # this size does not divide what the task shows
            continue
    raise ValueError(f"its {samples} samples do not come in batches of about {wanted}")


def _classes(task: Task, batch: int) -> bool:
    """Whether the targets are classes."""
    y = _first(task, batch).y
    return y is not None and y.shape[-1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(-1) == 1).all())


def _by_class(subject: Subject) -> Subject:
    course, task = subject.conditions, subject.task
    if not _classes(task, course.batch):
        raise ValueError(f"the {task.kind} task shows no classes that could come one after the other")
    held = course.steps * course.batch * (task.inputs + task.outputs)
    if held > HELD:
        raise ValueError(f"all {course.steps * course.batch} samples of a run would have to be held at once")
    return alone(subject.on(task=ByClass(task, course.steps)), min(BLOCK_RUNS, HELD // held))


def _on_images(subject: Subject, name: str) -> Subject:
    """The same task over another image set, as many steps; of few images per class, as many as there are, again."""
    task, course = subject.task, subject.conditions
    if image_sets.to_be_fetched(name):
        raise ValueError(f"{name} is in no data folder (set METARULE_DATA to the one that has it); nothing is fetched")
    source = image_sets.image_source(name)
    changes: dict[str, object] = {"images": name, "path": None}
    settings: Any = task  # a dataclass, which its type does not say
    fields = {field.name for field in dataclasses.fields(settings)}
    if image_sets.by_classes(source) and "labels" in fields:
        changes["labels"] = "way"
    if "test_size" in fields:
        changes["test_size"] = SCORED
    if {"ways", "shots", "queries"} <= fields:
        changes |= _few(settings, source, course.batch)
    moved: Task = replace(settings, **changes)
    if moved.outputs > max(CLASSES, task.outputs):
        raise ValueError(f"{name} has {moved.outputs} classes, which the {task.kind} task would all have to tell apart")
    period = moved.steps(course.batch)
    if period is not None and period < course.steps:
        moved = Again(moved, period)
    places = {0: moved.inputs, len(subject.network.populations) - 1: moved.outputs}
    return subject.on(resized(subject.network, places), moved)


def _few(task: Any, source: image_sets.ImageSource, batch: int) -> dict[str, int]:
    """Shots and queries that a set has images for, a quarter of them queries; {} where it has enough."""
    parts = [source.labels[image_sets.part(source, held_out)] for held_out in (False, True)]
    least = min(int(part.bincount()[part.unique()].min()) for part in parts)
    if task.shots + task.queries <= least:
        return {}
    queries = max(least // 4, 1)
    shots = next((n for n in range(least - queries, 0, -1) if task.ways * n % batch == 0), 0)
    if not shots:
        raise ValueError(f"{source.name} has {least} images of a class, too few for batches of {batch}")
    return {"shots": shots, "queries": queries}


def _permuted(subject: Subject) -> Subject:
    size = subject.task.inputs
    if size < 2:
        raise ValueError("it has one input, which has no order")
    (order,) = noise_for([("order of inputs",)]).rows(size, size).tolist()
    reads = tuple(projection.name for projection in subject.network.out_of(subject.network.input_name))
    return subject.on(task=Permuted(subject.task, tuple(order), reads))


def _mislabelled(subject: Subject) -> Subject:
    course, task = subject.conditions, subject.task
    if course.steps < 2:
        raise ValueError("one step has no other whose labels it could take")
    first, second = (_first(task, course.batch, step) for step in range(2))
    if first.y is None and first.reward is None:
        raise ValueError(f"nobody teaches in the {task.kind} task: there are no labels")
    if first.y is not None and second.y is not None and torch.equal(first.y, second.y):
        raise ValueError(f"the {task.kind} task has the same targets at every step")
    return subject.on(task=Mislabelled(task, WRONG, course.steps))


def _spread(task: Task, batch: int) -> float:
    """Standard deviation of the inputs over the first steps of an episode."""
    episode = task.sample(noise_for([("looked at",)]), batch)
    seen: list[Tensor] = [episode.train(step).x.flatten() for step in itertools.islice(range(32), task.steps(batch))]
    return float(torch.cat(seen).std())
