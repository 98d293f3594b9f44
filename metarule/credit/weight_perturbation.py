"""Weight perturbation: all weights are jittered at once, and jitter that paid off is kept."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.acting import worth
from metarule.credit.base import CreditAssignment
from metarule.params import Param
from metarule.signals import Signals


@dataclass(frozen=True)
class WeightPerturbation(CreditAssignment):
    """weight_noise Z ~ N(0, sigma^2), one for the whole batch; reward = (worth with Z - worth without) / sigma^2.

    Worth is minus the matched loss, or the reward where the task shows no target. With rule `weight_perturbation` the
    update is the gradient of the worth on average over Z, as sigma -> 0; its variance grows with the number of weights.
    """

    kind = "weight_perturbation"
    source = "Jabri and Flower 1992; Cauwenberghs 1993"
    not_local = "The change of the loss reaches every synapse, and needs a second, quiet pass."
    gives = frozenset({"reward", "weight_noise"})

    @property
    def params(self):
        return (Param("sigma", start=0.01, log=True),)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        sigma = theta[:, :1, None]
        jitter = {name: sigma * noise.at(name).normal(*weights[name].shape[1:]) for name in wanted}
        moved = {**weights, **{name: weights[name] + jitter[name] for name in jitter}}
        noisy, clean = (network.forward(each, batch.x) for each in (moved, weights))
        gained = (worth(network, batch, noisy) - worth(network, batch, clean)) / sigma.square()
        return {name: Signals(weights[name], reward=gained, weight_noise=jitter[name]) for name in jitter}, state
