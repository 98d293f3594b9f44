"""Gauss-Newton targets: the smallest move of each layer that makes the output move as it should."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarule.credit.feedback import output_error, without_bias
from metarule.credit.targets import STEP, Targets, chain
from metarule.params import Param


@dataclass(frozen=True)
class GaussNewtonTargets(Targets):
    """move_L = step e; move_l = J^T (J J^T + damping)^-1 step e, J = d a_L / d h_l of each event, a_L the output drive.

    What the learned feedback of target propagation approximates. With damping 0 it is the pseudo-inverse of a J of
    full rank.
    """

    kind = "gauss_newton_targets"
    source = "Meulemans et al. 2020"
    not_local = "All weights above a layer, in an inverse of their product."

    @property
    def params(self):
        return STEP, Param("damping", start=0.1, log=True)

    def moves(self, theta, network, weights, activity, batch):
        top = network.output_name
        damping = theta[:, 1:2, None, None]
        moves = {top: theta[:, :1, None] * output_error(network, activity, batch)}
        jacobian: Tensor | None = None  # R B outputs J
        for projection in reversed(chain(network)[1:]):
            weight = without_bias(projection, weights[projection.name])[:, None]
            if jacobian is None:
                jacobian = weight.expand(-1, batch.x.shape[1], -1, -1)
            else:
                gain = network.gain(projection.target, activity.rates)
                jacobian = (jacobian * gain[:, :, None, :]) @ weight
            moves[projection.source] = _damped_solution(jacobian, moves[top][..., None], damping)[..., 0]
        return moves


def _damped_solution(jacobian: Tensor, move: Tensor, damping: Tensor) -> Tensor:
    """J^T (J J^T + damping)^-1 move = (J^T J + damping)^-1 J^T move, whichever system is the smaller."""
    transposed = jacobian.transpose(2, 3)
    wide = jacobian.shape[2] <= jacobian.shape[3]
    square = jacobian @ transposed if wide else transposed @ jacobian
    square = square + damping * torch.eye(square.shape[-1], dtype=square.dtype, device=square.device)
    if wide:
        return transposed @ torch.linalg.solve(square, move)
    return torch.linalg.solve(square, transposed @ move)
