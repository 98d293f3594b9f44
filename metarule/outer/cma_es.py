"""CMA-ES: a normal distribution over rules that learns its own shape, and begins anew where it has come to rest."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.outer.base import OuterLoop
from metarule.params import starts

FEWEST = 4
"""Candidates below which the library's recombination weights are 0/0."""

RESTARTS = ("none", "ipop")

_SOLUTIONS = "solutions.json"


class Solution(NamedTuple):
    """Where a distribution came to rest: its mean, the median loss of its last population, and that one's size."""

    theta: Float[Tensor, "P"]
    loss: float
    population: int


@dataclass
class CmaEs(OuterLoop):
    """z ~ N(m, sigma^2 C); m moves to the weighted mean of the better half, C and sigma follow its path.

    `sigma` is the first step size in units of `Param.scale`. The rule handed over is the mean m, not the luckiest
    sample. Saved as the history of what was told, which rebuilds the optimizer bit for bit; its generator is
    seeded before every ask. Raises ValueError for fewer than 4 candidates.

    `restarts` = "ipop": where the library's criteria say stop, or neither best nor median loss has become better in
    `patience` updates, the search begins anew with twice the population from a point drawn uniformly within `spread`
    scales of the start, inside the bounds (Auger and Hansen, 2005). A population of 2^k x candidates is asked for over
    2^k generations. Every place of rest is kept in `solutions` and written to solutions.json; the rule handed over is
    that of the least loss.
    """

    kind = "cma_es"
    source = "Hansen and Ostermeier 2001"
    accepts = frozenset({"real"})

    sigma: float = 0.3
    restarts: str = "none"
    patience: int = 40
    spread: float = 3.0

    def __post_init__(self) -> None:
        for name in ("sigma", "spread"):
            if getattr(self, name) <= 0:
                raise ValueError(f"outer.{name} = {getattr(self, name)} must be positive")
        if self.restarts not in RESTARTS:
            raise ValueError(unknown("outer.restarts", self.restarts, RESTARTS))
        if self.patience < 6:
            raise ValueError(f"outer.patience = {self.patience} must be at least 6: its thirds are compared")

    def start(self, params, objectives=1):
        self.params = params
        self.told: list[tuple[np.ndarray, np.ndarray]] = []
        self.asked = np.empty((0, len(params)))
        self.optimizer: Any = None
        self.points = [np.zeros(len(params))]  # where each distribution began
        self.rested: list[tuple[np.ndarray, float, int]] = []  # where earlier ones ended, by loss and population
        self.heard: list[tuple[np.ndarray, np.ndarray]] = []  # of a population that is not yet complete
        self.course: list[tuple[float, float]] = []  # best and median loss of every population

    def ask(self, candidates, noise):
        if len(self.points) == len(self.rested):
            self.points.append(self._fresh(noise.at("restart").uniform(len(self.params))[0].numpy()))
        optimizer = self._sized(candidates)
        optimizer.reseed_rng(int(noise.at("cma_es").integers(2**31)[0]))
        self.asked = np.stack([optimizer.ask() for _ in range(candidates)])
        return self._decoded(self.asked)

    def tell(self, theta, loss, grad=None):
        self._hear(self.asked, loss[:, 0].numpy().astype(np.float64))

    @property
    def best(self):
        if not self.rested:
            return starts(self.params) if self.optimizer is None else self._decoded(self.optimizer.mean[None])[0]
        return min(self.solutions, key=lambda solution: solution.loss).theta

    @property
    def covariance(self):
        if self.optimizer is None or self.rested:
            return None
        return torch.tensor(self.optimizer._sigma**2 * self.optimizer._C)  # the library has no public name for them

    @property
    def solutions(self) -> list[Solution]:
        """Where every distribution came to rest, and where the present one stands once it has heard a population."""
        found = list(self.rested)
        if self.optimizer is not None and self.course:
            found.append((self.optimizer.mean, self.course[-1][1], self.optimizer.population_size))
        return [Solution(self._decoded(z[None])[0], loss, population) for z, loss, population in found]

    @property
    def report(self):
        if self.restarts == "none":
            return {}
        return {"restarts": float(len(self.rested)), "best_loss": min(each.loss for each in self.solutions)}

    def state_dict(self):
        if not self.told:
            return {}
        z, loss = zip(*self.told, strict=True)
        told = {"z": torch.tensor(np.stack(z)), "loss": torch.tensor(np.stack(loss))}
        return told | {"points": torch.tensor(np.stack(self.points))}

    def load_state_dict(self, state: dict[str, Any]):
        if state:
            self.points = list(state["points"].numpy().copy())
            for z, loss in zip(state["z"].numpy(), state["loss"].numpy(), strict=True):
                self._hear(z, loss)

    def publish(self, folder: Path):
        if self.restarts == "none":
            return
        rows = [
            {
                "loss": loss if math.isfinite(loss) else None,
                "population": population,
                "theta": {param.name: value for param, value in zip(self.params, theta.tolist(), strict=True)},
            }
            for theta, loss, population in self.solutions
        ]
        (folder / _SOLUTIONS).write_text(json.dumps(rows, indent=1) + "\n")

    def _hear(self, z: np.ndarray, loss: np.ndarray) -> None:
        self.told.append((z, loss))
        optimizer = self._sized(len(z))
        # only ranks matter: a failure ranks behind everything finite; a nan is one, and would spoil the sorting
        self.heard.append((z, np.where(np.isfinite(loss), loss, np.inf)))
        if len(self.heard) * len(z) < optimizer.population_size:
            return
        rows, ranked = (np.concatenate(parts) for parts in zip(*self.heard, strict=True))
        self.heard = []
        if np.isfinite(ranked).any():  # a population of nothing but failures says nothing
            optimizer.tell(list(zip(rows, ranked, strict=True)))
        self.course.append((float(ranked.min()), float(np.median(ranked))))
        if self.restarts == "ipop" and (optimizer.should_stop() or self._stagnates()):
            self.rested.append((optimizer.mean, self.course[-1][1], optimizer.population_size))
            self.optimizer, self.course = None, []

    def _stagnates(self) -> bool:
        """True where over the last `patience` updates the newest third is no better than the oldest (Hansen, 2009)."""
        third, window = self.patience // 3, self.course[-self.patience :]
        oldest, newest = (list(zip(*part, strict=True)) for part in (window[:third], window[-third:]))
        return len(window) == self.patience and all(
            median(late) >= median(early) for early, late in zip(oldest, newest, strict=True)
        )

    def _fresh(self, unit: np.ndarray) -> np.ndarray:
        low, high = np.array([param.reach for param in self.params]).clip(-self.spread, self.spread).T
        return low + (high - low) * unit

    def _sized(self, candidates: int) -> Any:
        if candidates < FEWEST:
            raise ValueError(
                f"outer.candidates = {candidates} is too few for cma_es; at least {FEWEST}, 4 + 3 ln P is usual"
            )
        doubled = 2 ** len(self.rested)
        if self.optimizer is None:
            from cmaes import CMA  # brings scipy.stats, half a second that other verbs need not wait

            bounds = np.array([param.reach for param in self.params])
            point = self.points[len(self.rested)]
            self.optimizer = CMA(point, self.sigma, bounds, seed=0, population_size=doubled * candidates)
        if doubled * candidates != self.optimizer.population_size:
            raise ValueError(
                f"outer.candidates = {candidates}, but this search began with "
                f"{self.optimizer.population_size // doubled} and cma_es keeps their number; begin a new search to "
                "change it"
            )
        return self.optimizer

    def _decoded(self, z: np.ndarray) -> Tensor:
        rows = [[param.decode(float(value)) for param, value in zip(self.params, row, strict=False)] for row in z]
        return torch.tensor(rows, dtype=torch.float64)
