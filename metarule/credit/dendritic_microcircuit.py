"""Dendritic microcircuit, its two-step form: a pass up, then a sweep down in which apical dendrites mismatch."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.compartments import compared
from metarule.credit.microcircuits import Microcircuit, apical, lateral_signals, to_interneurons
from metarule.credit.targets import chain, driven
from metarule.params import Param


@dataclass(frozen=True)
class DendriticMicrocircuit(Microcircuit):
    """u_L = v_L + nudge (target - v_L); u_k = v_k + nudge v_A, v_k = W phi(v_below) the basal prediction.

    v_A = W_down phi(u_above) + W_PI phi(u_I), u_I = v_I + nudge_interneuron (u_above - v_I), v_I = W_IP phi(v_k).
    Teaching arrives weaker by nudge (1 - nudge_interneuron) per layer, which `gain` undoes: so much does it amplify
    what W_IP fails to predict.
    """

    kind = "dendritic_microcircuit"
    source = "Sacramento et al. 2018"
    not_local = (
        "With feedback = 'transposed' top-down weights start as the transpose of the forward ones; with "
        "self_predicting lateral ones start as copies. The sweep down waits for the sweep up."
    )

    feedback: str = "transposed"
    self_predicting: bool = True
    low: float = 0.1
    high: float = 0.8

    @property
    def params(self):
        return (
            Param("nudge", start=0.3, high=1.0, log=True),
            Param("nudge_interneuron", start=0.1, high=0.9, log=True),
        )

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        nudge, nudge_interneuron = theta[:, 0, None, None], theta[:, 1, None, None]
        activity = network.forward(weights, batch.x)
        rates, top = activity.rates, network.output_name
        target = self.target_drive(network, batch, activity)
        soma = activity.drives[top] + nudge * (target - activity.drives[top])
        gain = 1 / nudge
        taught, gains = {top: network.rate(top, soma)}, {top: gain.expand_as(soma)}
        signals = {}
        for projection in reversed(chain(network)[1:]):
            lower, upper = projection.source, projection.target
            predicted = driven(network, weights, to_interneurons(projection), rates[lower])
            untaught = predicted + nudge_interneuron * (activity.drives[upper] - predicted)
            signals |= lateral_signals(
                network, weights, projection, rates, network.rate(upper, untaught), network.rate(upper, predicted),
                1 / nudge_interneuron, wanted,
            )  # fmt: skip
            interneurons = network.rate(upper, predicted + nudge_interneuron * (soma - predicted))
            soma = activity.drives[lower] + nudge * apical(weights, projection, taught[upper], interneurons)
            taught[lower] = network.rate(lower, soma)
            gain = gain / (nudge * (1 - nudge_interneuron))
            gains[lower] = gain.expand_as(soma)
        return signals | compared(network, weights, rates, taught, rates, gains, wanted), state
