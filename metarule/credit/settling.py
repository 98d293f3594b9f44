"""What kinds of credit that settle share: a network around its clamped input, taken apart once for many steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.credit.base import Weights
from metarule.credit.feedback import without_bias
from metarule.network import Network


@dataclass(frozen=True, eq=False)
class Circuit:
    """Weights both ways between populations, and the drive that stays the same while they settle.

    `up` (R J I) and `down` (R I J) leave out the always-on unit; `constant` (R B I, or R 1 I) is what the input and the
    always-on units add to the drive of a population.
    """

    network: Network
    up: dict[str, Tensor]
    down: dict[str, Tensor]
    constant: dict[str, Tensor]

    @classmethod
    def around(
        cls,
        network: Network,
        weights: Weights,
        x: Float[Tensor, "R B J"],
        strengths: Mapping[str, Float[Tensor, "R 1 1"]] | None = None,
    ) -> Circuit:
        """The circuit of a network whose input is held at x; `strengths` multiply the way down, by projection."""
        down = {p.name: without_bias(p, weights[p.name]) for p in network.projections}
        up = {name: weight.transpose(1, 2) for name, weight in down.items()}
        constant: dict[str, Tensor] = {}
        for projection in network.projections:
            given = weights[projection.name][:, None, :, -1] if projection.bias else None
            if projection.source == network.input_name:
                driven = up[projection.name]
                given = torch.bmm(x, driven) if given is None else torch.baddbmm(given, x, driven)
            if given is not None:
                known = constant.get(projection.target)
                constant[projection.target] = given if known is None else known + given
        if strengths is not None:
            down = {name: weight * strengths[name] for name, weight in down.items()}
        return cls(network, up, down, constant)

    def drive(self, name: str, rates: Mapping[str, Tensor]) -> Float[Tensor, "R B I"]:
        """What a population receives from below."""
        total = self.constant.get(name)
        for projection in self.network.into(name):
            if projection.source != self.network.input_name:
                total = _added(total, rates[projection.source], self.up[projection.name])
        assert total is not None
        return total

    def feedback(self, name: str, sent: Mapping[str, Tensor], onto: Tensor | None = None) -> Float[Tensor, "R B J"]:
        """What a population receives from above where each population sends `sent`, added to `onto`."""
        total = onto
        for projection in self.network.out_of(name):
            total = _added(total, sent[projection.target], self.down[projection.name])
        assert total is not None
        return total


def depths(network: Network) -> dict[str, int]:
    """Projections on the longest way from each population to the output: 0 at the output, most at the input."""
    found = {network.output_name: 0}
    for population in reversed(network.populations[:-1]):
        found[population.name] = 1 + max(found[p.target] for p in network.out_of(population.name))
    return found


def _added(total: Tensor | None, value: Tensor, weight: Tensor) -> Tensor:
    return torch.bmm(value, weight) if total is None else torch.baddbmm(total, value, weight)
