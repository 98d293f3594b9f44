"""Direct target propagation: the output's error reaches each layer through a feedback path of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarule.credit.base import Weights
from metarule.credit.feedback import output_error
from metarule.credit.targets import SIGMA, STEP, Targets, chain, checked_stages, driven, onward
from metarule.network import Network, Projection
from metarule.signals import Signals


@dataclass(frozen=True)
class DirectTargetPropagation(Targets):
    """move_L = step e; move_l = Q_l (p_l(a_L + move_L) - p_l(a_L)), a_L the drive of the output.

    p_l(a) = a, or with `features` > 0, tanh(B a) of that many fixed random units that all layers share but the last
    hidden one, which hears a itself. Q_l learns from noise by the difference reconstruction loss:
    dQ = (xi - Q_l d) d^T, with d = (p_l(a_L(h_l + sigma xi)) - p_l(a_L)) / sigma. Where p_l(a) = a, and with weight
    decay lambda, it tends to J^T (J J^T + lambda)^-1, J = d a_L / d h_l.
    """

    kind = "direct_target_propagation"
    source = "Meulemans et al. 2020 (DDTP-linear, DDTP-RHL)"
    not_local = "Feedback learns from noise that runs from each layer to the output, one pass per layer."
    plastic_roles = frozenset({"inverse"})

    features: int = 0
    inverse_stages: int = 1

    def __post_init__(self) -> None:
        checked_stages(self.inverse_stages)
        if self.features < 0:
            raise ValueError(f"credit.features = {self.features} must not be negative; 0 is a linear feedback path")

    @property
    def params(self):
        return STEP, SIGMA

    def projections(self, network):
        inverses = tuple(self.inverse(network, projection.source) for projection in chain(network)[1:])
        return (*inverses, self.random(network)) if self.features and len(inverses) > 1 else inverses

    def inverse(self, network: Network, lower: str) -> Projection:
        """The projection with the weights Q of a hidden layer."""
        top = network.output_name
        if not self._through_features(network, lower):
            return Projection(f"{top}~>{lower}", top, lower, "inverse")
        return Projection(
            f"features~>{lower}", "features", lower, "inverse", shape=(network.sizes[lower], self.features)
        )

    def random(self, network: Network) -> Projection:
        """The fixed projection from the output to the random features."""
        top = network.output_name
        return Projection(f"{top}=>features", top, "features", "feedback", shape=(self.features, network.sizes[top]))

    def heard(self, network: Network, weights: Weights, lower: str, drive: Tensor) -> Tensor:
        """p_l of a drive of the output."""
        if not self._through_features(network, lower):
            return drive
        return torch.tanh(driven(network, weights, self.random(network), drive))

    def _through_features(self, network: Network, lower: str) -> bool:
        return self.features > 0 and lower != network.populations[-2].name

    def moves(self, theta, network, weights, activity, batch):
        top = network.output_name
        drive, error = activity.drives[top], output_error(network, activity, batch)
        moves = {top: theta[:, :1, None] * error}
        for projection in chain(network)[1:]:
            lower = projection.source
            calm, aimed = (self.heard(network, weights, lower, each) for each in (drive, drive + moves[top]))
            moves[lower] = driven(network, weights, self.inverse(network, lower), aimed - calm)
        return moves

    def inverse_signals(self, theta, network, weights, activity, noise, wanted):
        signals, sigma, top = {}, theta[:, 1:2, None], network.output_name
        for projection in chain(network)[1:]:
            lower = projection.source
            inverse = self.inverse(network, lower)
            if inverse.name not in wanted:
                continue
            rate = activity.rates[lower]
            xi = noise.at("xi", lower).normal(*rate.shape[1:])
            shaken = onward(network, weights, lower, rate + sigma * xi).drives[top]
            before, after = (self.heard(network, weights, lower, each) for each in (activity.drives[top], shaken))
            change = (after - before) / sigma
            signals[inverse.name] = Signals(
                weights[inverse.name],
                pre=change,
                post=xi,
                post_ref=driven(network, weights, inverse, change),
                gain=torch.ones_like(xi),
            )
        return signals
