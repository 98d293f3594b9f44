"""What the kinds of credit share whose targets travel one layer at a time, through learned inverses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarule.credit.base import Weights
from metarule.credit.feedback import output_error
from metarule.credit.targets import SIGMA, STEP, Targets, chain, checked_stages, driven, onward
from metarule.network import Activity, Network, Projection
from metarule.params import Param
from metarule.signals import Batch, Signals


@dataclass(frozen=True)
class LayerInverses(Targets):
    """move_L = step e; move_l = G_l(h_{l+1} + move_{l+1}) - G_l(h_{l+1}), with G_l(h) = f(V_l h + c_l).

    h_L is the drive of the output: its softmax belongs to the loss. V_l learns to undo the layer F above it from noisy
    activity: dV = gain (h_l + xi - G_l(F(h_l + xi))) F(h_l + xi)^T, xi of standard deviation `sigma`.
    """

    plastic_roles = frozenset({"inverse"})

    inverse_stages: int = 1

    def __post_init__(self) -> None:
        checked_stages(self.inverse_stages)

    @property
    def params(self) -> tuple[Param, ...]:
        return STEP, SIGMA

    def projections(self, network):
        return tuple(self.inverse(network, projection) for projection in chain(network)[1:])

    def inverse(self, network: Network, projection: Projection) -> Projection:
        """The projection that runs against a forward one, with the weights V."""
        name = inverse_name(projection)
        return Projection(name, projection.target, projection.source, "inverse", bias=projection.bias)

    def moves(self, theta, network, weights, activity, batch):
        moves = {network.output_name: self.top_move(theta, network, activity, batch)}
        for projection in reversed(chain(network)[1:]):
            moves[projection.source] = self.descend(network, weights, projection, activity, moves[projection.target])
        return moves

    def top_move(self, theta: Tensor, network: Network, activity: Activity, batch: Batch) -> Tensor:
        """How far the output should move."""
        return theta[:, :1, None] * output_error(network, activity, batch)

    def descend(
        self, network: Network, weights: Weights, projection: Projection, activity: Activity, move: Tensor
    ) -> Tensor:
        """How far the source of `projection` should move for its target to make `move`."""
        heard = self.heard(network, weights, projection, activity)
        aimed = self.heard(network, weights, projection, activity, move)
        return self.rebuilt(network, weights, projection, aimed) - self.rebuilt(network, weights, projection, heard)

    def heard(
        self,
        network: Network,
        weights: Weights,
        projection: Projection,
        activity: Activity,
        move: Tensor | float = 0.0,
    ) -> Tensor:
        """What an inverse hears of the layer above: its rate, at the output its drive, moved by `move`."""
        upper = projection.target
        return (activity.drives if upper == network.output_name else activity.rates)[upper] + move

    def rebuilt(self, network: Network, weights: Weights, projection: Projection, heard: Tensor) -> Tensor:
        """G_l of what is heard of the layer above."""
        inverse = self.inverse(network, projection)
        return network.rate(inverse.target, driven(network, weights, inverse, heard))

    def inverse_signals(self, theta, network, weights, activity, noise, wanted):
        signals = {}
        for projection in chain(network)[1:]:
            lower, name = projection.source, inverse_name(projection)
            if name not in wanted:
                continue
            rate = activity.rates[lower]
            noisy = rate + theta[:, -1:, None] * noise.at("xi", lower).normal(*rate.shape[1:])
            heard = self.heard(network, weights, projection, onward(network, weights, lower, noisy, layers=1))
            rebuilt = self.rebuilt(network, weights, projection, heard)
            signals[name] = Signals(
                weights[name],
                pre=network.pre(self.inverse(network, projection), {projection.target: heard}),
                post=self.wished(rate, noisy),
                post_ref=rebuilt,
                gain=network.gain(lower, {lower: rebuilt}),
            )
        return signals

    def wished(self, rate: Tensor, noisy: Tensor) -> Tensor:
        """What an inverse should make of noisy activity: the noisy activity itself, noise preserved."""
        return noisy


def inverse_name(projection: Projection) -> str:
    """Name of the inverse that runs against a forward projection."""
    return f"{projection.target}~>{projection.source}"
