"""Lstm: every synapse carries a small recurrent network, the same for all, that turns its slopes into changes."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from metarule.collect import check_chosen
from metarule.params import Param
from metarule.recurrent import Recurrent
from metarule.rules.base import Rule
from metarule.signals import Change
from metarule.terms import TERMS, combine, glorot


@dataclass(frozen=True)
class Lstm(Rule):
    """dW_ij = rate s lstm(<term>_ij, state_ij), s = sqrt(2 / (I + J)): a learned optimizer, coordinate by coordinate.

    Each of `terms` is a channel, seen as size and sign (`recurrent.compressed`); `error_pre` is minus the gradient of
    the loss per event where errors are backprop's. `normalise = false` leaves out s and gives the raw terms. The
    terms are constants to a meta-gradient unless `second_derivatives`: through the logarithm of a slope that passes 0
    it explodes. State: units and cells of all synapses, (R, I J, H) each; a step takes about 12 R I J H numbers.
    Raises ValueError on an unknown, repeated or missing term, and where a size is not positive.
    """

    kind = "lstm"
    source = "Andrychowicz et al. 2016"

    terms: tuple[str, ...] = ("error_pre",)
    hidden: int = 10
    layers: int = 1
    reach: float = 10.0
    rate: float = 0.1
    normalise: bool = True
    second_derivatives: bool = False
    seed: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_chosen("rule.terms", self.terms, TERMS, "term")
        if self.rate <= 0:
            raise ValueError(f"rule.rate = {self.rate} must be positive")
        self._network  # noqa: B018 - it refuses sizes that are none

    @functools.cached_property
    def _network(self) -> Recurrent:
        try:
            return Recurrent(tuple(self.terms), self.hidden, self.layers, self.reach)
        except ValueError as error:
            raise ValueError(f"rule.{error}") from error

    @functools.cached_property
    def _params(self) -> tuple[Param, ...]:
        network = self._network
        numbers = zip(network.names, network.starts(self.seed), strict=True)
        return tuple(Param(name, start, self.scale) for name, start in numbers)

    @property
    def params(self):
        return self._params

    @property
    def reads(self):
        return frozenset(signal for name in self.terms for signal in TERMS[name].reads)

    @property
    def local(self):
        return all(TERMS[name].local for name in self.terms)

    @property
    def per_synapse(self):
        return 12 * self.hidden * self.layers  # four gates before and after, two cells, two units and what is read

    def init(self, theta, weight):
        return self._network.init(weight.flatten(1))

    def delta(self, theta, signals, state, noise):
        shape = signals.weight.shape
        scale = glorot(*shape[1:]) if self.normalise else 1.0
        channels = []
        for name in self.terms:
            unit = TERMS[name].scale(*shape[1:]) / scale if self.normalise else 1.0
            induced = combine((TERMS[name],), theta.new_full((len(theta), 1), unit), signals)
            channels.append(induced.tensor(signals.weight).flatten(1))
        slopes = torch.stack(channels, dim=2)
        answer, state = self._network.step(theta, slopes if self.second_derivatives else slopes.detach(), state)
        return Change(full=self.rate * scale * answer.unflatten(1, shape[1:])), state
