"""Attention-gated reinforcement: the chosen output unit alone sends feedback, a global number says how it went."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from torch import Tensor

from metarule.credit.acting import one_of, paid
from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import EXPLICIT, forward_signals, sent_down, without_bias
from metarule.params import Param
from metarule.rng import Noise


class AttentionGated(CreditAssignment):
    """error_L = 1 at the chosen unit, error_l = gain_l W_{l+1}^T error_{l+1}; a member says how it chooses.

    `reward` is the member's prediction error: one number, the same at every projection.
    """

    gives = EXPLICIT | {"reward"}

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        activity = network.forward(weights, batch.x)
        rate = activity.rates[network.output_name]
        chosen = self.choose(theta, rate, noise)
        surprise = self.surprise(paid(batch, chosen), (chosen * rate).sum(-1, keepdim=True))

        def send(projection, error):
            return torch.bmm(error, without_bias(projection, weights[projection.name]))

        feedback, errors = sent_down(network, activity, chosen, send, wanted)
        signals = forward_signals(network, weights, activity, feedback, errors, wanted)
        return {name: replace(seen, reward=surprise) for name, seen in signals.items()}, state

    def choose(self, theta: Tensor, rate: Tensor, noise: Noise) -> Tensor:
        """The chosen unit, one-hot (R B I), given the output's rates."""
        raise NotImplementedError

    def surprise(self, reward: Tensor, rate: Tensor) -> Tensor:
        """The prediction error (R B 1), given the reward and the chosen unit's rate."""
        raise NotImplementedError


@dataclass(frozen=True)
class Agrel(AttentionGated):
    """A unit s is chosen with its softmax chance p_s; reward = r / p_s - 1.

    For r of 0 or 1 these are f(delta) = delta / (1 - delta) of delta = 1 - p_s and -1. Where one choice is right, the
    update is that of backprop on the cross-entropy on average over choices.
    """

    kind = "agrel"
    source = "Roelfsema and van Ooyen 2005"
    not_local = (
        "Feedback comes from the chosen output alone, through the transposed forward weights; the reward reaches "
        "every synapse."
    )
    requires = {"output": ("softmax",)}  # noqa: RUF012

    def choose(self, theta, rate, noise):
        return one_of(rate, noise.at("choice"))

    def surprise(self, reward, rate):
        return reward / rate - 1


@dataclass(frozen=True)
class Augment(AttentionGated):
    """Outputs are action values q; reward = r - q_s, so that the update descends (r - q_s)^2 / 2.

    The unit of the highest value is chosen, or with chance `exploration` one drawn by softmax of q.
    """

    kind = "augment"
    source = "Rombouts, Bohte and Roelfsema 2015"
    not_local = (
        "Feedback comes from the chosen output alone, through the transposed forward weights; the reward reaches "
        "every synapse."
    )
    requires = {"output": ("linear",)}  # noqa: RUF012

    @property
    def params(self):
        return (Param("exploration", start=0.05, low=0.0, high=1.0),)

    def choose(self, theta, rate, noise):
        explores = theta[:, :1, None]
        best = functional.one_hot(rate.argmax(-1), rate.shape[2]).to(rate.dtype)
        return one_of((1 - explores) * best + explores * torch.softmax(rate, -1), noise.at("choice"))

    def surprise(self, reward, rate):
        return reward - rate
