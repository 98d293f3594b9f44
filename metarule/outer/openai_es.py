"""OpenAI-ES: the gradient of the loss smoothed by a Gaussian, from mirrored samples, followed by an optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.outer.descent import Descent, Options
from metarule.outer.gaussian import GaussianSearch, halves
from metarule.outer.shaping import SHAPINGS


@dataclass
class OpenAiEs(GaussianSearch):
    """slope = mean over pairs of (u(z + sigma s) - u(z - sigma s)) s / (2 sigma) + weight_decay theta / scale.

    `shaping` u: "ranks" (a failure ranks last), or "losses", which makes the slope an unbiased estimate of the gradient
    of the loss smoothed by N(0, sigma^2) (a pair with a failure is left out). `optimizer` is a class of torch.optim
    with its `options`. After every generation sigma shrinks by `sigma_decay` and the rate by `rate_decay` (Najarro and
    Risi, 2020: 0.999 and 0.995). Weights decay towards 0, parameters on a log scale do not. Raises ValueError for an
    odd number of candidates.
    """

    kind = "openai_es"
    source = "Salimans et al. 2017"
    mirrored = True

    sigma: float = 0.1
    rate: float = 0.1
    optimizer: str = "Adam"
    options: Options = field(default_factory=dict)
    weight_decay: float = 0.0
    sigma_decay: float = 1.0
    rate_decay: float = 1.0
    shaping: str = "ranks"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shaping not in SHAPINGS:
            raise ValueError(unknown("outer.shaping", self.shaping, SHAPINGS))
        for name in ("sigma_decay", "rate_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"outer.{name} = {getattr(self, name)} must lie in (0, 1]; 1 keeps it as it is")
        if self.weight_decay < 0:
            raise ValueError(f"outer.weight_decay = {self.weight_decay} must not be negative")

    def descent(self, params):
        return Descent(params, self.optimizer, self.rate, self.options)

    def start(self, params, objectives=1):
        super().start(params, objectives)
        self.heard = 0
        self.pull = torch.tensor([0.0 if param.log else self.weight_decay for param in params], dtype=torch.float64)
        self.origin = torch.tensor([param.start / param.scale for param in params], dtype=torch.float64)

    @property
    def covariance(self):
        return None  # its deviation follows a plan, not what was heard

    def learn(self, samples, loss):
        slope = self.slope(samples, loss) + self.pull * (self.origin + self.centre.z.detach())
        for group in self.centre.stepper.param_groups:
            group["lr"] = self.rate * self.rate_decay**self.heard
        self.centre.step(slope)
        self.heard += 1
        self.deviation = self.deviation * self.sigma_decay

    def slope(self, samples: Float[Tensor, "C P"], loss: Float[Tensor, "C"]) -> Float[Tensor, "P"]:
        """The estimated gradient at the centre; 0 where no pair is left."""
        plus, minus = halves(SHAPINGS[self.shaping](loss))
        kept = (plus - minus).isfinite()
        pairs = (plus - minus)[kept] / 2
        return pairs @ halves(samples)[0][kept] / (self.deviation * max(len(pairs), 1))

    def state_dict(self):
        return {**super().state_dict(), "heard": self.heard}

    def load_state_dict(self, state: dict[str, Any]):
        super().load_state_dict(state)
        self.heard = state["heard"]
