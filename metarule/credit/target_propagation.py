"""Target propagation: the target of a layer is what its inverse makes of the target above."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.layer_inverses import LayerInverses


@dataclass(frozen=True)
class TargetPropagation(LayerInverses):
    """target_L = h_L + step e; target_l = G_l(target_{l+1}), G_l(h) = f(V_l h + c_l): errors of the inverse come along.

    Inverses learn as `LayerInverses` says, in `inverse_stages` stages before each change of the forward weights.
    """

    kind = "target_propagation"
    source = "LeCun 1986; Bengio 2014"
    not_local = "Nothing is borrowed from the forward weights; inverses learn from noise in a phase of their own."

    def descend(self, network, weights, projection, activity, move):
        aimed = self.heard(network, weights, projection, activity, move)
        return self.rebuilt(network, weights, projection, aimed) - activity.rates[projection.source]
