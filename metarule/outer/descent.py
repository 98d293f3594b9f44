"""Descent: the centre of a search, moved by an optimizer of torch.optim along a slope that somebody estimated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.params import Param

Options = dict[str, bool | int | float | str | tuple[float, ...]]
"""Keyword arguments of an optimizer, as a search file can hold them."""

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name: member
    for name, member in vars(torch.optim).items()
    if isinstance(member, type) and issubclass(member, torch.optim.Optimizer) and member is not torch.optim.Optimizer
}
"""The optimizers of torch.optim by name."""

_ROUNDED = 1e-12  # in scales: a coefficient that was set to 0 is 0, not what start + scale z rounds to


PATIENCE = 3
"""Slopes in a row that are not finite, after which a centre is taken to stand where no run survives."""


@dataclass
class Descent:
    """z <- optimizer(z, dL/dz), inside the bounds; theta = start + scale z, or start exp(scale z) on a log scale.

    `optimizer` is a class of torch.optim, or the name of one that `made` makes; `rate` is its `lr`, in units of
    `Param.scale`, and `options` are its other keyword arguments. `clip` bounds the slope's norm. A slope that is not
    finite is left out and counted in `skipped`.
    Raises ValueError for an optimizer that does not exist, does not take the options, or cannot step on a slope alone.
    """

    params: tuple[Param, ...]
    optimizer: str = "Adam"
    rate: float = 1e-2
    options: Options = field(default_factory=dict)
    clip: float | None = None
    made: Callable[..., torch.optim.Optimizer] | None = None

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"outer.rate = {self.rate} must be positive")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"outer.clip = {self.clip} must be positive; leave it out for no clipping")
        if self.made is None and self.optimizer not in OPTIMIZERS:
            raise ValueError(unknown("outer.optimizer", self.optimizer, OPTIMIZERS))
        self._try_out()
        self.skipped = 0
        self.norm = math.nan  # of the last slope, before clipping
        self.z, self.stepper = self._made()
        self.failing = 0  # slopes in a row that were not finite
        self.finite = self.z.detach().clone()  # where the slope last was
        bounds = torch.tensor([param.reach for param in self.params], dtype=torch.float64).reshape(-1, 2)
        self._low, self._high = bounds.unbind(1)

    def _made(self) -> tuple[Tensor, torch.optim.Optimizer]:
        z = torch.zeros(len(self.params), dtype=torch.float64, requires_grad=True)
        kind: Any = self.made or OPTIMIZERS[self.optimizer]
        return z, kind([z], **{"lr": self.rate, **self.options})

    def _try_out(self) -> None:
        try:
            z, stepper = self._made()
            z.grad = torch.zeros_like(z)
            stepper.step()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"outer.optimizer = '{self.optimizer}' with options = {self.options} does not step on a slope: {error}"
            ) from error

    @property
    def theta(self) -> Float[Tensor, "P"]:
        """Where the centre stands, in the units of theta."""
        return self.decoded(self.z.detach()[None])[0]

    def decoded(self, z: Float[Tensor, "N P"]) -> Float[Tensor, "N P"]:
        """Rows of theta from internal coordinates, held inside the bounds."""
        rows = [[_value(param, at) for param, at in zip(self.params, row, strict=True)] for row in z.tolist()]
        return torch.tensor(rows, dtype=torch.float64).reshape(z.shape)

    def inside(self, z: Float[Tensor, "N P"]) -> Float[Tensor, "N P"]:
        """Internal coordinates held inside the bounds."""
        return z.clamp(self._low, self._high)

    @property
    def stretch(self) -> Float[Tensor, "P"]:
        """d theta / d z at the centre."""
        slopes = [
            param.scale * (value if param.log else 1.0)
            for param, value in zip(self.params, self.theta.tolist(), strict=True)
        ]
        return torch.tensor(slopes, dtype=torch.float64)

    def step(self, slope: Float[Tensor, "P"], l1: float = 0.0) -> bool:
        """One step along dL/dz, then theta/scale shrinks by rate l1 towards 0 and stays there once it arrives.

        The proximal step of l1 |theta/scale|_1, decoupled from the optimizer: exact for SGD; for Adam `l1` stands
        against the slope's signal to noise, whatever the loss is measured in. Parameters on a log scale are not
        shrunk. Returns False where the slope was not finite and nothing moved; where that happens `PATIENCE` times in
        a row, every run diverges here, and the centre goes half the way back to where the slope last was finite.
        """
        self.norm = float(slope.norm())
        if not math.isfinite(self.norm):
            self.skipped += 1
            self.failing += 1
            if self.failing >= PATIENCE:
                with torch.no_grad():
                    self.z.copy_((self.z + self.finite) / 2)
            return False
        self.failing, self.finite = 0, self.z.detach().clone()
        if self.clip is not None:
            slope = slope * min(1.0, self.clip / max(self.norm, 1e-300))
        self.z.grad = slope.clone()
        self.stepper.step()
        with torch.no_grad():
            if l1 > 0:
                self._shrink(self.rate * l1)
            self.z.copy_(self.inside(self.z))
        return True

    def _shrink(self, threshold: float) -> None:
        for place, param in enumerate(self.params):
            if not param.log:
                zero = -param.start / param.scale
                away = float(self.z[place]) - zero
                self.z[place] = zero + math.copysign(max(abs(away) - threshold, 0.0), away)

    @property
    def nonzero(self) -> int:
        """How many coordinates of theta are not 0."""
        return int(self.theta.count_nonzero())

    def state_dict(self) -> dict[str, Any]:
        """Position, counts and the optimizer's memory, in copies."""
        memory = self.stepper.state.get(self.z, {})
        return {
            "z": self.z.detach().clone(),
            "finite": self.finite.clone(),
            "failing": self.failing,
            "skipped": self.skipped,
            "optimizer": {name: _copied(value) for name, value in memory.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned, bit for bit."""
        self.skipped = state["skipped"]
        self.failing, self.finite = state["failing"], state["finite"].clone()
        with torch.no_grad():
            self.z.copy_(state["z"])
        # not by the optimizer's own load_state_dict, which casts its memory to the dtype of z
        self.stepper.state[self.z] = {name: _copied(value) for name, value in state["optimizer"].items()}


def _value(param: Param, z: float) -> float:
    value = param.decode(z)
    return 0.0 if not param.log and abs(value) < _ROUNDED * param.scale and param.low <= 0 <= param.high else value


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
