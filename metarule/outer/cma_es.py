"""CMA-ES: a normal distribution over rules that learns its own shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cmaes import CMA
from torch import Tensor

from metarule.outer.base import OuterLoop


@dataclass
class CmaEs(OuterLoop):
    """z ~ N(m, sigma^2 C); m moves to the weighted mean of the better half, C and sigma follow its path.

    `sigma` is the first step size in units of `Param.scale`. The rule handed over is the mean m, not the luckiest
    sample. Saved as the history of what was told: replaying it through the library rebuilds the optimizer bit for bit.
    Raises ValueError for fewer than 4 candidates.
    """

    kind = "cma_es"
    source = "Hansen and Ostermeier 2001"
    accepts = frozenset({"real"})

    sigma: float = 0.3

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"outer.sigma = {self.sigma} must be positive")

    def start(self, params, objectives=1):
        self.params = params
        self.told_z: list[np.ndarray] = []
        self.told_loss: list[np.ndarray] = []
        self.asked = np.empty((0, len(params)))
        self.optimizer: CMA | None = None

    def ask(self, candidates, noise):
        if candidates < 4:
            raise ValueError(f"outer.candidates = {candidates} is too few for cma_es; at least 4, 4 + 3 ln P is usual")
        # the library refuses one dimension: a second one that nothing depends on is carried along
        width = max(len(self.params), 2)
        if self.optimizer is None:
            bounds = np.full((width, 2), [-np.inf, np.inf])
            bounds[: len(self.params)] = [param.reach for param in self.params]
            seed = int(noise.at("cma_es").integers(2**31).item())
            self.optimizer = self._built(seed, candidates, bounds)
        self.asked = np.stack([self.optimizer.ask() for _ in range(candidates)])
        return self._decoded(self.asked)

    def tell(self, theta, loss, grad=None):
        assert self.optimizer is not None
        leading = loss[:, 0].numpy().astype(np.float64)
        finite = leading[np.isfinite(leading)]
        # a failure ranks behind every finite loss; nan would poison the ranking
        worst = float(finite.max()) + 1.0 if len(finite) else 0.0
        ranked = np.where(np.isfinite(leading), leading, worst)
        self.told_z.append(self.asked.copy())
        self.told_loss.append(ranked)
        self.optimizer.tell(list(zip(self.asked, ranked, strict=True)))

    @property
    def best(self):
        if self.optimizer is None:
            return torch.tensor([param.start for param in self.params], dtype=torch.float64)
        return self._decoded(self.optimizer.mean[None])[0]

    def state_dict(self):
        if self.optimizer is None:
            return {}
        return {
            "seed": self.seed,
            "bounds": torch.tensor(self.bounds),
            "z": torch.tensor(np.stack(self.told_z)) if self.told_z else None,
            "loss": torch.tensor(np.stack(self.told_loss)) if self.told_loss else None,
            "candidates": self.optimizer.population_size,
        }

    def load_state_dict(self, state: dict[str, Any]):
        if not state:
            return
        self.optimizer = self._built(state["seed"], state["candidates"], state["bounds"].numpy())
        if state["z"] is None:
            return
        for z, loss in zip(state["z"].numpy(), state["loss"].numpy(), strict=True):
            for _ in z:
                self.optimizer.ask()  # moves the library's generator on as it was moved then
            self.optimizer.tell(list(zip(z, loss, strict=True)))
            self.told_z.append(z)
            self.told_loss.append(loss)

    def _built(self, seed: int, candidates: int, bounds: np.ndarray) -> CMA:
        self.seed, self.bounds = seed, bounds
        return CMA(np.zeros(len(bounds)), self.sigma, bounds, seed=seed, population_size=candidates)

    def _decoded(self, z: np.ndarray) -> Tensor:
        rows = [[param.decode(float(value)) for param, value in zip(self.params, row, strict=False)] for row in z]
        return torch.tensor(rows, dtype=torch.float64)
