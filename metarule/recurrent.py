"""The arithmetic of a learned optimizer: one small LSTM moves every coordinate by its own history of slopes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.rng import seed_number
from metarule.signals import State

GATES = ("input", "forget", "content", "output")
"""The gates of a unit, in the order of torch.nn.LSTMCell."""


@dataclass(frozen=True)
class Recurrent:
    """K channels of slopes -> size and sign of each -> `layers` LSTM layers of `hidden` units -> one number.

    All D coordinates of a run share its row of parameters, and each has a state of its own. A row is, layer by layer,
    the 4 H rows of a matrix over (inputs, own units, bias), as in "layer1_forget3_unit7", then the output's row.
    Raises ValueError where there is no channel, unit or layer, or `reach` is not positive.
    """

    channels: tuple[str, ...]
    hidden: int = 10
    layers: int = 1
    reach: float = 10.0

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("a recurrent optimizer has at least one channel; none given")
        for name in ("hidden", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        if self.reach <= 0:
            raise ValueError(f"reach = {self.reach} must be positive")

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """What the P numbers of a row are called."""
        made: list[str] = []
        units = tuple(f"unit{unit}" for unit in range(self.hidden))
        sources = tuple(f"{channel}_{part}" for part in ("size", "sign") for channel in self.channels)
        for layer in range(1, self.layers + 1):
            for gate in GATES:
                for unit in range(self.hidden):
                    made += [f"layer{layer}_{gate}{unit}_{source}" for source in (*sources, *units, "bias")]
            sources = tuple(f"below{unit}" for unit in range(self.hidden))
        return (*made, *(f"output_{source}" for source in (*units, "bias")))

    def starts(self, seed: int = 0) -> tuple[float, ...]:
        """Fixed numbers, uniform in +-1 / sqrt(H) as torch draws them, one for each name and seed."""
        reach = 1 / math.sqrt(self.hidden)
        return tuple(reach * (seed_number("recurrent", seed, name) / 2**30 - 1) for name in self.names)

    def init(self, like: Float[Tensor, "R D"]) -> State:
        """Units and cells (R D H) at rest, of every layer."""
        rest = like.new_zeros(*like.shape, self.hidden)
        return {f"{part}{layer}": rest for layer in range(1, self.layers + 1) for part in ("unit", "cell")}

    def step(
        self, theta: Float[Tensor, "R P"], slopes: Float[Tensor, "R D K"], state: State
    ) -> tuple[Float[Tensor, "R D"], State]:
        """One number per coordinate, in no unit, and the new state; no coordinate sees another."""
        values, first, sources = compressed(slopes, self.reach), 0, 2 * len(self.channels)
        state = dict(state)
        for layer in range(1, self.layers + 1):
            last = first + 4 * self.hidden * (sources + self.hidden + 1)
            matrix = theta[:, first:last].unflatten(1, (4 * self.hidden, sources + self.hidden + 1))
            values, state[f"cell{layer}"] = cell(matrix, values, state[f"unit{layer}"], state[f"cell{layer}"])
            state[f"unit{layer}"] = values
            first, sources = last, self.hidden
        answer = torch.baddbmm(theta[:, None, -1:], values, theta[:, first:-1, None])
        return answer[:, :, 0], state


def cell(
    matrix: Float[Tensor, "R G S"],
    values: Float[Tensor, "R D K"],
    unit: Float[Tensor, "R D H"],
    content: Float[Tensor, "R D H"],
) -> tuple[Float[Tensor, "R D H"], Float[Tensor, "R D H"]]:
    """New units and cells of an LSTM layer: G = 4 H gates of S = K + H + 1 sources, the last one the bias."""
    sources = torch.cat((values, unit), dim=2)
    drive = torch.baddbmm(matrix[:, None, :, -1], sources, matrix[:, :, :-1].transpose(1, 2))  # rds,rgs->rdg
    opened, kept, offered, shown = drive.chunk(4, dim=2)
    content = torch.sigmoid(kept) * content + torch.sigmoid(opened) * torch.tanh(offered)
    return torch.sigmoid(shown) * torch.tanh(content), content


def compressed(slopes: Float[Tensor, "R D K"], reach: float) -> Float[Tensor, "R D 2K"]:
    """Sizes, then signs: (log|g| / reach, sign g) where |g| >= e^-reach, else (-1, e^reach g).

    Slopes of any size become numbers of order 1, without a jump at e^-reach (Andrychowicz et al. 2016, appendix A).
    """
    size = slopes.abs()
    large = size >= math.exp(-reach)
    logs = torch.where(large, size, torch.ones_like(size)).log() / reach
    sizes = torch.where(large, logs, torch.full_like(size, -1.0))
    return torch.cat((sizes, torch.where(large, slopes.sign(), slopes * math.exp(reach))), dim=2)
