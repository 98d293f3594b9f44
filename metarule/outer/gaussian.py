"""GaussianSearch: what evolution strategies share, candidates drawn about a centre, with a deviation per parameter."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.outer.base import OuterLoop
from metarule.outer.descent import Descent
from metarule.params import Param


@dataclass
class GaussianSearch(OuterLoop):
    """z = centre + deviation s, s ~ N(0, 1), in internal coordinates; candidates outside the bounds are held to them.

    `sigma` is the first deviation in units of `Param.scale`. `mirrored` draws pairs s, -s. A generation of nothing but
    failures says nothing. The rule handed over is the centre. Raises ValueError for too few candidates, and for an odd
    number of them where they come in pairs.
    """

    accepts = frozenset({"real"})
    mirrored: ClassVar[bool] = False

    sigma: float = 0.3

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"outer.sigma = {self.sigma} must be positive")
        self.descent((Param("probe"),))

    @abstractmethod
    def descent(self, params: tuple[Param, ...]) -> Descent:
        """How the centre moves; raises ValueError where a setting makes no sense."""

    @abstractmethod
    def learn(self, samples: Float[Tensor, "C P"], loss: Float[Tensor, "C"]) -> None:
        """Move centre and deviation by the losses of centre + deviation samples, not all of them failures."""

    def start(self, params, objectives=1):
        self.params = params
        self.centre = self.descent(params)
        self.deviation = torch.full((len(params),), self.sigma, dtype=torch.float64)
        self.samples = torch.zeros(0, len(params), dtype=torch.float64)

    def ask(self, candidates, noise):
        if candidates < 2 or (self.mirrored and candidates % 2):
            wanted = "an even number, as they are mirrored in pairs" if self.mirrored else "at least 2"
            raise ValueError(f"outer.candidates = {candidates}, but {self.kind} needs {wanted}")
        drawn = noise.at(self.kind).normal(candidates // 2 if self.mirrored else candidates, len(self.params))[0]
        self.samples = torch.cat((drawn, -drawn)) if self.mirrored else drawn
        return self.centre.decoded(self.centre.z.detach() + self.deviation * self.samples)

    def tell(self, theta, loss, grad=None):
        leading = loss[:, 0].to(torch.float64)
        if leading.isfinite().any():
            self.learn(self.samples, leading)

    @property
    def best(self):
        return self.centre.theta

    @property
    def covariance(self) -> Float[Tensor, "P P"] | None:
        return torch.diag(self.deviation.square())

    @property
    def report(self):
        return {"deviation": float(self.deviation.log().mean().exp())}

    def state_dict(self):
        return {"centre": self.centre.state_dict(), "deviation": self.deviation.clone()}

    def load_state_dict(self, state: dict[str, Any]):
        self.centre.load_state_dict(state["centre"])
        self.deviation = state["deviation"].clone()

    def widened(self, factor: Float[Tensor, "P"]) -> Tensor:
        """The deviation times `factor`, within what the bounds let matter."""
        return torch.minimum(self.deviation * factor, self._widest)

    @property
    def _widest(self) -> Tensor:
        return torch.tensor([high - low for low, high in (param.reach for param in self.params)], dtype=torch.float64)


def halves(mirrored: Float[Tensor, "C ..."]) -> tuple[Tensor, Tensor]:
    """The two sides of mirrored pairs: row k of one is the mirror image of row k of the other."""
    plus, minus = mirrored.chunk(2)
    return plus, minus
