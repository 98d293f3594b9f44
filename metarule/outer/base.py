"""OuterLoop: who proposes the rule. ask -> evaluate -> tell, on rows of theta."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from metarule.params import Param
from metarule.rng import Noise


class OuterLoop(ABC):
    """The one stateful part of a search: it remembers between `tell` and the next `ask`.

    Settings are the fields of a dataclass; what `start` sets up is not among them. The whole memory goes through
    `state_dict`, in tensors and JSON values; randomness comes from the `noise` given to `ask`, so that a loop that
    is restored continues bit for bit. Losses are (C M), the first objective leads; +inf is a failed candidate.
    """

    kind: ClassVar[str]
    source: ClassVar[str]
    accepts: ClassVar[frozenset[str]]  # of {"real", "categorical", "objectives"}
    wants: ClassVar[frozenset[str]] = frozenset({"loss"})  # of {"loss", "grad", "carry"}

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
        """Hear what became of the rows that `ask` proposed."""

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

    def publish(self, folder: Path) -> None:  # noqa: B027 - most loops have no view to write
        """Write views of the search for other tools into its run folder; each can be rebuilt, none is read back."""
