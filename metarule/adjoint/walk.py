"""What an adjoint is asked for: some steps of some runs there, with a tape, and back along it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.block import World
from metarule.fused.learners import listed, plain, rate, served
from metarule.fused.tables import Table, tabled
from metarule.learner import Columns, Learner
from metarule.network import Projection
from metarule.signals import State


class Cotangents(NamedTuple):
    """The gradient of the objective in what a run consists of, by the name of the projection that learns.

    `weights` and, where there is a momentum, `velocities` (R I J) belong to one moment. `coefficients` (R K), those of
    `Rule.listed`, and `rates` (R), the first column of the synapse model, are sums over the steps walked back so far.
    """

    weights: dict[str, Float[Tensor, "R I J"]]
    velocities: dict[str, Float[Tensor, "R I J"]]
    coefficients: dict[str, Float[Tensor, "R K"]]
    rates: dict[str, Float[Tensor, "R"]]


class RoundTrip(NamedTuple):
    """All steps of a block there, scored after them, and back.

    `missed` (R 2), by the name of the projection that learns: the squared distance of its rebuilt weights from those
    that it began with, and the squared norm of these.
    """

    scores: dict[str, Float[Tensor, "R"]]
    gradient: Cotangents
    missed: dict[str, Float[Tensor, "R 2"]]


class Walk(ABC):
    """Some runs of a block, without autograd. `columns` are their parameters, detached.

    Learners are those that `fused.learners.refused` has nothing against. Run r of all results depends on run r only.
    """

    def __init__(self, world: World, columns: Columns) -> None:
        self.world, self.columns = world, columns

    def nothing(self) -> Cotangents:
        """Sums that nothing was added to, and no weights."""
        learner, mine = self.world.learner, served(self.world.learner)
        coefficients = {name: listed(learner, p, self.columns).coefficients for name, p in mine.items()}
        rates = {name: rate(learner, p, self.columns) for name, p in mine.items()}
        zeros = torch.zeros_like
        return Cotangents(
            {}, {}, {name: zeros(c) for name, c in coefficients.items()}, {name: zeros(r) for name, r in rates.items()}
        )

    @staticmethod
    @abstractmethod
    def numbers(learner: Learner, batch: int) -> int:
        """How many numbers a step adds to the tape of one run, the weights apart."""

    @abstractmethod
    def there(self, state: State, steps: range, keep_weights: bool) -> tuple[State, Any]:
        """The state after `steps` and their tape.

        What `state` holds of projections that learn, weights and velocities, is the walk's to overwrite: whoever needs
        it later hands in a copy. All else in it is left alone. `steps` may be empty. Without `keep_weights`, which is
        for learners that are `rebuildable`, the tape holds no weights.
        """

    @abstractmethod
    def back(self, state: State, tape: Any, after: Cotangents) -> tuple[State, Cotangents]:
        """The state before the steps of a tape and the cotangents there; `state` and `after` are those after them.

        Both are the walk's to overwrite. The state's weights are rebuilt, or come from the tape where it kept them;
        its velocities need not be right. The sums among the cotangents go on from those of `after`.
        """

    def round_trip(self, state: State, share: float, weights: frozenset[str]) -> RoundTrip | None:
        """All steps from `state`, which stays as it is, and back at once; None where this walk cannot do it so.

        For learners that are `rebuildable`, blocks that are scored after their last step, and a gradient of `share`
        times their first objective. `weights` names the first weights whose gradients are asked for, and no others are
        found.
        """
        return None


def rebuildable(learner: Learner) -> bool:
    """Whether weights before a step follow from those after it: no momentum, and no more of the weight than decay."""
    columns = learner.columns(torch.zeros(1, len(learner.params)))
    return all(
        plain(learner, projection).momentum is None
        and all(table.power == 0 or decay(table) for table in tabled(listed(learner, projection, columns).terms))
        for projection in served(learner).values()
    )


def decay(table: Table) -> bool:
    """Whether a table is no more than a multiple of the weight."""
    return table.power == 1 and table.rows == table.columns == ((),)


def shrinking(learner: Learner, projection: Projection, columns: Columns) -> Float[Tensor, "R"]:
    """How much of a weight is lost per step at rate 1, by decay of the synapse model and by a term of its own."""
    terms, coefficients = listed(learner, projection, columns)
    lost = coefficients.new_full((len(coefficients),), plain(learner, projection).weight_decay)
    for table in tabled(terms):
        if decay(table):
            lost = lost - table.coefficients(coefficients)[:, 0]
    return lost
