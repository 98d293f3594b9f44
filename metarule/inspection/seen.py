"""Seen: a population of runs at one moment of its training, and the data on which a probe looks at it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.alignment import Updates, updates
from metarule.block import World
from metarule.learner import Columns, Learner
from metarule.network import Activity, Projection
from metarule.signals import Batch, State
from metarule.tasks.base import Episode, Respond

EVENTS = 256
"""Events of the training data over which a probe averages."""

TOGETHER = 32
"""Events that are shown at once where a learner treats them one by one anyway."""

ByLayer = dict[str, Float[Tensor, "R"]]
"""A probe's answer: layer -> a number per run."""


class Shown(Episode):
    """An episode that shows one batch, whatever the step."""

    def __init__(self, episode: Episode, batch: Batch) -> None:
        self.episode, self.batch = episode, batch

    def train(self, step: int) -> Batch:
        return self.batch

    def score(self, respond: Respond, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.episode.score(respond, weights)


@dataclass(frozen=True, eq=False)
class Seen:
    """R runs after `step` steps, in `state`. `batches` are of their training data, `single` some as they learn from."""

    world: World
    columns: Columns
    state: State
    step: int
    batches: tuple[Batch, ...]
    single: tuple[Batch, ...]

    @property
    def learner(self) -> Learner:
        """Who learns."""
        return self.world.learner

    @property
    def layers(self) -> tuple[Projection, ...]:
        """The forward projections that learn."""
        own = self.learner.network.projections
        return tuple(p for p in self.learner.plastic if p in own and p.name not in self.world.frozen)

    @property
    def taught(self) -> bool:
        """True where there are targets, and with them a gradient to compare with."""
        return self.batches[0].y is not None

    @functools.cached_property
    def updates(self) -> tuple[Updates, Updates]:
        """The induced changes, and gradient descent's, over all `batches`."""
        noise = self.world.run_noise.at("probes")
        return updates(self.learner, self.columns, self.state, enumerate(self.batches, self.step), noise)

    @functools.cached_property
    def activity(self) -> Activity:
        """What all units do on `batches` when nobody teaches."""
        x = torch.cat([batch.x for batch in self.batches], dim=1)
        noise = self.world.run_noise.at("probes")
        state = self.state
        return self.learner.credit.respond(
            self.columns.credit, self.learner.network, state["weights"], state["credit"], x, noise
        )

    def moved(self, batch: Batch, state: State, step: int) -> Updates:
        """By how much one step on a batch moves the weights of a state, the synapse model included."""
        there = copy.copy(self.world)
        there.episode = Shown(self.world.episode, batch)
        after = there.advance(self.columns, state, range(step, step + 1), in_place=False, record=False)
        return {p.name: after["weights"][p.name] - state["weights"][p.name] for p in self.layers}


def shown(world: World, columns: Columns, state: State, total: int, events: int = EVENTS) -> tuple[Batch, ...]:
    """Batches of the training data of `total` steps, evenly spread, `events` in all.

    Small ones are put together, up to `TOGETHER` events, unless the learner could tell: where it keeps a state from one
    batch to the next, or draws a perturbation of the weights for each.
    """
    size = world.block.batch
    count = max(min(events // size, total), 1)
    batches = [world.episode.train(place * total // count) for place in range(count)]
    stateful = bool(state["credit"]) or any(state["rules"].values())
    perturbed = any("weight_noise" in reads for reads in world.learner.wanted.values())
    group = 1 if stateful or perturbed else max(TOGETHER // size, 1)
    return tuple(_joined(batches[first : first + group]) for first in range(0, count, group))


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    targets = [batch.y for batch in batches if batch.y is not None]
    rewards = [batch.reward for batch in batches if batch.reward is not None]
    sizes = [batch.x.shape[1] for batch in batches]

    def reward(action: Tensor) -> Tensor:
        return torch.cat([pay(part) for pay, part in zip(rewards, action.split(sizes, dim=1), strict=True)], dim=1)

    x = torch.cat([batch.x for batch in batches], dim=1)
    return Batch(x, torch.cat(targets, dim=1) if targets else None, reward if rewards else None)
