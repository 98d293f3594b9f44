"""Rows whose units hear an error: backprop, and what replaces its weight transport."""

from __future__ import annotations

from typing import NamedTuple

from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.sign_symmetry import SignSymmetry
from metarule.learner import ANY
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.zoo.base import Algorithm


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
    )


EXPLICIT_ERROR: dict[str, Algorithm] = {
    "backprop": Algorithm("Rumelhart, Hinton and Williams 1986", "gradient descent", Backprop()),
    "momentum": Algorithm("Polyak 1964", "gradient descent with momentum", Backprop(), synapses={ANY: Momentum()}),
    "adam": Algorithm("Kingma and Ba 2015", "gradient descent with Adam", Backprop(), synapses={ANY: Adam()}),
    "readout_only": Algorithm(
        "Widrow and Hoff 1960", "only the last layer learns: the control", Backprop(), {"readout": Delta()}
    ),
    "feedback_alignment": Algorithm(
        "Lillicrap et al. 2016", "errors through fixed random weights", FeedbackAlignment()
    ),
    "direct_feedback_alignment": Algorithm(
        "Nokland 2016", "the output error straight to every layer", DirectFeedbackAlignment()
    ),
    "sign_symmetry": Algorithm(
        "Liao, Leibo and Poggio 2016", "feedback shares the sign of the weights", SignSymmetry()
    ),
    "kolen_pollack": Algorithm(
        "Kolen and Pollack 1994",
        "feedback learns as the weights do",
        KolenPollack(),
        {"forward": Delta(), "feedback": Delta()},
        {ANY: Sgd(weight_decay=1e-3)},
    ),
    "ehebb": _published("pseudo-gradient and eHebb", _Published(0.0122, 0.0435)),
    "fa_oja": _published("pseudo-gradient and subspace Oja", _Published(0.0122, 0.0, 0.0067)),
    "three_term": _published("pseudo-gradient, eHebb and subspace Oja", _Published(0.0122, 0.0435, 0.0067)),
    "three_term_flipped": _published(
        "the same with the sign of eHebb flipped: the negative control", _Published(0.0122, -0.0435, 0.0067)
    ),
}
"""Every unit hears an error: credit assignment is a matter of how it is sent down."""
