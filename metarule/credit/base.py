"""CreditAssignment: how a unit learns of its error; it turns a batch into the signals at every projection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from metarule.network import Activity, Network, Projection
from metarule.params import Param
from metarule.rng import Noise
from metarule.signals import Batch, Signals, State

CROSSINGS = ("nothing", "transposed", "own", "own_taught", "direct", "signs", "signs_of_own")
"""What an error crosses a forward projection by: nothing at all; the transposed forward weights; feedback weights of
their own, taught or not; such weights from the output; the signs of the forward weights, of one size or of the
feedback weights' sizes."""

Weights = Mapping[str, Float[Tensor, "R I J"]]


class CreditAssignment(ABC):
    """Settings are the fields of a frozen dataclass; no autograd inside."""

    kind: ClassVar[str]
    source: ClassVar[str]
    gives: ClassVar[frozenset[str]]  # the signals a rule may read at a forward projection
    plastic_roles: ClassVar[frozenset[str]] = frozenset()  # roles of its own projections that need a rule to learn
    not_local: ClassVar[str] = "Not stated."  # what it uses that is not at hand where it is used, in a sentence
    over_positions: ClassVar[bool] = False  # whether it works where positions of an image share a weight
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # {"activation" | "output": what it insists on}

    @property
    def crossing(self) -> str | None:
        """The one of `CROSSINGS` that its explicit error goes by; None where only `stage` can tell.

        For engines that compute this themselves. A class that changes how errors travel states it anew.
        """
        return None

    @property
    def params(self) -> tuple[Param, ...]:
        """The numbers of the credit assignment that a search may move."""
        return ()

    def projections(self, network: Network) -> tuple[Projection, ...]:
        """The projections it adds to the network: feedback, inverses, lateral connections, heads."""
        return ()

    def gives_at(self, network: Network, projection: Projection) -> frozenset[str]:
        """The signals given at `projection`, one of its own or a forward one of `network`."""
        return self.gives

    def tied(self, network: Network, weights: Weights) -> Weights:
        """The initial weights: as they were drawn, unless some of its own projections start as copies of others."""
        return weights

    def init(self, theta: Float[Tensor, "R P"], network: Network, weights: Weights, noise: Noise) -> State:
        """Its own state at the start of a run, every tensor with R first; `noise` is the episode's."""
        return {}

    def stages(self, network: Network, batch: Batch) -> int:
        """Plasticity events per batch; each stage's updates are applied before the next stage is asked for."""
        return 1

    @abstractmethod
    def stage(
        self,
        k: int,
        theta: Float[Tensor, "R P"],
        network: Network,
        weights: Weights,
        state: State,
        batch: Batch,
        step: int,
        noise: Noise,
        wanted: Mapping[str, frozenset[str]],
    ) -> tuple[dict[str, Signals], State]:
        """The signals of stage k at every projection that is to change, and the new state.

        `wanted` names, per plastic projection, the signals that its rule reads: others need not be computed.
        A projection absent from the result is not stepped. `noise` is the run's.
        """

    def respond(
        self, theta: Float[Tensor, "R P"], network: Network, weights: Weights, state: State, x: Tensor, noise: Noise
    ) -> Activity:
        """Hidden and output activity for x (R B J) when nobody teaches; the feedforward pass unless overridden."""
        return network.forward(weights, x)
