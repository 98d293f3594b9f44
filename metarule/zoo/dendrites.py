"""Rows whose error lives in a dendrite: apical plateaus, lateral inhibition, bursts."""

from __future__ import annotations

from metarule.credit.burst_ccn import BurstCCN
from metarule.credit.burstprop import Burstprop
from metarule.credit.continuous_microcircuit import ContinuousMicrocircuit
from metarule.credit.dendritic_microcircuit import DendriticMicrocircuit
from metarule.credit.segregated_dendrites import SegregatedDendrites
from metarule.learner import ANY
from metarule.rules.textbook import ActivityDifference, Delta, Difference
from metarule.synapses.adam import Adam
from metarule.synapses.sgd import Sgd
from metarule.zoo.base import Algorithm, Host

_MICROCIRCUIT = {"forward": Difference(), "interneuron": Difference(), "lateral": Delta()}
_RATES = {"synapse.rate": 3e-3, "synapse.interneuron.rate": 1e-2, "synapse.lateral.rate": 1e-2}
_LOGISTIC = Host(activation="sigmoid", output={"softmax": "sigmoid", "linear": "sigmoid"})

DENDRITES: dict[str, Algorithm] = {
    "segregated_dendrites": Algorithm(
        "Guerguiev, Lillicrap and Richards 2017",
        "apical plateaus with and without a teacher",
        SegregatedDendrites(),
        {"forward": Difference()},
        {ANY: Adam()},
        {"synapse.rate": 5e-3},
        host=_LOGISTIC,
    ),
    "microcircuit": Algorithm(
        "Sacramento et al. 2018",
        "interneurons cancel what is expected from above; what is left of it teaches; feedback starts as W^T",
        DendriticMicrocircuit(),
        _MICROCIRCUIT,
        {ANY: Adam(), "interneuron": Adam(), "lateral": Sgd()},
        _RATES,
        host=Host(output={"softmax": "sigmoid"}),
    ),
    "microcircuit_random": Algorithm(
        "Sacramento et al. 2018",
        "the same with fixed random feedback",
        DendriticMicrocircuit(feedback="random"),
        _MICROCIRCUIT,
        {ANY: Adam(), "interneuron": Adam(), "lateral": Sgd()},
        _RATES,
        host=Host(output={"softmax": "sigmoid"}),
    ),
    "microcircuit_continuous": Algorithm(
        "Sacramento et al. 2018",
        "the circuit in continuous time, feedback from W^T, lateral inhibition learned from random weights",
        ContinuousMicrocircuit(),
        _MICROCIRCUIT,
        {ANY: Adam(), "interneuron": Adam(), "lateral": Adam()},
        _RATES,
        host=Host(output={"softmax": "linear", "linear": "sigmoid"}),
    ),
    "burstprop": Algorithm(
        "Payeur et al. 2021",
        "bursts carry credit on top of the events that carry activity",
        Burstprop(),
        {"forward": ActivityDifference()},
        {ANY: Adam()},
        {"synapse.rate": 5e-3},
        host=_LOGISTIC,
    ),
    "burst_ccn": Algorithm(
        "Greedy et al. 2022",
        "bursts beyond those that inhibition cancels, in a single phase",
        BurstCCN(),
        {"forward": ActivityDifference()},
        {ANY: Adam()},
        {"synapse.rate": 5e-3},
        host=_LOGISTIC,
    ),
}
