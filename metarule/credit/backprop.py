"""Backprop: errors return through the transposed forward weights (weight transport)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.feedback import SequentialFeedback, without_bias


@dataclass(frozen=True)
class Backprop(SequentialFeedback):
    """feedback_l = W_{l+1}^T error_{l+1}; with rule `delta` and model `sgd` this is gradient descent."""

    kind = "backprop"
    source = "Rumelhart, Hinton and Williams 1986"
    not_local = "Errors come through the transposed forward weights: weight transport."
    over_positions = True

    @property
    def crossing(self):
        return "transposed"

    def sender(self, network, weights, state, step, noise):
        return lambda projection, error: torch.bmm(error, without_bias(projection, weights[projection.name]))
