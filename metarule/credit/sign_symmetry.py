"""Sign symmetry: feedback weights share the sign of the forward weights, not their size."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.collect import unknown
from metarule.credit.feedback import SequentialFeedback, feedback_name, feedback_projection, without_bias
from metarule.terms import glorot

MAGNITUDES = ("uniform", "batchwise_random", "fixed_random")


@dataclass(frozen=True)
class SignSymmetry(SequentialFeedback):
    """feedback_l = (|M| * sign(W_{l+1}))^T error_{l+1}.

    |M| is the Glorot scale everywhere ("uniform"), redrawn at each step ("batchwise_random") or drawn once per
    episode ("fixed_random").
    """

    kind = "sign_symmetry"
    source = "Liao, Leibo and Poggio 2016; Moskovitz, Litwin-Kumar and Abbott 2018"
    not_local = "Errors need the signs of the forward weights."
    over_positions = True

    magnitude: str = "uniform"

    def __post_init__(self) -> None:
        if self.magnitude not in MAGNITUDES:
            raise ValueError(unknown("credit.magnitude", self.magnitude, MAGNITUDES))

    @property
    def crossing(self):
        return {"uniform": "signs", "fixed_random": "signs_of_own"}.get(self.magnitude)

    def projections(self, network):
        if self.magnitude != "fixed_random":
            return ()
        return tuple(feedback_projection(projection) for projection in network.projections)

    def sender(self, network, weights, state, step, noise):
        def send(projection, error):
            weight = without_bias(projection, weights[projection.name])
            size_out, size_in = weight.shape[1:]
            scale = glorot(size_out, size_in)
            if self.magnitude == "uniform":
                return torch.bmm(error, torch.sign(weight)) * scale
            if self.magnitude == "fixed_random":
                size = weights[feedback_name(projection)].transpose(1, 2).abs()
            else:
                size = noise.at("magnitude", projection.name, step).normal(size_out, size_in).abs() * scale
            return torch.bmm(error, size * torch.sign(weight))

        return send
