"""Is the update the gradient of anything? The curl of a learner in a small copy of its network, on its task's data."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.inspection.curl import asymmetry
from metarule.learner import Learner
from metarule.network import Network
from metarule.rng import noise_for
from metarule.signals import Batch
from metarule.tasks import Task

UNITS = 6
"""Units that a population of the small copy has at most: the Jacobian is (its weights)²."""

EVENTS = 16
"""Events that are shown at once, or a single batch of the learner's where that is one."""


class Draws(NamedTuple):
    """A learner with its numbers on its own network, and the task whose data it is shown."""

    learner: Learner
    theta: Float[Tensor, "1 P"]
    task: Task
    batch: int
    episodes: tuple[int, ...]
    seed: int


def small(network: Network, units: int = UNITS) -> Network:
    """The same graph with at most `units` units in each population."""
    populations = tuple(each._replace(size=min(each.size, units)) for each in network.populations)
    return replace(network, populations=populations)


def small_batch(batch: Batch, network: Network) -> Batch:
    """The inputs that vary most, the targets folded onto fewer units: a class k is a class k modulo their number."""
    kept, outputs = network.populations[0].size, network.populations[-1].size
    varied = batch.x.flatten(0, 1).var(dim=0).topk(kept).indices.sort().values
    x = batch.x[..., varied]
    if batch.y is None:
        return Batch(x)
    if network.output != "softmax":
        return Batch(x, batch.y[..., :outputs])
    fold = torch.arange(batch.y.shape[-1]) % outputs
    return Batch(x, batch.y.new_zeros(*batch.y.shape[:-1], outputs).index_add_(-1, fold, batch.y))


def curls(draws: Draws) -> list[float] | str:
    """`asymmetry` at random weights, one number per episode, or why there is none."""
    learner = replace(draws.learner, network=small(draws.learner.network))
    names = [param.name for param in draws.learner.params]
    if [param.name for param in learner.params] != names:
        return "its parameters are those of its own network, so that it has no small copy"
    noise = noise_for([(draws.seed, "episode", episode) for episode in draws.episodes], torch.float64)
    episode = draws.task.sample(noise.at("data"), draws.batch)
    count = max(EVENTS // draws.batch, 1)
    batches = [episode.train(step) for step in range(count)]
    theta = draws.theta.to(torch.float64).expand(len(draws.episodes), -1)
    state = learner.init(learner.columns(theta), noise)
    if state["credit"] or any(state["rules"].values()):
        batches = batches[:1]  # what it remembers, it remembers of one batch after the other
    targets = [batch.y for batch in batches if batch.y is not None]
    whole = Batch(torch.cat([each.x for each in batches], 1), torch.cat(targets, 1) if targets else None)
    try:
        return asymmetry(learner, theta, state, small_batch(whole, learner.network), noise).tolist()
    except ValueError:
        if batches[0].reward is None:
            raise
        return "it is paid for what it does, and the reward of a task is not one of its small copy"
