"""Difference target propagation whose inverses learn from the difference reconstruction loss."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.layer_inverses import LayerInverses, inverse_name
from metarule.credit.targets import chain, onward
from metarule.signals import Signals


@dataclass(frozen=True)
class DifferenceReconstructionLoss(LayerInverses):
    """Targets of difference target propagation; V_l descends |xi - move_l(xi)|^2 / (2 sigma^2).

    move_l(xi) is the move that comes back to layer l, one inverse after another, from what noise xi there did to the
    output. The feedback path as a whole then becomes the (damped) pseudo-inverse of the forward path: with
    gap = xi - G_l(h_{l+1} + m) + G_l(h_{l+1}), m the move above,
    dV = (gap G_l'(h_{l+1} + m) (h_{l+1} + m)^T - gap G_l'(h_{l+1}) h_{l+1}^T) / sigma^2.
    At an inverse the two products are `post pre^T` and `post_ref pre_ref^T`: the rule `contrastive` descends.
    """

    kind = "difference_reconstruction_loss"
    source = "Meulemans et al. 2020 (DTPDRL)"
    not_local = "Inverses learn from noise that runs from each layer to the output and back, one pass per layer."

    def gives_at(self, network, projection):
        return frozenset({"pre", "post", "pre_ref", "post_ref"}) if projection.role == "inverse" else self.gives

    def inverse_signals(self, theta, network, weights, activity, noise, wanted):
        signals, sigma = {}, theta[:, 1:2, None]
        above = chain(network)
        for place, projection in enumerate(above[1:], start=1):
            lower, name = projection.source, inverse_name(projection)
            if name not in wanted:
                continue
            inverse = self.inverse(network, projection)
            rate = activity.rates[lower]
            xi = sigma * noise.at("xi", lower).normal(*rate.shape[1:])
            top = network.output_name
            move = onward(network, weights, lower, rate + xi).drives[top] - activity.drives[top]
            for higher in reversed(above[place + 1 :]):
                move = self.descend(network, weights, higher, activity, move)
            heard, moved = (self.heard(network, weights, projection, activity, each) for each in (0.0, move))
            rebuilt, aimed = (self.rebuilt(network, weights, projection, each) for each in (heard, moved))
            gap = (xi - aimed + rebuilt) / sigma.square()
            signals[name] = Signals(
                weights[name],
                pre=network.pre(inverse, {inverse.source: moved}),
                post=gap * network.gain(lower, {lower: aimed}),
                pre_ref=network.pre(inverse, {inverse.source: heard}),
                post_ref=gap * network.gain(lower, {lower: rebuilt}),
            )
        return signals
