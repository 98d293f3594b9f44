"""Rows whose units hear an error: backprop, and what replaces its weight transport."""

from __future__ import annotations

from typing import NamedTuple

from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.direct_random_target import DirectRandomTarget
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.information_alignment import InformationAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.sign_symmetry import SignSymmetry
from metarule.credit.weight_mirror import WeightMirror
from metarule.learner import ANY, READOUT
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, Hebb
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.zoo.base import Algorithm, Host


class _Published(NamedTuple):
    """Raw coefficients of Shervani-Tabar and Rosenbaum's three terms, in the sign convention of `terms.TERMS`."""

    error_pre: float
    error_pre_error: float = 0.0
    subspace_oja: float = 0.0


def _published(summary: str, coefficients: _Published) -> Algorithm:
    named = {name: value for name, value in coefficients._asdict().items() if value}
    return Algorithm(
        "Shervani-Tabar and Rosenbaum 2023 (coefficients of an independent run of their code)",
        summary,
        FeedbackAlignment(),
        {"forward": Terms(tuple(named), normalise=False)},
        values={f"rule.forward.{name}": value for name, value in named.items()},
        free=(),
        host=Host(activation="softplus", epochs=4, batch=1),
        not_for={"autoencoder": "its numbers were found on classification; on a linear output its weights diverge"},
    )


EXPLICIT_ERROR: dict[str, Algorithm] = {
    "backprop": Algorithm(
        "Rumelhart, Hinton and Williams 1986", "gradient descent", Backprop(), values={"synapse.rate": 0.05}
    ),
    "momentum": Algorithm(
        "Polyak 1964",
        "gradient descent with momentum",
        Backprop(),
        synapses={ANY: Momentum()},
        values={"synapse.rate": 0.025},
    ),
    "adam": Algorithm(
        "Kingma and Ba 2015",
        "gradient descent with Adam",
        Backprop(),
        synapses={ANY: Adam()},
        values={"synapse.rate": 2e-3},
    ),
    "readout_only": Algorithm(
        "Widrow and Hoff 1960",
        "only the last layer learns: the control",
        Backprop(),
        {READOUT: Delta()},
        values={"synapse.rate": 0.2},
    ),
    "feedback_alignment": Algorithm(
        "Lillicrap et al. 2016",
        "errors through fixed random weights",
        FeedbackAlignment(),
        values={"synapse.rate": 0.05},
    ),
    "direct_feedback_alignment": Algorithm(
        "Nokland 2016",
        "the output error straight to every layer",
        DirectFeedbackAlignment(),
        values={"synapse.rate": 0.1},
    ),
    "direct_random_target_projection": Algorithm(
        "Frenkel, Lefebvre and Bol 2021",
        "the target, not the error, straight to every layer",
        DirectRandomTarget(),
        values={"synapse.rate": 0.1},
        not_for={"autoencoder": "a class says on which side of it every output lies, a pixel does not"},
    ),
    "sign_symmetry": Algorithm(
        "Liao, Leibo and Poggio 2016",
        "feedback shares the sign of the weights",
        SignSymmetry(),
        values={"synapse.rate": 0.1},
    ),
    "sign_symmetry_batchwise": Algorithm(
        "Liao, Leibo and Poggio 2016; Moskovitz, Litwin-Kumar and Abbott 2018",
        "the sign of the weights, a new random size at every step",
        SignSymmetry("batchwise_random"),
        values={"synapse.rate": 0.1},
    ),
    "sign_symmetry_fixed": Algorithm(
        "Moskovitz, Litwin-Kumar and Abbott 2018",
        "the sign of the weights, a random size that stays",
        SignSymmetry("fixed_random"),
        values={"synapse.rate": 0.1},
    ),
    "kolen_pollack": Algorithm(
        "Kolen and Pollack 1994",
        "feedback learns as the weights do",
        KolenPollack(),
        {"forward": Delta(), "feedback": Delta()},
        {ANY: Sgd(weight_decay=1e-3)},
        {"synapse.rate": 0.1},
    ),
    "weight_mirror": Algorithm(
        "Akrout et al. 2019",
        "feedback learns the weights from noise sent through them",
        WeightMirror(),
        {"forward": Delta(), "feedback": Hebb()},
        {ANY: Sgd(), "feedback": Sgd(weight_decay=0.01)},
        {"synapse.rate": 0.1, "synapse.feedback.rate": 1.0},
    ),
    "information_alignment": Algorithm(
        "Kunin, Nayebi et al. 2020",
        "feedback learns to send back what came up",
        InformationAlignment(),
        {"forward": Delta(), "feedback": Terms(("post_pre", "post_ref_pre", "weight_decay"), normalise=False)},
        {ANY: Sgd(), "feedback": Sgd()},
        {
            "synapse.rate": 0.1,
            "rule.feedback.post_pre": 0.1,
            "rule.feedback.post_ref_pre": -0.03,
            "rule.feedback.weight_decay": 0.0003,
        },
    ),
    "ehebb": _published("pseudo-gradient and eHebb", _Published(0.0122, 0.0435)),
    "fa_oja": _published("pseudo-gradient and subspace Oja", _Published(0.0122, 0.0, 0.0067)),
    "three_term": _published("pseudo-gradient, eHebb and subspace Oja", _Published(0.0122, 0.0435, 0.0067)),
    "three_term_flipped": _published(
        "the same with the sign of eHebb flipped: the negative control", _Published(0.0122, -0.0435, 0.0067)
    ),
}
"""Every unit hears an error: credit assignment is a matter of how it is sent down."""
