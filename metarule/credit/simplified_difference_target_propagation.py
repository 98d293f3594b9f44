"""Simplified difference target propagation: the label is the target of the output, and no gradient is used anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarule.credit.feedback import output_error
from metarule.credit.layer_inverses import LayerInverses
from metarule.credit.targets import SIGMA


@dataclass(frozen=True)
class SimplifiedDifferenceTargetPropagation(LayerInverses):
    """target_L = y; target_l = h_l + G_l(target_{l+1}) - G_l(h_{l+1}), h_L the rate of the output.

    Inverses learn to denoise, dV = gain (h_l - G_l(F(h_l + xi))) F(h_l + xi)^T, in `inverse_stages` stages before each
    change of the forward weights. Nothing crosses a forward weight backwards.
    """

    kind = "simplified_difference_target_propagation"
    source = "Bartunov et al. 2018 (SDTP)"
    not_local = "Nothing is borrowed from the forward weights; inverses learn from noise in a phase of their own."

    @property
    def params(self):
        return (SIGMA,)

    def top_move(self, theta, network, activity, batch):
        return output_error(network, activity, batch)

    def heard(self, network, weights, projection, activity, move: Tensor | float = 0.0):
        return activity.rates[projection.target] + move

    def wished(self, rate, noisy):
        return rate
