"""Chain: the package's own network of layers as a torch module, with the same initial weights."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarule.collect import unknown
from metarule.models.base import Model
from metarule.network import Network
from metarule.nonlinearities import NONLINEARITIES


class _Rate(nn.Module):
    def __init__(self, activation: str) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, drive: Tensor) -> Tensor:
        return NONLINEARITIES[self.activation].rate(drive, 1.0)


@dataclass(frozen=True)
class Chain(Model):
    """drive_l = W_l rate_{l-1} + b_l: `Network.chain` of the same settings, weights drawn from the same addresses.

    Its layers are named by the populations that they drive. Raises ValueError on an unknown activation.
    """

    kind = "chain"
    source = "Rosenblatt 1962; Rumelhart, Hinton and Williams 1986"

    hidden: tuple[int, ...] = (64, 32)
    activation: str = "tanh"
    init: str = "glorot"
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.activation not in NONLINEARITIES:
            raise ValueError(unknown("model.activation", self.activation, NONLINEARITIES))

    def module(self, inputs, outputs, noise):
        sizes = (inputs, *self.hidden, outputs)
        network = Network.chain(sizes, self.activation, bias=True, init=self.init, init_scale=self.init_scale)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for projection in network.projections:
            weight = network.draw(projection, noise)[0]
            layer = nn.Linear(weight.shape[1] - 1, weight.shape[0])
            with torch.no_grad():
                layer.weight = nn.Parameter(weight[:, :-1].clone())
                layer.bias = nn.Parameter(weight[:, -1].clone())
            if parts:
                parts[f"rate{len(parts)}"] = _Rate(self.activation)
            parts[projection.target] = layer
        return nn.Sequential(parts)
