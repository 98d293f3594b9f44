"""Task and Episode: what is learned, and how well it was learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from metarule.network import Activity, Network
from metarule.rng import Noise
from metarule.signals import Batch

Respond = Callable[[Tensor], Activity]
"""Input (R B J) -> activity of the trained networks, output included."""


class Rows(NamedTuple):
    """Batches by index: event b of run r at step t shows row x[x_rows[r, t, b]], and y[y_rows[r, t, b]] is its target.

    Tables (N J) and (N I), all targets absent or none; indices int64 (R T B).
    """

    x: Float[Tensor, "N J"]
    x_rows: Int[Tensor, "R T B"]
    y: Float[Tensor, "N I"] | None
    y_rows: Int[Tensor, "R T B"] | None


class Asked(NamedTuple):
    """Held-out questions by index: run r is asked row x[rows[r, q]], and output unit answers[r, q] is right.

    Table (N J), as that of `Rows`; indices int64 (R Q).
    """

    x: Float[Tensor, "N J"]
    rows: Int[Tensor, "R Q"]
    answers: Int[Tensor, "R Q"]


class Episode(ABC):
    """The data of R runs; run r sees its own episode, given by its address."""

    @abstractmethod
    def train(self, step: int) -> Batch:
        """The batch of inner step `step`: a pure function of the address and the step."""

    def rows(self, steps: range) -> Rows | None:
        """The batches of `train` at `steps` by index; None where they are not rows of a table."""
        return None

    def asked(self) -> Asked | None:
        """What `score` asks, where it is `scores.classification` of rows of a table and no more; else None."""
        return None

    @abstractmethod
    def score(self, respond: Respond, weights: Mapping[str, Float[Tensor, "R I J"]]) -> dict[str, Float[Tensor, "R"]]:
        """Every metric of the task on data the run did not train on; differentiable; the first one is the loss."""


class Task(ABC):
    """A family of episodes. Settings are the fields of a frozen dataclass."""

    kind: ClassVar[str]
    source: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]  # name -> "min" | "max": which way is better; the first is the loss
    baselines: ClassVar[tuple[str, ...]] = ("backprop", "feedback_alignment")  # rows of the zoo to compare with

    @property
    @abstractmethod
    def inputs(self) -> int:
        """Number of input units J."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of output units I."""

    @property
    def output(self) -> str:
        """The output the task wants, with the loss that matches it: "softmax", "sigmoid" or "linear"."""
        return "softmax"

    @property
    def headline(self) -> str:
        """The metric that comparisons are about: the first one that is better when larger, else the loss."""
        return next((name for name, way in self.metrics.items() if way == "max"), next(iter(self.metrics)))

    @abstractmethod
    def sample(self, noise: Noise, batch: int) -> Episode:
        """One episode per run of `noise`; equal addresses give equal data. `batch` is B of the training batches."""

    def steps(self, batch: int) -> int | None:
        """The number of inner steps the task itself defines (one online pass); None where any number will do."""
        return None

    @abstractmethod
    def held_out(self) -> Task:
        """The same task on data that a search over this one never sees (other images, classes or problems)."""

    def seen(self) -> str:
        """A sentence for reports: which data the episodes of this task draw from."""
        return "fresh random problems"

    def frozen(self, network: Network) -> frozenset[str]:
        """Names of the forward projections that the task forbids to learn."""
        return frozenset()
