"""SNES: natural gradients for the centre and, separately, for the deviation of every parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from metarule.outer.descent import Descent
from metarule.outer.gaussian import GaussianSearch
from metarule.outer.shaping import utilities


@dataclass
class Snes(GaussianSearch):
    """m <- m + eta_mu sigma sum_k u_k s_k and sigma <- sigma exp(eta_sigma / 2 sum_k u_k (s_k^2 - 1)).

    u_k are the utilities of `shaping.utilities`, a failure ranks last. eta_mu = 1 and, for P parameters, eta_sigma =
    (3 + ln P) / (5 sqrt P). Linear in P, no correlations. Raises ValueError for fewer than 2 candidates.
    """

    kind = "snes"
    source = "Schaul, Glasmachers and Schmidhuber 2011"

    def descent(self, params):
        return Descent(params, "SGD", rate=1.0)

    def learn(self, samples, loss):
        utility = utilities(loss)
        size = len(self.params)
        eta_sigma = (3 + math.log(size)) / (5 * math.sqrt(size))
        self.centre.step(-self.deviation * (utility @ samples))
        self.deviation = self.widened((eta_sigma / 2 * (utility @ (samples.square() - 1))).exp())
