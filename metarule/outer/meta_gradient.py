"""Meta-gradient: Adam on the exact gradient through the unrolled inner runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from metarule.outer.base import OuterLoop


@dataclass
class MetaGradient(OuterLoop):
    """z <- z - Adam(dL/dz), dL/dz = dL/dtheta dtheta/dz, with an optional penalty `l1` |z|.

    `rate` is a step in units of `Param.scale`; `clip` bounds the gradient's norm in these coordinates. The one
    candidate is the rule itself. Where a run diverged the gradient is nan: the step is left out and counted in
    `skipped`. Raises ValueError for more than one candidate.
    """

    kind = "meta_gradient"
    source = "Andrychowicz et al. 2016; Kingma and Ba 2015"
    accepts = frozenset({"real"})
    wants = frozenset({"loss", "grad"})

    rate: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float | None = None
    l1: float = 0.0

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"outer.rate = {self.rate} must be positive")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"outer.clip = {self.clip} must be positive; leave it out for no clipping")

    def start(self, params, objectives=1):
        self.params = params
        self.skipped = 0
        self.z = torch.zeros(len(params), dtype=torch.float64, requires_grad=True)
        self.adam = torch.optim.Adam([self.z], lr=self.rate, betas=(self.beta1, self.beta2))

    def ask(self, candidates, noise):
        if candidates != 1:
            raise ValueError(f"outer.candidates = {candidates}, but meta_gradient moves a single rule; set it to 1")
        return self.best[None]

    def tell(self, theta, loss, grad=None):
        if grad is None:
            raise ValueError("meta_gradient needs the gradient of the loss; take an engine that gives 'grad'")
        if not torch.isfinite(grad).all() or not torch.isfinite(loss).all():
            self.skipped += 1
            return
        slope = grad[0] * self._stretch()
        slope = slope + self.l1 * torch.sign(self.z.detach())
        if self.clip is not None:
            slope = slope * min(1.0, self.clip / max(float(slope.norm()), 1e-300))
        self.z.grad = slope
        self.adam.step()
        low, high = (
            torch.tensor(bounds, dtype=torch.float64)
            for bounds in zip(*(param.reach for param in self.params), strict=True)
        )
        with torch.no_grad():
            self.z.copy_(torch.clamp(self.z, low, high))

    @property
    def best(self):
        values = [param.decode(float(value)) for param, value in zip(self.params, self.z.detach(), strict=True)]
        return torch.tensor(values, dtype=torch.float64)

    def state_dict(self):
        adam = self.adam.state_dict()["state"].get(0, {})
        return {
            "z": self.z.detach().clone(),
            "skipped": self.skipped,
            "adam": {name: value.clone() for name, value in adam.items()},
        }

    def load_state_dict(self, state: dict[str, Any]):
        self.skipped = state["skipped"]
        with torch.no_grad():
            self.z.copy_(state["z"])
        if state["adam"]:
            groups = self.adam.state_dict()["param_groups"]
            moments = {name: value.clone() for name, value in state["adam"].items()}  # Adam steps in place
            self.adam.load_state_dict({"state": {0: moments}, "param_groups": groups})

    def _stretch(self) -> torch.Tensor:
        """d value / d z, per parameter."""
        slopes = [
            param.scale * (float(value) if param.log else 1.0)
            for param, value in zip(self.params, self.best, strict=True)
        ]
        return torch.tensor(slopes, dtype=torch.float64)
