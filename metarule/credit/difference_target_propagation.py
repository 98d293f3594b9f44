"""Difference target propagation: targets travel down through learned inverses, whose errors cancel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.collect import unknown
from metarule.credit.feedback import without_bias
from metarule.credit.layer_inverses import LayerInverses

PENULTIMATE = ("inverse", "gradient")


@dataclass(frozen=True)
class DifferenceTargetPropagation(LayerInverses):
    """target_L = h_L + step e; target_l = h_l + G_l(target_{l+1}) - G_l(h_{l+1}), G_l(h) = f(V_l h + c_l).

    `penultimate` "gradient" is the original: the layer below the output moves by step W_L^T e. Inverses learn as
    `LayerInverses` says, in `inverse_stages` stages before each change of the forward weights.
    """

    kind = "difference_target_propagation"
    source = "Lee et al. 2015"
    not_local = (
        "Inverses learn from noise in a phase of their own; with penultimate = 'gradient' the last target needs "
        "the transposed output weights."
    )

    penultimate: str = "inverse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penultimate not in PENULTIMATE:
            raise ValueError(unknown("credit.penultimate", self.penultimate, PENULTIMATE))

    def descend(self, network, weights, projection, activity, move):
        if self.penultimate == "gradient" and projection.target == network.output_name:
            return torch.bmm(move, without_bias(projection, weights[projection.name]))
        return super().descend(network, weights, projection, activity, move)
