"""Altered tasks: the same episodes with permuted or noisy inputs, wrong labels, samples again or class by class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import Task
from metarule.tasks.base import Episode


@dataclass(frozen=True)
class Altered(Task):
    """A task that is another one but for what `shown` makes of its episodes; held out, it is altered the same way."""

    task: Task

    def __post_init__(self) -> None:
        for name in ("kind", "source", "metrics", "baselines"):
            object.__setattr__(self, name, getattr(self.task, name))

    @property
    def inputs(self):
        return self.task.inputs

    @property
    def outputs(self):
        return self.task.outputs

    @property
    def output(self):
        return self.task.output

    def steps(self, batch):
        return self.task.steps(batch)

    def held_out(self):
        return replace(self, task=self.task.held_out())

    def seen(self):
        return self.task.seen()

    def frozen(self, network):
        return self.task.frozen(network)

    def sample(self, noise, batch):
        return self.shown(self.task.sample(noise, batch), noise.at("altered"), batch)

    @abstractmethod
    def shown(self, episode: Episode, noise: Noise, batch: int) -> Episode:
        """The altered episode of one of the task's; `noise` has an address of its own."""


@dataclass(frozen=True, eq=False)
class _Shown(Episode):
    """An altered episode, scored as the one that it was made of unless it says otherwise."""

    episode: Episode

    def score(self, respond, weights):
        return self.episode.score(respond, weights)


@dataclass(frozen=True)
class Permuted(Altered):
    """Input j shows what input `order[j]` showed: the same problem for a network whose inputs have no order.

    `reads` are the projections that start at the inputs: a task that looks at weights sees them in its own order.
    """

    order: tuple[int, ...]
    reads: tuple[str, ...] = ()

    def shown(self, episode, noise, batch):
        return _Permuted(episode, torch.tensor(self.order, device=noise.index.device), self.reads)


@dataclass(frozen=True, eq=False)
class _Permuted(_Shown):
    order: Int[Tensor, "J"]
    reads: tuple[str, ...]

    def train(self, step):
        batch = self.episode.train(step)
        return batch._replace(x=batch.x[..., self.order])

    def score(self, respond, weights):
        back = self.order.argsort()
        placed: dict[str, Tensor] = dict(weights)
        for name in self.reads:
            pixels = weights[name][..., : len(back)]
            placed[name] = torch.cat((pixels[..., back], weights[name][..., len(back) :]), dim=-1)
        return self.episode.score(lambda x: respond(x[..., self.order]), placed)


@dataclass(frozen=True)
class Noisy(Altered):
    """Normal noise of standard deviation `size` on every input, fresh at every step and where it is scored."""

    size: float

    def shown(self, episode, noise, batch):
        return _Noisy(episode, noise, self.size)


@dataclass(frozen=True, eq=False)
class _Noisy(_Shown):
    noise: Noise
    size: float

    def _with_noise(self, x: Tensor, *address: str | int) -> Tensor:
        return x + self.size * self.noise.at(*address).normal(*x.shape[1:])

    def train(self, step):
        batch = self.episode.train(step)
        return batch._replace(x=self._with_noise(batch.x, "input", step))

    def score(self, respond, weights):
        return self.episode.score(lambda x: respond(self._with_noise(x, "scored")), weights)


@dataclass(frozen=True)
class Mislabelled(Altered):
    """A `share` of the samples is taught, or paid for, as the sample of the next of `period` steps; scores are not."""

    share: float
    period: int

    def shown(self, episode, noise, batch):
        return _Mislabelled(episode, noise, self.share, self.period)


@dataclass(frozen=True, eq=False)
class _Mislabelled(_Shown):
    noise: Noise
    share: float
    period: int

    def train(self, step):
        own, other = self.episode.train(step), self.episode.train((step + 1) % self.period)
        wrong = self.noise.at("labels", step).uniform(own.x.shape[1]) < self.share
        return Batch(own.x, _mixed_targets(own, other, wrong), _mixed_rewards(own, other, wrong))


def _mixed_targets(own: Batch, other: Batch, wrong: Bool[Tensor, "R B"]) -> Tensor | None:
    if own.y is None or other.y is None:
        return None
    return torch.where(wrong[:, :, None], other.y, own.y)


def _mixed_rewards(own: Batch, other: Batch, wrong: Bool[Tensor, "R B"]):
    mine, theirs = own.reward, other.reward
    if mine is None or theirs is None:
        return None
    return lambda action: torch.where(wrong[:, :, None], theirs(action), mine(action))


@dataclass(frozen=True)
class Again(Altered):
    """The samples of the first `period` steps over and over: a task of one pass for as long as wanted."""

    period: int

    def steps(self, batch):
        return None

    def shown(self, episode, noise, batch):
        return _Again(episode, self.period)


@dataclass(frozen=True, eq=False)
class _Again(_Shown):
    period: int

    def train(self, step):
        return self.episode.train(step % self.period)


@dataclass(frozen=True)
class ByClass(Altered):
    """The samples of the first `period` steps class by class, each class once, in an order of the episode's own.

    All of them are held at once: (R, period B, J) numbers. Targets are one-hot.
    """

    period: int

    def shown(self, episode, noise, batch):
        shown = [episode.train(step) for step in range(self.period)]
        x = torch.cat([each.x.expand(noise.runs, -1, -1) for each in shown], dim=1)
        y = torch.cat([each.y.expand(noise.runs, -1, -1) for each in shown if each.y is not None], dim=1)
        rank = noise.at("classes").rows(y.shape[2], y.shape[2])
        order = rank.gather(1, y.argmax(2)).argsort(dim=1, stable=True)[:, :, None]
        paid = shown[0].reward is not None
        return _ByClass(episode, x.take_along_dim(order, 1), y.take_along_dim(order, 1), batch, paid)


@dataclass(frozen=True, eq=False)
class _ByClass(_Shown):
    x: Float[Tensor, "R samples J"]
    y: Float[Tensor, "R samples I"]
    batch: int
    paid: bool

    def train(self, step):
        part = slice(step * self.batch, (step + 1) * self.batch)
        y = self.y[:, part]
        # what a task of classes pays is 1 for the right one
        return Batch(self.x[:, part], y, (lambda action: (action * y).sum(-1, keepdim=True)) if self.paid else None)
