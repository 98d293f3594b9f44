"""Auxiliary outputs: random features of the penultimate layer tell its inverse what the label leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarule.credit.simplified_difference_target_propagation import SimplifiedDifferenceTargetPropagation
from metarule.credit.targets import chain, driven
from metarule.network import Network, Projection


@dataclass(frozen=True)
class AuxiliaryOutputTargetPropagation(SimplifiedDifferenceTargetPropagation):
    """target_{L-1} = h_{L-1} + G([y, z]) - G([h_L, z]), z = tanh(A h_{L-1}) of `auxiliary` units, A fixed and random.

    Everything else as in simplified difference target propagation. The more features there are, the less an inverse
    leaves to the label: 16 do for layers of 32 where the paper took 512 for layers of 256 and more.
    """

    kind = "auxiliary_output_target_propagation"
    source = "Bartunov et al. 2018 (AO-SDTP)"
    not_local = "Nothing is borrowed from the forward weights; inverses learn from noise in a phase of their own."

    auxiliary: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.auxiliary < 1:
            raise ValueError(f"credit.auxiliary = {self.auxiliary} must be at least 1")

    def projections(self, network):
        return (*super().projections(network), self.features(network))

    def features(self, network: Network) -> Projection:
        """The fixed random projection from the penultimate layer to the auxiliary units."""
        penultimate = network.populations[-2]
        shape = (self.auxiliary, penultimate.size)
        return Projection(f"{penultimate.name}->auxiliary", penultimate.name, "auxiliary", "auxiliary", shape=shape)

    def inverse(self, network, projection):
        inverse = super().inverse(network, projection)
        if projection.target != network.output_name:
            return inverse
        size_out, size_in = network.sizes[inverse.target], network.sizes[inverse.source]
        return inverse._replace(shape=(size_out, size_in + self.auxiliary))

    def heard(self, network, weights, projection, activity, move: Tensor | float = 0.0):
        rate = super().heard(network, weights, projection, activity, move)
        if projection != chain(network)[-1]:
            return rate
        features = driven(network, weights, self.features(network), activity.rates[projection.source])
        return torch.cat((rate, torch.tanh(features)), dim=2)
