"""Rows that learn from a single number: perturbation, policy gradients, neuromodulated plasticity."""

from __future__ import annotations

from metarule.credit.attention_gated import Agrel, Augment
from metarule.credit.neuromodulated import RewardModulatedSpikes, ThreeFactor
from metarule.credit.node_perturbation import NodePerturbation
from metarule.credit.reinforce import Reinforce
from metarule.credit.weight_perturbation import WeightPerturbation
from metarule.learner import ANY
from metarule.rules import textbook
from metarule.synapses.adam import Adam
from metarule.zoo.base import Algorithm, Host

_ONE_OF_A_FEW = {"autoencoder": "it chooses one of a few actions, and an image is none"}

REWARD: dict[str, Algorithm] = {
    "node_perturbation": Algorithm(
        "Williams 1992; Werfel, Xie and Seung 2005",
        "noise on units, repeated where it paid off",
        NodePerturbation(),
        {"forward": textbook.NodePerturbation()},
        {ANY: Adam()},
        {"synapse.rate": 2e-3, "credit.sigma": 3e-3},
        host=Host(epochs=60),
    ),
    "weight_perturbation": Algorithm(
        "Jabri and Flower 1992; Cauwenberghs 1993",
        "noise on weights, kept where it paid off",
        WeightPerturbation(),
        {"forward": textbook.WeightPerturbation()},
        {ANY: Adam()},
        {"synapse.rate": 3e-3, "credit.sigma": 1e-3},
        host=Host(epochs=60, batch=16),
    ),
    "reinforce": Algorithm(
        "Williams 1992",
        "policy gradient of a single trial, with noisy units",
        Reinforce(),
        {"forward": textbook.Reinforce()},
        {"readout": Adam(), ANY: Adam()},
        {"synapse.rate": 1e-3, "synapse.readout.rate": 1e-2, "credit.sigma": 0.2, "credit.output_sigma": 0.3},
        host=Host(epochs=200, batch=128),
    ),
    "three_factor": Algorithm(
        "Miconi 2017; Fremaux and Gerstner 2016",
        "fluctuations leave an eligibility, a reward at the end turns it into a change",
        ThreeFactor(),
        {"forward": textbook.Reinforce()},
        {"readout": Adam(), ANY: Adam()},
        {"synapse.rate": 1e-3, "synapse.readout.rate": 1e-2, "credit.sigma": 0.2, "credit.output_sigma": 0.3},
        host=Host(epochs=200, batch=128),
    ),
    "reward_modulated_stdp": Algorithm(
        "Izhikevich 2007; Florian 2007",
        "spike-timing-dependent plasticity times reward",
        RewardModulatedSpikes(),
        {"forward": textbook.RewardModulatedStdp()},
        {"readout": Adam(), ANY: Adam()},
        {
            "synapse.rate": 1e-4,
            "synapse.readout.rate": 4e-2,
            "credit.output_sigma": 0.3,
            "credit.tau": 0.2,
            "credit.tau_post": 0.1,
        },
        host=Host(epochs=60, batch=128),
    ),
    "agrel": Algorithm(
        "Roelfsema and van Ooyen 2005",
        "the chosen unit sends feedback, the reward says how it went",
        Agrel(),
        {"forward": textbook.RewardedDelta()},
        {ANY: Adam()},
        {"synapse.rate": 3e-3},
        not_for=_ONE_OF_A_FEW,
    ),
    "augment": Algorithm(
        "Rombouts, Bohte and Roelfsema 2015",
        "the same with action values",
        Augment(),
        {"forward": textbook.RewardedDelta()},
        {ANY: Adam()},
        {"synapse.rate": 3e-3},
        host=Host(output={"softmax": "linear"}),
        not_for=_ONE_OF_A_FEW,
    ),
}
"""No unit is told what it should have done."""
