"""Local difference reconstruction: feedback learns the transpose of each layer's Jacobian, so targets become errors."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.layer_inverses import LayerInverses, inverse_name
from metarule.credit.targets import chain, driven, onward
from metarule.signals import Signals


@dataclass(frozen=True)
class LocalDifferenceReconstruction(LayerInverses):
    """move_L = step e; move_l = F_l move_{l+1}; F_l descends -<xi, F_l d> + |F_l nu|^2 / 2.

    d = (f(h_l + sigma xi) - f(h_l)) / sigma is what noise at layer l does to the layer above, nu is noise there, both
    xi and nu standard normal. So dF = xi d^T - (F_l nu) nu^T, and F_l tends to the transpose of the mean Jacobian of
    the layer above. At a feedback projection the two products are `post pre^T` and `post_ref pre_ref^T`: the rule
    `contrastive` descends.
    """

    kind = "local_difference_reconstruction"
    source = "Ernoult et al. 2022 (L-DRL)"
    not_local = "The noise of a layer is remembered until the layer above has answered."

    def gives_at(self, network, projection):
        return frozenset({"pre", "post", "pre_ref", "post_ref"}) if projection.role == "inverse" else self.gives

    def inverse(self, network, projection):
        return super().inverse(network, projection)._replace(bias=False)

    def descend(self, network, weights, projection, activity, move):
        return driven(network, weights, self.inverse(network, projection), move)

    def inverse_signals(self, theta, network, weights, activity, noise, wanted):
        signals, sigma = {}, theta[:, 1:2, None]
        for projection in chain(network)[1:]:
            lower, name = projection.source, inverse_name(projection)
            if name not in wanted:
                continue
            rate = activity.rates[lower]
            xi = noise.at("xi", lower).normal(*rate.shape[1:])
            noisy = onward(network, weights, lower, rate + sigma * xi, layers=1)
            heard, shaken = (self.heard(network, weights, projection, each) for each in (activity, noisy))
            nu = noise.at("nu", lower).normal(*heard.shape[1:])
            signals[name] = Signals(
                weights[name],
                pre=(shaken - heard) / sigma,
                post=xi,
                pre_ref=nu,
                post_ref=driven(network, weights, self.inverse(network, projection), nu),
            )
        return signals
