"""Learning from a single number: noise on weights, and actions that were tried."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.credit import CreditAssignment
from metarule.params import Param
from metarule.rng import Noise
from metarule.signals import Batch, Signals
from metarule.tasks import Task
from metarule.tasks.base import Episode


@dataclass(frozen=True)
class WeightPerturbation(CreditAssignment):
    """All plastic weights are tried with noise Z of size sigma; reward = (reward with - reward without) / sigma^2."""

    kind = "weight_perturbation"
    source = "Cauwenberghs 1993"
    gives = frozenset({"reward", "weight_noise"})

    @property
    def params(self):
        return (Param("sigma", start=1e-3, log=True),)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        assert batch.reward is not None
        sigma = theta[:, :1, None]
        tried = {name: sigma * noise.at(name).normal(*weights[name].shape[1:]) for name in wanted}
        top = network.output_name
        moved = {**weights, **{name: weights[name] + tried[name] for name in tried}}
        with_noise = batch.reward(network.forward(moved, batch.x).rates[top])
        gained = (with_noise - batch.reward(network.forward(weights, batch.x).rates[top])) / sigma.square()
        return {name: Signals(weights[name], reward=gained, weight_noise=tried[name]) for name in wanted}, state


@dataclass(frozen=True)
class Reinforce(CreditAssignment):
    """An action is drawn from the softmax output; post = action, post_ref = its probability, reward - baseline.

    The baseline is a running mean of rewards, the one thing the credit assignment remembers.
    """

    kind = "reinforce"
    source = "Williams 1992"
    gives = frozenset({"pre", "post", "post_ref", "reward"})
    requires = {"output": ("softmax",)}  # noqa: RUF012

    memory: float = 0.9

    def init(self, theta, network, weights, noise):
        return {"baseline": theta.new_zeros(theta.shape[0], 1, 1)}

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        assert batch.reward is not None
        rates = network.forward(weights, batch.x).rates
        chances = rates[network.output_name]
        edges = chances.cumsum(-1)
        drawn = noise.at("action").uniform(chances.shape[1], 1)
        places = (drawn > edges[:, :, :-1]).sum(-1)
        action = torch.eye(chances.shape[2], dtype=chances.dtype)[places]
        reward = batch.reward(action)
        baseline = state["baseline"]
        signals = {
            p.name: Signals(weights[p.name], network.pre(p, rates), action, post_ref=chances, reward=reward - baseline)
            for p in network.into(network.output_name)
            if p.name in wanted
        }
        mean = self.memory * baseline + (1 - self.memory) * reward.mean(1, keepdim=True)
        return signals, {"baseline": mean}


@dataclass(frozen=True)
class Bandit(Task):
    """Contexts are standard normal; the action that a hidden linear teacher ranks first is paid 1, the others 0.

    Scored by the chance not to be paid.
    """

    inputs: int = 4  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    outputs: int = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    kind = "bandit"
    source = "Sutton and Barto 2018"
    metrics = {"unpaid": "min"}  # noqa: RUF012

    def sample(self, noise, batch):
        return BanditEpisode(noise, noise.at("teacher").normal(self.outputs, self.inputs), batch)

    def held_out(self):
        return self


@dataclass(frozen=True, eq=False)
class BanditEpisode(Episode):
    """One teacher per run; training shows contexts and pays, and never says which action was right."""

    noise: Noise
    teacher: Float[Tensor, "R I J"]
    batch: int

    def train(self, step):
        x = self.noise.at("context", step).normal(self.batch, self.teacher.shape[2])
        return Batch(x, None, lambda action: (action * self.paid(x)).sum(-1, keepdim=True))

    def score(self, respond, weights):
        x = self.noise.at("test").normal(100, self.teacher.shape[2])
        rates = respond(x).rates
        return {"unpaid": 1 - (rates[next(reversed(rates))] * self.paid(x)).sum(-1).mean(1)}

    def paid(self, x: Float[Tensor, "R B J"]) -> Float[Tensor, "R B I"]:
        """1 at the right action."""
        ranks = torch.bmm(x, self.teacher.transpose(1, 2))
        return torch.eye(ranks.shape[2], dtype=x.dtype)[ranks.argmax(-1)]
