"""Rows whose error is the result of settling: predictive coding, contrastive and equilibrium learning."""

from __future__ import annotations

from dataclasses import replace

from metarule.credit.continuous_update import ContinuousUpdate
from metarule.credit.contrastive_hebbian import ContrastiveHebbian
from metarule.credit.equilibrium_propagation import EquilibriumPropagation
from metarule.credit.incremental_predictive_coding import IncrementalPredictiveCoding
from metarule.credit.predictive_coding import PredictiveCoding
from metarule.credit.zero_divergence_inference import ZeroDivergenceInference
from metarule.learner import ANY
from metarule.rules.textbook import DifferentialHebb, ScaledContrastive
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.zoo.base import Algorithm, Host

_SETTLED = Host(activation="tanh", output={"softmax": "linear"}, init_scale=0.35, epochs=20)


def _equilibrium(source: str, summary: str, nudge: str, rate: float, beta: float, epochs: int = 20) -> Algorithm:
    return Algorithm(
        source,
        summary,
        EquilibriumPropagation(nudge),
        {"forward": ScaledContrastive()},
        {ANY: Adam()},
        values={"synapse.rate": rate, "credit.beta": beta},
        host=replace(_SETTLED, epochs=epochs),
    )


ENERGY: dict[str, Algorithm] = {
    "predictive_coding_fixed": Algorithm(
        "Millidge, Tschantz and Buckley 2020",
        "errors are inferred around the predictions of the feedforward pass",
        PredictiveCoding("fixed"),
        synapses={ANY: Adam()},
        values={"synapse.rate": 3e-3},
    ),
    "predictive_coding_strict": Algorithm(
        "Whittington and Bogacz 2017",
        "values and their predictions settle together before weights change",
        PredictiveCoding("strict"),
        synapses={ANY: Adam()},
        values={"synapse.rate": 3e-3},
    ),
    "zero_divergence_inference": Algorithm(
        "Song et al. 2020",
        "predictive coding that changes weights when their error arrives: backprop",
        ZeroDivergenceInference(),
        synapses={ANY: Adam()},
        values={"synapse.rate": 3e-3},
    ),
    "incremental_predictive_coding": Algorithm(
        "Salvatori et al. 2024",
        "values and weights move at every step",
        IncrementalPredictiveCoding(),
        synapses={ANY: Adam()},
        values={"synapse.rate": 1e-3, "credit.inference_rate": 0.5},
        host=Host(epochs=20),
    ),
    "contrastive_hebbian": Algorithm(
        "Xie and Seung 2003",
        "Hebbian with the output clamped, anti-Hebbian without",
        ContrastiveHebbian(),
        {"forward": ScaledContrastive()},
        {ANY: Momentum()},
        values={"synapse.rate": 0.03, "credit.gamma": 0.03},
    ),
    "equilibrium_propagation_one_sided": _equilibrium(
        "Scellier and Bengio 2017", "the nudged phase against the free one", "one_sided", 3e-3, 0.1
    ),
    "equilibrium_propagation_random_sign": _equilibrium(
        "Scellier and Bengio 2017", "the sign of the nudge is drawn per step", "random_sign", 2e-3, 0.2, epochs=40
    ),
    "equilibrium_propagation": _equilibrium(
        "Laborieux et al. 2021", "nudged one way against nudged the other", "symmetric", 3e-3, 0.1
    ),
    "continuous_update": Algorithm(
        "Bengio et al. 2017",
        "pre times the change of post, at every moment of the nudged phase",
        ContinuousUpdate(),
        {"forward": DifferentialHebb()},
        {ANY: Sgd(weight_decay=1e-3)},
        values={"synapse.rate": 0.03, "credit.beta": 0.2},
        host=replace(_SETTLED, epochs=40),
    ),
}
