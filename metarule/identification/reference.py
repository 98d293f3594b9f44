"""The rules that recordings are compared with, and which of them no recording can tell apart; declared beforehand.

All rows share one host (tanh or relu hidden units, softmax output, Glorot weights), so that nothing but the learning
can tell them apart: rows that insist on another network are left out (settling, dendritic and spiking networks show
themselves before they learn). Rows that the zoo trains with Adam learn by plain steps here, so that credit and synapse
model are not confounded.
"""

from __future__ import annotations

from dataclasses import replace

from metarule.credit.none import Nobody
from metarule.credit.taught_readout import TaughtReadout
from metarule.learner import ANY, READOUT
from metarule.rules.bcm import Bcm
from metarule.rules.drift import Drift
from metarule.rules.textbook import Delta, Oja
from metarule.synapses.sgd import Sgd
from metarule.zoo import ZOO, Algorithm

NO_LEARNING = "drift"
"""The class of recordings whose weights change and nothing is learned."""

UNKNOWN = "unknown"
"""What is said of a recording that no rule of the bank explains."""


def _plain(name: str) -> Algorithm:
    """A row of the zoo with plain steps; all its synapses share one rate."""
    row = ZOO[name]
    values = {key: value for key, value in row.values.items() if not key.startswith("synapse.")}
    return replace(row, synapses={ANY: Sgd()}, values={**values, "synapse.rate": 0.05}, free=("synapse.rate",))


_TARGETS = ZOO["difference_target_propagation"]

REFERENCE: dict[str, Algorithm] = {
    **{
        name: ZOO[name]
        for name in (
            "backprop", "momentum", "adam", "feedback_alignment", "direct_feedback_alignment",
            "direct_random_target_projection", "sign_symmetry", "kolen_pollack", "information_alignment",
        )
    },
    "difference_target_propagation": replace(
        _TARGETS,
        synapses={"forward": Sgd(), "inverse": _TARGETS.synapses["inverse"]},
        values={"synapse.forward.rate": 0.05, "synapse.inverse.rate": 2e-3},
    ),
    "predictive_coding": _plain("predictive_coding_strict"),
    "node_perturbation": _plain("node_perturbation"),
    "weight_perturbation": _plain("weight_perturbation"),
    "reinforce": _plain("reinforce"),
    "local_losses": _plain("local_losses"),
    "pepita": _plain("pepita"),
    "oja": Algorithm(
        "Oja 1982",
        "hidden units seek the first principal component, under a taught readout",
        TaughtReadout(),
        {"forward": Oja(), READOUT: Delta()},
    ),
    "bcm": Algorithm(
        "Bienenstock, Cooper and Munro 1982",
        "a sliding threshold, under a taught readout",
        TaughtReadout(),
        {"forward": Bcm(), READOUT: Delta()},
    ),
    NO_LEARNING: Algorithm(
        "Rule, O'Leary and Harvey 2019", "weights wander and nothing is learned", Nobody(), {"forward": Drift()}
    ),
}  # fmt: skip
"""Class -> the row that is simulated for it."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "gradient": ("backprop", "momentum", "adam"),
    "feedback": (
        "feedback_alignment", "direct_feedback_alignment", "direct_random_target_projection", "sign_symmetry",
        "kolen_pollack", "information_alignment",
    ),
    "targets": ("difference_target_propagation", "predictive_coding"),
    "reward": ("node_perturbation", "weight_perturbation", "reinforce"),
    "local goals": ("local_losses", "pepita"),
    "unsupervised": ("oja", "bcm"),
    "no learning": (NO_LEARNING,),
}  # fmt: skip
"""Family -> its classes."""

EQUIVALENT: tuple[frozenset[str], ...] = (frozenset({"feedback_alignment", "direct_feedback_alignment"}),)
"""Classes that no recording of a network with one hidden layer can tell apart: one matrix brings the output's error to
the only hidden layer in both. They are merged where an accuracy is said to be merged, and in no other place."""


WITHOUT_HIDDEN = frozenset(
    {
        "backprop", "feedback_alignment", "direct_feedback_alignment", "direct_random_target_projection",
        "sign_symmetry", "kolen_pollack", "information_alignment", "difference_target_propagation",
        "predictive_coding", "local_losses", "oja", "bcm",
    }
)  # fmt: skip
"""Classes that are all the delta rule where there is a readout alone."""


def family(label: str) -> str:
    """The family of a class; "added" for a rule that a user added."""
    return next((name for name, members in FAMILIES.items() if label in members), "added")


def equivalence_class(label: str, hidden_layers: int) -> tuple[str, ...]:
    """The classes that cannot be told from `label` in a network with so many hidden layers, itself among them."""
    if hidden_layers == 0 and label in WITHOUT_HIDDEN:
        return tuple(sorted(WITHOUT_HIDDEN))
    if hidden_layers == 1:
        for members in EQUIVALENT:
            if label in members:
                return tuple(sorted(members))
    return (label,)


def merged(label: str, hidden_layers: int = 1) -> str:
    """The name of the declared equivalence that a class belongs to in such a network; its own name if none."""
    return "|".join(equivalence_class(label, hidden_layers))
