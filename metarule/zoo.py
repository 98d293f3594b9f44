"""Known algorithms as credit x rule x synapse model: reads as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from metarule.collect import unknown
from metarule.credit import CreditAssignment
from metarule.credit.backprop import Backprop
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.kolen_pollack import KolenPollack
from metarule.credit.none import Nobody
from metarule.credit.sign_symmetry import SignSymmetry
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules import Rule
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, Hebb, Oja, SubspaceOja
from metarule.synapses import SynapseModel
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd


@dataclass(frozen=True)
class Algorithm:
    """A row of the zoo. `fixed` holds published coefficients; a rate that is not fixed is tuned where it is compared.

    `feedback` is the rule of plastic feedback projections; `readout_only` leaves all but the output's projections as
    they were drawn.
    """

    source: str
    summary: str
    credit: CreditAssignment
    rule: Rule = field(default_factory=Delta)
    synapse: SynapseModel = field(default_factory=Sgd)
    feedback: Rule | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    readout_only: bool = False

    def learner(self, network: Network) -> Learner:
        """The algorithm on a network."""
        if self.readout_only:
            rules = {projection.name: self.rule for projection in network.into(network.output_name)}
        else:
            rules = {"forward": self.rule}
        if self.feedback is not None:
            rules["feedback"] = self.feedback
        return Learner(network, self.credit, rules, {ANY: self.synapse}, fixed=self.fixed)


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
        Terms(tuple(named), normalise=False),
        fixed={f"rule.forward.{name}": value for name, value in named.items()},
    )


# fmt: off
ZOO: dict[str, Algorithm] = {
    "backprop": Algorithm("Rumelhart, Hinton and Williams 1986", "gradient descent", Backprop()),
    "momentum": Algorithm("Polyak 1964", "gradient descent with momentum", Backprop(), synapse=Momentum()),
    "adam": Algorithm("Kingma and Ba 2015", "gradient descent with Adam", Backprop(), synapse=Adam()),
    "readout_only": Algorithm("Widrow and Hoff 1960", "only the last layer learns: the control", Backprop(), readout_only=True),
    "feedback_alignment": Algorithm("Lillicrap et al. 2016", "errors through fixed random weights", FeedbackAlignment()),
    "direct_feedback_alignment": Algorithm("Nokland 2016", "the output error straight to every layer", DirectFeedbackAlignment()),
    "sign_symmetry": Algorithm("Liao, Leibo and Poggio 2016", "feedback shares the sign of the weights", SignSymmetry()),
    "kolen_pollack": Algorithm("Kolen and Pollack 1994", "feedback learns as the weights do", KolenPollack(), synapse=Sgd(weight_decay=1e-3), feedback=Delta()),
    "ehebb": _published("pseudo-gradient and eHebb", _Published(0.0122, 0.0435)),
    "fa_oja": _published("pseudo-gradient and subspace Oja", _Published(0.0122, 0.0, 0.0067)),
    "three_term": _published("pseudo-gradient, eHebb and subspace Oja", _Published(0.0122, 0.0435, 0.0067)),
    "three_term_flipped": _published("the same with the sign of eHebb flipped: the negative control", _Published(0.0122, -0.0435, 0.0067)),
    "hebb": Algorithm("Hebb 1949", "what fires together wires together", Nobody(), Hebb()),
    "oja": Algorithm("Oja 1982", "the first principal component, every unit alone", Nobody(), Oja()),
    "subspace_oja": Algorithm("Oja 1989", "the principal subspace", Nobody(), SubspaceOja()),
}
# fmt: on


def algorithm(name: str) -> Algorithm:
    """A row by name; raises ValueError naming the nearest."""
    if name not in ZOO:
        raise ValueError(unknown("algorithm", name, ZOO))
    return ZOO[name]
