"""Rows without a backward path: local losses, synthetic gradients, two forward passes."""

from __future__ import annotations

from metarule.credit.forward_forward import ForwardForward
from metarule.credit.local_losses import LocalLosses
from metarule.credit.pepita import Pepita
from metarule.credit.synthetic_gradients import SyntheticGradients
from metarule.learner import ANY, READOUT
from metarule.rules.textbook import ActivityDifference, Delta, ModulatedHebb
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.zoo.base import Algorithm, Host

FORWARD_ONLY: dict[str, Algorithm] = {
    "synthetic_gradients": Algorithm(
        "Jaderberg et al. 2017",
        "every layer predicts the error that will reach it",
        SyntheticGradients(),
        {"forward": Delta(), "head": Delta()},
        {ANY: Adam(), "head": Momentum()},
        {"synapse.rate": 2e-3, "synapse.head.rate": 0.04},
    ),
    "local_losses": Algorithm(
        "Mostafa, Ramesh and Cauwenberghs 2018; Nokland and Eidnes 2019",
        "every layer answers by a readout of its own",
        LocalLosses(),
        {"forward": Delta(), "local_readout": Delta()},
        {ANY: Momentum()},
        {"synapse.rate": 0.02},
    ),
    "forward_forward": Algorithm(
        "Hinton 2022",
        "active for right labels, silent for wrong ones",
        ForwardForward(),
        {"forward": ModulatedHebb(), READOUT: Delta()},
        {ANY: Adam()},
        {"synapse.rate": 3e-3},
        host=Host(activation="relu"),
        not_for={"autoencoder": "it tells right labels from wrong ones, and an image to rebuild is no label"},
    ),
    "pepita": Algorithm(
        "Dellaferrera and Kreiman 2022",
        "the second pass sees the error in its input",
        Pepita(),
        {"forward": ActivityDifference()},
        {ANY: Momentum()},
        {"synapse.rate": 0.02},
    ),
}
"""No unit hears an error from above: a layer has a goal of its own, or sees the input twice."""
