"""OuterLoop: who proposes the rule. ask -> evaluate -> tell, on rows of theta."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarule.params import Param
from metarule.rng import Noise

Fingerprint = Callable[[Float[Tensor, "C P"]], Float[Tensor, "C F"]]
"""Rows of theta -> what their rules do on fixed probe signals: rows with equal fingerprints are one rule."""


class Window(NamedTuple):
    """The part of an inner run that a generation covers: which unroll it belongs to, and which of its steps."""

    unroll: int
    steps: range


class OuterLoop(ABC):
    """The one stateful part of a search: it remembers between `tell` and the next `ask`.

    Settings are the fields of a dataclass; what `start` sets up is not among them. The whole memory goes through
    `state_dict`, in tensors and JSON values; randomness comes from the `noise` given to `ask`, so that a loop that
    is restored continues bit for bit. Losses are (C M), the first objective leads; +inf is a failed candidate.
    """

    kind: ClassVar[str]
    source: ClassVar[str]
    accepts: ClassVar[frozenset[str]]  # of {"real", "categorical", "objectives"}

    @property
    def wants(self) -> frozenset[str]:
        """What an evaluation must give, of {"loss", "grad", "forward"}: "forward" asks for "grad" in forward mode."""
        return frozenset({"loss"})

    @abstractmethod
    def start(self, params: tuple[Param, ...], objectives: int = 1) -> None:
        """Begin a search over `params` with M = `objectives`; called once, before everything else."""

    @abstractmethod
    def ask(self, candidates: int, noise: Noise) -> Float[Tensor, "C P"]:
        """The rows of theta to evaluate next, float64, inside their bounds: at least one, at most `candidates`."""

    @abstractmethod
    def tell(
        self, theta: Float[Tensor, "C P"], loss: Float[Tensor, "C M"], grad: Float[Tensor, "C P"] | None = None
    ) -> None:
        """Hear what became of the rows that `ask` proposed; those that `keep` dropped come with a loss of +inf."""

    @property
    @abstractmethod
    def best(self) -> Float[Tensor, "P"]:
        """The rule the search would hand over now: where its distribution stands, not its luckiest sample."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything `load_state_dict` needs: tensors, numbers, strings, lists of them."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, after `start`, from what `state_dict` returned."""

    def window(self, generation: int, steps: int) -> Window:
        """What a generation covers of an inner run of `steps`; a pure function of the settings.

        Where it does not start at 0 the same runs go on from where the generation before left them, each by the row of
        theta that is now asked for in its place: truncation. A generation that starts at 0 begins new runs.
        """
        return Window(generation, range(steps))

    def prepare(self, window: Window) -> None:  # noqa: B027 - most loops need not know
        """Told before every `ask` what its generation covers, where it matters to what is asked or learned."""

    def rungs(self, steps: int) -> tuple[int, ...]:
        """Numbers of inner steps after which `keep` is asked; none with "grad" in `wants`."""
        return ()

    def keep(self, theta: Float[Tensor, "C P"], loss: Float[Tensor, "C M"], step: int) -> Bool[Tensor, "C"]:
        """Which of the rows still running go on after `step` steps, by their losses so far."""
        return torch.ones(len(theta), dtype=torch.bool)

    def warm(self, rows: Float[Tensor, "N P"]) -> None:
        """Known rules to try first, given after `start`; raises ValueError where the loop cannot use them."""
        raise ValueError(f"outer.kind = '{self.kind}' does not start from known rules; leave out [[known]]")

    def recognise(self, fingerprint: Fingerprint) -> None:  # noqa: B027 - most loops have no use for it
        """Told after `start` how to see that two rows are the same rule."""

    @property
    def front(self) -> Float[Tensor, "N P"]:
        """The rules that no other beats in one objective without losing in another."""
        return self.best[None]

    @property
    def front_losses(self) -> Float[Tensor, "N M"]:
        """The losses of the rows of `front`; nan where the loop does not remember them."""
        return torch.full((len(self.front), 1), torch.nan, dtype=torch.float64)

    @property
    def covariance(self) -> Float[Tensor, "P P"] | None:
        """How far, and in which directions, candidates still differ about `best`, in internal coordinates.

        None where the loop keeps no such distribution, or hands over a rule that is not its centre.
        """
        return None

    @property
    def report(self) -> Mapping[str, float]:
        """Numbers about the last `tell` for the log: a gradient's norm, restarts, hits of a cache."""
        return {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about the last `tell`; each is shown once."""
        return ()

    def publish(self, folder: Path) -> None:  # noqa: B027 - most loops have no view to write
        """Write views of the search for other tools into its run folder; each can be rebuilt, none is read back."""
