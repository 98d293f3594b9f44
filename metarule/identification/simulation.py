"""Simulate rules x architectures x data x step sizes as recordings, in blocks of networks that learn side by side.

Nothing but the way in which weights change may tell the rule. Step sizes are drawn as *effective* ones: each network's
rate is set so that its weights move by a drawn fraction of their length in its first updates, the same distribution for
every rule. Networks start at every stage of learning: some way between fresh weights and weights that backprop taught,
so that how well a network does at the end does not tell which rule taught it last. No two networks share a seed.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarule.block import Block, World
from metarule.collect import unknown
from metarule.identification.degrading import Degradation, degraded
from metarule.identification.recording import Recording
from metarule.identification.reference import REFERENCE
from metarule.learner import Learner
from metarule.network import Network
from metarule.nonlinearities import NONLINEARITIES
from metarule.params import starts
from metarule.plugins import SpecError, build
from metarule.rng import noise_for, seed_number
from metarule.tasks import Task
from metarule.tasks.digits import Digits
from metarule.tasks.teacher import Teacher
from metarule.zoo import Algorithm

TRIAL = 20
"""Updates over which a rate's effect is measured, and to which a drawn displacement refers."""

LATER = 1_000_000
"""Step from which on networks are taught before their rule takes over: no recorded update has its batches."""

DIVERGED = 1e3
"""Size of a weight from which on a network is said to have diverged and is left out."""

TAUGHT_RATE = 0.2
"""Rate of the backprop that teaches networks before their rule takes over."""

TIMID = 0.1
"""Fraction of a row's own rate that the effect is measured at."""

DATA: dict[str, Task] = {
    "digits": Digits(),
    "teacher": Teacher(inputs=64, hidden=(32,), outputs=10, problem="classification"),
    "mnist": Digits(images="mnist"),
}
"""Data sets by name; all are classified by a softmax output."""


@dataclass(frozen=True)
class Simulation:
    """What is simulated: every rule on every task x hidden layers, `blocks` times `runs` networks each.

    Per block an activation, an initial scale and a batch size are drawn, the same for every rule; per network the
    `displacement` |W(20) - W(0)| / |W(0)|, log-uniform, and the share of the way, uniform, that it has come from fresh
    weights to those after `taught` updates by backprop when its rule takes over. A recording has `bursts` of `burst`
    consecutive snapshots, spread over `updates`, each with the batch of the update that follows and `probes` stimuli
    that are the same throughout. `observed` is the share of hidden units that is recorded, `weight_noise` and
    `activity_noise` are those of `Degradation`. With `own_rates` steps are not made alike: each network has the rule's
    own rate times a factor, log-uniform in that range, as in published comparisons. Raises ValueError on unknown names
    and on numbers out of range.
    """

    rules: tuple[str, ...] = tuple(REFERENCE)
    tasks: tuple[str, ...] = ("digits", "teacher")
    hidden: tuple[tuple[int, ...], ...] = ((24,), (32,), (48,), (64,), (24, 24), (32, 32), (48, 48), (64, 64))
    activation: tuple[str, ...] = ("tanh",)
    init_scale: tuple[float, ...] = (0.5, 1.0, 1.5)
    batch: tuple[int, ...] = (8, 16, 24)
    displacement: tuple[float, float] = (0.01, 0.3)
    taught: int = 150
    blocks: int = 2
    runs: int = 4
    updates: int = 120
    bursts: int = 7
    burst: int = 3
    probes: int = 192
    observed: float = 1.0
    weight_noise: float = 0.0
    activity_noise: float = 0.0
    own_rates: tuple[float, float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for owner, given, allowed in (
            ("rules", self.rules, REFERENCE),
            ("tasks", self.tasks, DATA),
            ("activation", self.activation, NONLINEARITIES),
        ):
            for name in given:
                if name not in allowed:
                    raise ValueError(unknown(f"simulation.{owner}", name, allowed))
        for owner in ("rules", "tasks", "hidden", "activation", "init_scale", "batch"):
            if not getattr(self, owner):
                raise ValueError(f"simulation.{owner} is empty; name at least one")
        if min(self.batch) < 1:
            raise ValueError(f"simulation.batch = {list(self.batch)} must be at least 1 each")
        if not 0 < self.displacement[0] <= self.displacement[1]:
            raise ValueError(f"simulation.displacement = {list(self.displacement)} must be two rising positive numbers")
        if self.own_rates is not None and not 0 < self.own_rates[0] <= self.own_rates[1]:
            raise ValueError(f"simulation.own_rates = {list(self.own_rates)} must be two rising positive numbers")
        for owner in ("blocks", "runs", "bursts", "updates"):
            if getattr(self, owner) < 1:
                raise ValueError(f"simulation.{owner} = {getattr(self, owner)} must be at least 1")
        for owner, what in (("taught", "updates before the rule takes over"), ("probes", "stimuli of every snapshot")):
            if getattr(self, owner) < 0:
                raise ValueError(f"simulation.{owner} = {getattr(self, owner)} must be at least 0: {what}")
        if not 0 < self.observed <= 1:
            raise ValueError(f"simulation.observed = {self.observed} must lie above 0 and be at most 1")
        for owner in ("weight_noise", "activity_noise"):
            if not 0 <= getattr(self, owner) < math.inf:
                raise ValueError(f"simulation.{owner} = {getattr(self, owner)} must be at least 0 and finite")
        if self.burst < 2:
            raise ValueError(f"simulation.burst = {self.burst} must be at least 2: one update lies between two")
        if self.burst * self.bursts > self.updates + self.burst:
            raise ValueError(
                f"simulation.updates = {self.updates} leaves no room for {self.bursts} bursts of {self.burst}; raise it"
            )

    @property
    def degradation(self) -> Degradation:
        """What the recordings lack, the same for all."""
        return Degradation(self.observed, self.weight_noise, self.activity_noise)

    @property
    def times(self) -> tuple[range, ...]:
        """The snapshots of every burst, in updates."""
        firsts = np.linspace(0, self.updates, self.bursts).round().astype(int).tolist()
        return tuple(range(first, first + self.burst) for first in firsts)

    def jobs(self) -> list[Job]:
        """Every block of networks, a value that a worker can be handed; rules take turns."""
        cells = itertools.product(range(self.blocks), self.tasks, self.hidden, self.rules)
        return [Job(self, rule, task, hidden, block) for block, task, hidden, rule in cells]

    @property
    def networks(self) -> int:
        """Networks in all."""
        return len(self.rules) * len(self.tasks) * len(self.hidden) * self.blocks * self.runs


class Job(NamedTuple):
    """One rule on one task and architecture: `simulation.runs` networks that learn side by side."""

    simulation: Simulation
    rule: str
    task: str
    hidden: tuple[int, ...]
    block: int


def read(path: Path) -> Simulation:
    """The [simulation] of a TOML file; raises SpecError where it cannot be read or is wrong."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from error
    extra = sorted(set(table) - {"simulation"})
    if extra or "simulation" not in table:
        found = f"found {', '.join(extra)}" if extra else "it is missing"
        raise SpecError(f"{path} must hold the one table [simulation]; {found}")
    try:
        return build(Simulation, table["simulation"], "simulation")
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(str(error)) from error


def simulated(job: Job, row: Algorithm | None = None) -> list[Recording]:
    """The recordings of a job, those of networks that diverged left out; `row` in place of the rule's own."""
    simulation, task = job.simulation, DATA[job.task]
    # what is drawn per block does not depend on the rule
    noise = noise_for([(simulation.seed, "block", job.task, *job.hidden, job.block)])

    def draw(name: str, options: tuple[Any, ...]) -> Any:
        return options[int(noise.at(name).integers(len(options)))]

    activation, batch = draw("activation", simulation.activation), draw("batch", simulation.batch)
    init_scale = draw("init", simulation.init_scale)
    sizes = (task.inputs, *job.hidden, task.outputs)
    network = Network.chain(sizes, activation, task.output, bias=True, init_scale=init_scale)
    learner = (row or REFERENCE[job.rule]).learner(network)
    episodes = [
        seed_number(simulation.seed, job.rule, job.task, *job.hidden, job.block, run, bits=62)
        for run in range(simulation.runs)
    ]
    low, high = (math.log(end) for end in simulation.own_rates or simulation.displacement)
    drawn = noise_for([(simulation.seed, "rate", episode) for episode in episodes]).uniform(low=low, high=high).exp()
    share = noise_for([(simulation.seed, "taught", episode) for episode in episodes]).uniform()
    with torch.no_grad():
        given = _taught(network, task, episodes, batch, simulation.taught, share)
        if simulation.own_rates is None:
            world, theta = _paced(learner, task, episodes, batch, drawn, given)
        else:
            theta = starts(learner.params, torch.float32) * drawn.to(torch.float32)[:, None]
            world = _world(learner, theta, task, episodes, batch)
        shots, accuracy = _watched(world, theta, simulation, given)
    meta = {
        "source": "simulation", "label": job.rule, "nonlinearity": activation, "beta": network.beta,
        "output": network.output, "probes": simulation.probes, "snapshot": "before", "task": job.task,
        "hidden": list(job.hidden), "init_scale": init_scale, "batch": batch,
        "populations": list(network.sizes),
    }  # fmt: skip
    probes = task.sample(noise.at("probes"), simulation.probes).train(0).x[0].to(torch.float32)
    found = []
    for run, episode in enumerate(episodes):
        # nan is not smaller than anything
        if all(bool((weight[run].abs() < DIVERGED).all()) for _, weights, _ in shots for weight in weights.values()):
            drew = {"displacement": float(drawn[run]), "taught": float(share[run])}
            drew["rate"] = float(theta[run, 0]) if theta.shape[1] else 0.0
            facts = {**meta, **drew, "accuracy": float(accuracy[run]), "network": str(episode)}
            found.append(_recording(network, shots, run, probes, facts))
    return found


Weights = dict[str, Tensor]
"""Weights (R I J) per projection."""


def _world(learner: Learner, theta: Tensor, task: Task, episodes: list[int], batch: int) -> World:
    """The networks of some episodes, one run each."""
    addresses = [(0, episode) for episode in episodes]
    return World(
        Block(
            learner, theta, task, addresses, 0, range(1), batch, frozenset(), (), (1,), 1, None, torch.float32, 1
        )
    )  # fmt: skip


def _taught(network: Network, task: Task, episodes: list[int], batch: int, updates: int, share: Tensor) -> Weights:
    """Weights a `share` (R) of the way from fresh ones to those that backprop makes of them in some updates."""
    learner = REFERENCE["backprop"].learner(network)
    theta = torch.full((len(episodes), len(learner.params)), TAUGHT_RATE, dtype=torch.float32)
    world, columns = _world(learner, theta, task, episodes, batch), learner.columns(theta)
    fresh = world.start(columns)
    # batches that no recording shows: those of steps beyond all recorded ones
    taught = world.advance(columns, fresh, range(LATER, LATER + updates), in_place=False, record=False)
    share = share.to(theta.dtype)[:, None, None]
    return {name: torch.lerp(weight, taught["weights"][name], share) for name, weight in fresh["weights"].items()}


def _paced(
    learner: Learner, task: Task, episodes: list[int], batch: int, drawn: Tensor, given: Weights
) -> tuple[World, Tensor]:
    """The networks with rates at which their weights move by what was drawn, and theta with these rates."""
    theta = starts(learner.params, torch.float32).repeat(len(episodes), 1)
    world = _world(learner, theta, task, episodes, batch)
    columns = learner.columns(theta * TIMID)
    before = learner.init(columns, world.episode_noise, given)
    after = world.advance(columns, before, range(TRIAL), in_place=False, record=False)
    moved, length = (torch.zeros(len(episodes)) for _ in range(2))
    for projection in learner.network.projections:
        first, last = (state["weights"][projection.name].flatten(1) for state in (before, after))
        moved = moved + (last - first).square().sum(1)
        length = length + first.square().sum(1)
    effect = (moved / length).sqrt().clamp(min=1e-12)
    return world, theta * TIMID * (drawn.to(theta.dtype) / effect)[:, None]


Shot = tuple[int, dict[str, Tensor], tuple[Tensor, Tensor | None]]
"""(time, weights per projection, (input, target) of the update that follows)."""


def _watched(world: World, theta: Tensor, simulation: Simulation, given: Weights) -> tuple[list[Shot], Tensor]:
    """Snapshots in bursts while the networks learn, and the accuracy that they reach."""
    columns = world.learner.columns(theta)
    state, now = world.learner.init(columns, world.episode_noise, given), 0
    shots: list[Shot] = []
    names = [projection.name for projection in world.learner.network.projections]
    for burst in simulation.times:
        for time in burst:
            if time > now:
                state = world.advance(columns, state, range(now, time), in_place=False, record=False)
                now = time
            batch = world.episode.train(time)
            shots.append((time, {name: state["weights"][name] for name in names}, (batch.x, batch.y)))
    return shots, world.score(columns, state)["accuracy"]


def _recording(network: Network, shots: list[Shot], run: int, probes: Tensor, meta: dict[str, Any]) -> Recording:
    weights, bias = {}, {}
    whole = {p.name: torch.stack([weights[p.name][run] for _, weights, _ in shots]) for p in network.projections}
    for projection in network.projections:
        weights[projection.name] = whole[projection.name][:, :, :-1].numpy()
        bias[projection.target] = whole[projection.name][:, :, -1].numpy()
    x = torch.stack([torch.cat((probes, shown[run])) for _, _, (shown, _) in shots])
    target = torch.stack([y[run] for _, _, (_, y) in shots if y is not None])
    silent = torch.full((len(shots), len(probes), target.shape[2]), torch.nan)
    activity = network.forward(whole, x).rates
    return Recording(
        np.array([time for time, _, _ in shots], dtype=np.float64),
        weights,
        bias,
        {name: activity[name].numpy() for name in network.sizes},
        x.numpy(),
        torch.cat((silent, target), dim=1).numpy(),
        meta=meta,
    )


def recordings(simulation: Simulation) -> Iterator[Recording]:
    """Every recording of a simulation, one block after another, with the noise that it asks for."""
    for job in simulation.jobs():
        for recording in simulated(job):
            if simulation.degradation == Degradation():
                yield recording
            else:
                noise = np.random.default_rng(seed_number("degrading", int(recording.meta["network"]), bits=62))
                yield degraded(recording, simulation.degradation, noise)
