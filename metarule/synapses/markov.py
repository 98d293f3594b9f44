"""Markov synapses: two strengths, many hidden states, and stochastic steps between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.params import Param
from metarule.signals import Change
from metarule.synapses.base import SynapseModel
from metarule.synapses.constraints import RATE


class Markov(SynapseModel):
    """A synapse in state 1..M weighs -strength in the lower half of its states, +strength in the upper.

    A change c > 0 is a potentiation with probability min(1, rate |c|), c < 0 a depression; each moves the synapse
    from state s to one other, with that state's own probability. `potentiation` says where and how likely;
    depression is its mirror image. Without a `strength` it is the root mean square of the run's initial weights. A
    synapse starts in the middle, on its initial weight's side, and takes its strength at the first step. The
    state (R I J) holds whole numbers 0..M-1. Gradients in the rate are 0: steps are jumps. Raises ValueError where
    `states` is odd or below 2, or `strength` is not positive.
    """

    states: int
    strength: float | None

    def potentiation(self) -> tuple[list[int], list[float]]:
        """Per state 0..M-1, the state that potentiation leads to and the probability that it does."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        if self.states < 2 or self.states % 2:
            raise ValueError(f"synapse.states = {self.states} must be even and at least 2: half are strong")
        if self.strength is not None and self.strength <= 0:
            raise ValueError(f"synapse.strength = {self.strength} must be positive; leave it out for the initial size")

    @property
    def params(self) -> tuple[Param, ...]:
        return (replace(RATE, start=1.0),)

    def matrices(self) -> tuple[Float[Tensor, "M M"], Float[Tensor, "M M"]]:
        """M^pot and M^dep: row s holds the probabilities of the next state after one event in state s (Lahiri 2013)."""
        targets, chances = self.potentiation()
        matrix = torch.eye(self.states, dtype=torch.float64)
        for state, (target, chance) in enumerate(zip(targets, chances, strict=True)):
            matrix[state, state] -= chance
            matrix[state, target] += chance
        return matrix, matrix.flip(0, 1)

    def init(self, theta, weight):
        size = weight.square().mean((1, 2), keepdim=True).sqrt()
        middle = torch.where(weight >= 0, self.states / 2, self.states / 2 - 1).to(weight.dtype)
        return {"state": middle, "strength": size if self.strength is None else size * 0 + self.strength}

    def step(self, theta, weight, change, rate, state, noise):
        induced = change.tensor(weight)
        here = state["state"]
        up = induced > 0
        # depression is potentiation seen from the other end
        place = torch.where(up, here, self.states - 1 - here).long()
        targets, chances = self.potentiation()
        reached = weight.new_tensor(targets)[place]
        chance = (theta[:, :1, None] * rate * induced.abs()).clamp(max=1) * weight.new_tensor(chances)[place]
        # sign, not a comparison: the same numbers, and a gradient that is 0 instead of missing
        moves = torch.sign(chance - noise.uniform(*weight.shape[1:]).to(weight.dtype)).clamp(min=0)
        here = here + moves * (torch.where(up, reached, self.states - 1 - reached) - here)
        strong = torch.sign(here - (self.states - 1) / 2)
        return Change(full=strong * state["strength"] - weight), {**state, "state": here}


@dataclass(frozen=True)
class MarkovSerial(Markov):
    """States in a row: potentiation leads one up, depression one down, with probability `chance`."""

    kind = "markov_serial"
    source = "Lahiri and Ganguli 2013"

    states: int = 16
    chance: float = 1.0
    strength: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.chance <= 1:
            raise ValueError(f"synapse.chance = {self.chance} must lie in (0, 1]")

    def potentiation(self):
        last = self.states - 1
        return [min(state + 1, last) for state in range(self.states)], [self.chance] * last + [0.0]


@dataclass(frozen=True)
class MarkovCascade(Markov):
    """A cascade of ever more stubborn states, depth 1 to M/2 on either side.

    An event against a synapse's strength flips it to depth 1 of the other side with probability x^(depth - 1), at the
    deepest x^(depth - 1) / (1 - x); one in its favour leads one deeper with probability x^depth / (1 - x), x = `ratio`.
    """

    kind = "markov_cascade"
    source = "Fusi, Drew and Abbott 2005"

    states: int = 16
    ratio: float = 0.5
    strength: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 0.5:
            raise ValueError(f"synapse.ratio = {self.ratio} must lie in (0, 0.5], where all of it are probabilities")

    def potentiation(self):
        half, x = self.states // 2, self.ratio
        weak = [x**depth for depth in range(half)][::-1]  # state 0 is the deepest of the weak ones
        weak[0] = min(1.0, weak[0] / (1 - x))
        strong = [x**depth / (1 - x) for depth in range(1, half)] + [0.0]
        return [half] * half + [min(state + 1, self.states - 1) for state in range(half, self.states)], weak + strong
