"""Node perturbation: every unit is jittered at once, and jitter that paid off is repeated."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.acting import explored, worth
from metarule.credit.base import CreditAssignment
from metarule.network import Activity
from metarule.params import Param
from metarule.signals import Signals


@dataclass(frozen=True)
class NodePerturbation(CreditAssignment):
    """post = drive + xi, post_ref = drive, xi ~ N(0, sigma^2); reward = (worth with xi - worth without) / sigma^2.

    Worth is minus the matched loss, or the reward where the task shows no target; one value per event. With rule
    `node_perturbation` the update is the gradient of the worth on average over xi, as sigma -> 0; its variance grows
    with the number of units. Only populations with a plastic input are jittered.
    """

    kind = "node_perturbation"
    source = "Williams 1992; Werfel, Xie and Seung 2005"
    not_local = "The change of the loss reaches every synapse, and needs a second, quiet pass."
    gives = frozenset({"pre", "post", "post_ref", "reward"})

    @property
    def params(self):
        return (Param("sigma", start=0.01, log=True),)

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        sigma = theta[:, :1, None]
        clean = network.forward(weights, batch.x)
        jitter = {
            name: sigma * noise.at(name).normal(*clean.drives[name].shape[1:]) for name in explored(network, wanted)
        }

        def moved(name, drive):
            return drive + jitter[name] if name in jitter else drive

        noisy = network.forward(weights, batch.x, lambda name, drive: network.rate(name, moved(name, drive)))
        reached = Activity({name: moved(name, drive) for name, drive in noisy.drives.items()}, noisy.rates)
        gained = (worth(network, batch, reached) - worth(network, batch, clean)) / sigma.square()
        signals = {
            p.name: Signals(
                weights[p.name],
                network.pre(p, clean.rates),
                clean.drives[p.target] + jitter[p.target],
                post_ref=clean.drives[p.target],
                reward=gained,
            )
            for p in network.projections
            if p.name in wanted
        }
        return signals, state
