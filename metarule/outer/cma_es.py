"""CMA-ES: a normal distribution over rules that learns its own shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cmaes import CMA
from torch import Tensor

from metarule.outer.base import OuterLoop
from metarule.params import starts

FEWEST = 4
"""Candidates below which the library's recombination weights are 0/0."""


@dataclass
class CmaEs(OuterLoop):
    """z ~ N(m, sigma^2 C); m moves to the weighted mean of the better half, C and sigma follow its path.

    `sigma` is the first step size in units of `Param.scale`. The rule handed over is the mean m, not the luckiest
    sample. Saved as the history of what was told, which rebuilds the optimizer bit for bit; its generator is
    seeded before every ask. Raises ValueError for fewer than 4 candidates.
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
        self.told: list[tuple[np.ndarray, np.ndarray]] = []
        self.asked = np.empty((0, len(params)))
        self.optimizer: CMA | None = None

    def ask(self, candidates, noise):
        optimizer = self._sized(candidates)
        optimizer.reseed_rng(int(noise.at("cma_es").integers(2**31)[0]))
        self.asked = np.stack([optimizer.ask() for _ in range(candidates)])
        return self._decoded(self.asked)

    def tell(self, theta, loss, grad=None):
        self._hear(self.asked, loss[:, 0].numpy().astype(np.float64))

    @property
    def best(self):
        if self.optimizer is None:
            return starts(self.params)
        return self._decoded(self.optimizer.mean[None])[0]

    def state_dict(self):
        if not self.told:
            return {}
        z, loss = zip(*self.told, strict=True)
        return {"z": torch.tensor(np.stack(z)), "loss": torch.tensor(np.stack(loss))}

    def load_state_dict(self, state: dict[str, Any]):
        if state:
            for z, loss in zip(state["z"].numpy(), state["loss"].numpy(), strict=True):
                self._hear(z, loss)

    def _hear(self, z: np.ndarray, loss: np.ndarray) -> None:
        self.told.append((z, loss))
        # only ranks matter: a failure ranks behind everything finite; a nan is one, and would spoil the sorting
        ranked = np.where(np.isfinite(loss), loss, np.inf)
        if np.isfinite(ranked).any():  # a generation of nothing but failures says nothing
            self._sized(len(z)).tell(list(zip(z, ranked, strict=True)))

    def _sized(self, candidates: int) -> CMA:
        if candidates < FEWEST:
            raise ValueError(
                f"outer.candidates = {candidates} is too few for cma_es; at least {FEWEST}, 4 + 3 ln P is usual"
            )
        if self.optimizer is None:
            bounds = np.array([param.reach for param in self.params])
            self.optimizer = CMA(np.zeros(len(bounds)), self.sigma, bounds, seed=0, population_size=candidates)
        if candidates != self.optimizer.population_size:
            raise ValueError(
                f"outer.candidates = {candidates}, but this search began with {self.optimizer.population_size} and "
                "cma_es keeps their number; begin a new search to change it"
            )
        return self.optimizer

    def _decoded(self, z: np.ndarray) -> Tensor:
        rows = [[param.decode(float(value)) for param, value in zip(self.params, row, strict=False)] for row in z]
        return torch.tensor(rows, dtype=torch.float64)
