"""Param: one number of a rule, a credit assignment or a synapse model, as an outer loop sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_EXPONENT = 80.0  # where a log parameter without a bound ends: float32 overflows at e^88
_REACH = 1e6  # where any other ends, in scales


@dataclass(frozen=True)
class Param:
    """A named number: where a search starts, in what units it steps, where it must stay.

    An outer loop moves in internal coordinates z: value = start + scale z, or start exp(scale z) where `log`.
    `choices` makes it categorical: the value is then an index into them, as a float. `when` says where it counts:
    (name, choices) of categorical parameters, all of which must hold; elsewhere its value moves nothing.
    Raises ValueError where start lies outside [low, high] or a log parameter is not positive.
    """

    name: str
    start: float = 0.0
    scale: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    log: bool = False
    choices: tuple[str, ...] = ()
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        if self.choices:
            object.__setattr__(self, "low", 0.0)
            object.__setattr__(self, "high", float(len(self.choices) - 1))
        if not self.low <= self.start <= self.high:
            raise ValueError(
                f"parameter {self.name}: start = {self.start} lies outside its bounds [{self.low}, {self.high}]"
            )
        if self.scale <= 0:
            raise ValueError(f"parameter {self.name}: scale = {self.scale} must be positive")
        if self.log and self.start <= 0:
            raise ValueError(f"parameter {self.name}: start = {self.start} must be positive on a log scale")

    def renamed(self, prefix: str) -> Param:
        """The same parameter as 'prefix.name', and so are those that its `when` names."""
        when = tuple((f"{prefix}.{name}", choices) for name, choices in self.when)
        return replace(self, name=f"{prefix}.{self.name}", when=when)

    def counts(self, chosen: Mapping[str, str]) -> bool:
        """Whether it moves anything where categorical parameters are `chosen`, by name."""
        return all(chosen.get(name) in choices for name, choices in self.when)

    def decode(self, z: float) -> float:
        """Internal coordinate -> value, held inside the bounds."""
        if self.log:
            value = self.start * math.exp(min(max(self.scale * z, -_EXPONENT), _EXPONENT))
        else:
            value = self.start + self.scale * z
        return min(max(value, self.low), self.high)

    @property
    def reach(self) -> tuple[float, float]:
        """The bounds in internal coordinates; both finite, so that no search walks into an overflow."""
        far = _EXPONENT / self.scale if self.log else _REACH
        low = -far if self.log and self.low <= 0 else max(self.encode(self.low), -far)
        return low, min(self.encode(self.high), far)

    def encode(self, value: float) -> float:
        """Value -> internal coordinate."""
        if self.log:
            return math.log(value / self.start) / self.scale
        return (value - self.start) / self.scale


def starts(params: tuple[Param, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """The start of every parameter, as one row of theta (P)."""
    return torch.tensor([param.start for param in params], dtype=dtype)
