"""Meta-gradient: any optimizer of torch.optim on the exact gradient through the unrolled inner runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from metarule.outer.base import OuterLoop
from metarule.outer.descent import Descent, Options
from metarule.params import Param


@dataclass
class MetaGradient(OuterLoop):
    """z <- optimizer(z, dL/dz), dL/dz = dL/dtheta dtheta/dz, then soft thresholding by `l1` (`Descent.step`).

    `optimizer` is a class of torch.optim with its `options`; `rate` is a step in units of `Param.scale`; `clip` bounds
    the gradient's norm in these coordinates. The one candidate is the rule itself. Where a run diverged the gradient
    is nan: the step is left out and counted in `skipped`. Raises ValueError for more than one candidate.
    """

    kind = "meta_gradient"
    source = "Andrychowicz et al. 2016; Kingma and Ba 2015"
    accepts = frozenset({"real"})

    optimizer: str = "Adam"
    rate: float = 1e-2
    options: Options = field(default_factory=dict)
    clip: float | None = None
    l1: float = 0.0

    def __post_init__(self) -> None:
        if self.l1 < 0:
            raise ValueError(f"outer.l1 = {self.l1} must not be negative")
        self._descent((Param("probe"),))

    @property
    def wants(self):
        return frozenset({"loss", "grad"})

    def _descent(self, params: tuple[Param, ...]) -> Descent:
        return Descent(params, self.optimizer, self.rate, self.options, self.clip)

    def start(self, params, objectives=1):
        self.params = params
        self.descent = self._descent(params)

    def ask(self, candidates, noise):
        if candidates != 1:
            raise ValueError(f"outer.candidates = {candidates}, but meta_gradient moves a single rule; set it to 1")
        return self.best[None]

    def tell(self, theta, loss, grad=None):
        if grad is None:
            raise ValueError("meta_gradient needs the gradient of the loss; take an engine that gives 'grad'")
        slope = grad[0] * self.descent.stretch
        self.descent.step(slope if torch.isfinite(loss).all() else torch.full_like(slope, torch.nan), self.l1)

    @property
    def best(self):
        return self.descent.theta

    def state_dict(self):
        return self.descent.state_dict()

    def load_state_dict(self, state: dict[str, Any]):
        self.descent.load_state_dict(state)
