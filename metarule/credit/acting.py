"""What the kinds of credit that learn from a number share: how an output acts, and what it is paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as functional
from torch import Tensor

from metarule.credit.base import CreditAssignment
from metarule.network import Activity, Network
from metarule.rng import Noise
from metarule.signals import Batch, State


class Act(NamedTuple):
    """An action (R B I) drawn around `mean`; (action - mean) * precision is the score, d log chance / d drive."""

    action: Tensor
    mean: Tensor
    precision: Tensor | float


def act(network: Network, mean: Tensor, sigma: Tensor, noise: Noise) -> Act:
    """A draw from the stochastic policy whose mean is the output's rate (R B I).

    Softmax: one unit is chosen. Sigmoid: every unit fires or not. Linear: normal of standard deviation `sigma`.
    """
    if network.output == "softmax":
        return Act(one_of(mean, noise), mean, 1.0)
    if network.output == "sigmoid":
        return Act((noise.uniform(*mean.shape[1:]) < mean).to(mean.dtype), mean, 1.0)
    return Act(mean + sigma * noise.normal(*mean.shape[1:]), mean, sigma**-2)


def one_of(chances: Tensor, noise: Noise) -> Tensor:
    """One-hot draws (R B I) from chances (R B I) that sum to 1."""
    edges = chances.cumsum(-1)[:, :, :-1]
    place = (noise.uniform(chances.shape[1], 1) > edges).sum(-1)
    return functional.one_hot(place, chances.shape[2]).to(chances.dtype)


def paid(batch: Batch, action: Tensor) -> Tensor:
    """The reward (R B 1) of an action; raises ValueError where the task pays none."""
    if batch.reward is None:
        raise ValueError("this credit assignment needs a reward, and the task pays none; credit.kind = 'none' fits")
    return batch.reward(action)


def worth(network: Network, batch: Batch, activity: Activity) -> Tensor:
    """How good an output is (R B 1): minus the matched loss where the task shows a target, else the reward it pays."""
    top = network.output_name
    return paid(batch, activity.rates[top]) if batch.y is None else -network.loss(activity.drives[top], batch.y)


def explored(network: Network, wanted: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The populations that a plastic forward projection ends at: noise elsewhere teaches nobody."""
    return frozenset(projection.target for projection in network.projections if projection.name in wanted)


@dataclass(frozen=True)
class SingleTrial(CreditAssignment):
    """Acts once per event and hears one number; what it learns from is success = reward - expected.

    expected <- memory expected + (1 - memory) <reward>, the one thing that it remembers.
    Raises ValueError where `memory` is not in [0, 1).
    """

    memory: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.memory < 1:
            raise ValueError(f"credit.memory = {self.memory} must lie in [0, 1)")

    def init(self, theta, network, weights, noise):
        return {"expected": theta.new_zeros(theta.shape[0], 1, 1)}

    def success(self, state: State, batch: Batch, action: Tensor) -> tuple[Tensor, State]:
        """reward - expected (R B 1), and the new expectation."""
        reward = paid(batch, action)
        return reward - state["expected"], self.expecting(state, reward)

    def expecting(self, state: State, reward: Tensor) -> State:
        """The state once a reward (R B 1) was heard."""
        mean = reward.mean(1, keepdim=True)
        return {"expected": self.memory * state["expected"] + (1 - self.memory) * mean}
