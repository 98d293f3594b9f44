"""Rows whose synapses are more than a number: backprop's changes kept in chains, in pairs, in discrete states."""

from __future__ import annotations

from metarule.credit.backprop import Backprop
from metarule.learner import ANY
from metarule.synapses.benna_fusi import BennaFusi
from metarule.synapses.fast_slow import FastSlow
from metarule.synapses.markov import MarkovCascade, MarkovSerial
from metarule.zoo.base import Algorithm, Host

WIDE = Host(hidden=(256,))
"""Two strengths are coarse: only the sum of many synapses is graded."""

SYNAPSE_MODELS: dict[str, Algorithm] = {
    "benna_fusi": Algorithm(
        "Benna and Fusi 2016",
        "chains of variables: changes fade as 1 / sqrt(t)",
        Backprop(),
        # a weak coupling: what one epoch learns is still at the surface
        synapses={ANY: BennaFusi(coupling=0.01)},
        values={"synapse.rate": 0.1},
    ),
    "fast_slow": Algorithm(
        "Hinton and Plaut 1987",
        "a fast part that fades, a slow part that keeps",
        Backprop(),
        synapses={ANY: FastSlow()},
        values={"synapse.rate": 0.1},
    ),
    "markov_serial": Algorithm(
        "Lahiri and Ganguli 2013",
        "two strengths, hidden states in a row",
        Backprop(),
        synapses={ANY: MarkovSerial()},
        values={"synapse.rate": 1.0},
        host=WIDE,
    ),
    "markov_cascade": Algorithm(
        "Fusi, Drew and Abbott 2005",
        "two strengths, ever more stubborn states",
        Backprop(),
        synapses={ANY: MarkovCascade()},
        values={"synapse.rate": 0.5},
        host=WIDE,
    ),
}
"""Credit and rule are backprop's: what differs is how a change becomes a weight, and for how long."""
