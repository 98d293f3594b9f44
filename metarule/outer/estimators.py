"""Estimators: where the slope of the loss at the centre of a search comes from, in rows to ask for and losses told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.outer.descent import Descent
from metarule.rng import Noise


class Estimator(ABC):
    """A slope dL/dz of the loss at a centre; nan where nothing can be said.

    `rows` proposes internal coordinates and `slope` hears what became of them; `fresh` marks the first window of an
    unroll. Memory between generations, if any, goes through `state_dict`.
    """

    smooths: ClassVar[bool] = False  # a loss that varies on a fine scale is averaged over

    @property
    def wants(self) -> frozenset[str]:
        """What an evaluation must give, see `OuterLoop.wants`."""
        return frozenset({"loss"})

    @abstractmethod
    def rows(self, centre: Descent, candidates: int, noise: Noise, fresh: bool) -> Float[Tensor, "C P"]:
        """Internal coordinates to evaluate; raises ValueError where `candidates` are too few or do not fit."""

    @abstractmethod
    def slope(self, centre: Descent, loss: Float[Tensor, "C"], grad: Float[Tensor, "C P"] | None) -> Float[Tensor, "P"]:
        """dL/dz from what became of the last `rows`."""

    def state_dict(self) -> dict[str, Any]:
        """What is remembered from generation to generation."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - most remember nothing
        """Go on from what `state_dict` returned."""


@dataclass
class Exact(Estimator):
    """The engine's own derivative through the inner run; backwards (`reverse`) or step by step (`forward`)."""

    mode: str = "reverse"

    @property
    def wants(self):
        return frozenset({"loss", "grad"} | ({"forward"} if self.mode == "forward" else set()))

    def rows(self, centre, candidates, noise, fresh):
        if candidates != 1:
            raise ValueError(
                f"outer.candidates = {candidates}, but outer.estimator = '{self.mode}' moves a single rule; set it to 1"
            )
        return centre.z.detach()[None]

    def slope(self, centre, loss, grad):
        if grad is None:
            raise ValueError(f"outer.estimator = '{self.mode}' needs the gradient of the loss, and none was given")
        return grad[0] * centre.stretch if loss.isfinite().all() else torch.full_like(centre.stretch, torch.nan)


@dataclass
class Differences(Estimator):
    """(L(z + h_p e_p) - L(z - h_p e_p)) / 2 h_p, with h_p = max(`relative` |theta_p| / scale, rate / 10).

    On a log scale h_p = `relative` / scale; at a bound the difference is one-sided. All windows of an unroll take the
    h_p of its first one, so that truncation leaves no bias. With 2 P + 1 candidates the last one is the centre itself.
    """

    relative: float

    def rows(self, centre, candidates, noise, fresh):
        count = len(centre.params)
        if candidates < 2 * count:
            raise ValueError(
                f"outer.candidates = {candidates}, but outer.estimator = 'differences' needs {2 * count}, two for each "
                f"of {count} parameters, or {2 * count + 1}"
            )
        if fresh:
            self.steps = self._steps(centre)
        z, steps = centre.z.detach(), self.steps.diag()
        plus, minus = centre.inside(z + steps), centre.inside(z - steps)
        self.apart = (plus - minus).diag()  # one-sided where a bound is in the way
        sides = torch.cat((plus, minus))
        return sides if candidates == 2 * count else torch.cat((sides, z[None]))

    def _steps(self, centre: Descent) -> Float[Tensor, "P"]:
        steps = []
        for param, value in zip(centre.params, centre.theta.tolist(), strict=True):
            size = 1.0 if param.log else abs(value)
            steps.append(max(self.relative * size / param.scale, 0.0 if param.log else centre.rate / 10))
        return torch.tensor(steps, dtype=torch.float64)

    def slope(self, centre, loss, grad):
        count = len(centre.params)
        return (loss[:count] - loss[count : 2 * count]) / self.apart

    def state_dict(self):
        return {"steps": self.steps.clone()} if hasattr(self, "steps") else {}

    def load_state_dict(self, state):
        if state:
            self.steps = state["steps"].clone()


@dataclass
class Smoothed(Estimator):
    """mean over pairs of (L(z + sigma s_i) - L(z - sigma s_i)) x_i / (2 sigma), s_i ~ N(0, 1): evolution strategies.

    x_i = s_i (`persistent` false): the gradient of the loss smoothed by N(0, sigma^2), within a window. `persistent`
    (PES): x_i is the sum of the pair's s_i since its unroll began, which makes up for what truncation cuts off. A pair
    with a failure is left out.
    """

    smooths = True

    sigma: float
    persistent: bool

    def rows(self, centre, candidates, noise, fresh):
        if candidates < 2 or candidates % 2:
            raise ValueError(
                f"outer.candidates = {candidates}, but outer.estimator = '{'pes' if self.persistent else 'es'}' tries "
                "them in pairs; give an even number"
            )
        drawn = noise.at("estimator").normal(candidates // 2, len(centre.params))[0].to(torch.float64)
        self.along = drawn + self.along if self.persistent and not fresh else drawn
        shift = self.sigma * drawn
        return centre.z.detach() + torch.cat((shift, -shift))

    def slope(self, centre, loss, grad):
        plus, minus = loss.chunk(2)
        apart = plus - minus
        kept = apart.isfinite()
        if not kept.any():
            return torch.full_like(centre.stretch, torch.nan)
        return (apart[kept] @ self.along[kept]) / (2 * self.sigma * kept.sum())

    def state_dict(self):
        return {"along": self.along.clone()} if self.persistent and hasattr(self, "along") else {}

    def load_state_dict(self, state):
        if state:
            self.along = state["along"].clone()
