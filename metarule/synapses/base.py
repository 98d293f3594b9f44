"""SynapseModel: how an induced change becomes a change of the weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor

from metarule.params import Param
from metarule.rng import Noise
from metarule.signals import Change, State


class Plain(NamedTuple):
    """v <- momentum v + change - weight_decay w; dw = rate v, or rate (change + momentum v) with `nesterov`.

    v is the state "velocity"; without a momentum (None) there is none, and dw = rate (change - weight_decay w).
    """

    weight_decay: float = 0.0
    momentum: float | None = None
    nesterov: bool = False


class SynapseModel(ABC):
    """Per-synapse dynamics between a rule and a weight; its first parameter is always `rate`.

    `owns_scale` is True where the size of the induced change does not matter (Adam): the rate is then always the
    model's own. Elsewhere a rule with coefficients carries the step size and the Learner fixes the rate at 1.
    """

    kind: ClassVar[str]
    source: ClassVar[str]
    owns_scale: ClassVar[bool] = False

    @property
    @abstractmethod
    def params(self) -> tuple[Param, ...]:
        """The numbers of the model, `rate` first."""

    @property
    def plain(self) -> Plain | None:
        """What the model comes to where it is no more than momentum; None elsewhere.

        For engines that compute this themselves. A class that changes `step` states it anew.
        """
        return None

    def init(self, theta: Float[Tensor, "R P"], weight: Float[Tensor, "R I J"]) -> State:
        """The model's state at the start of a run, every tensor with R first."""
        return {}

    @abstractmethod
    def step(
        self,
        theta: Float[Tensor, "R P"],
        weight: Float[Tensor, "R I J"],
        change: Change,
        rate: float,
        state: State,
        noise: Noise,
    ) -> tuple[Change, State]:
        """The change that is added to the weight, and the new state; `rate` is the schedule's, times the model's own.

        The engine does the adding, in place where it may. With a schedule's rate of 0 this is not called.
        """
