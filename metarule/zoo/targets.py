"""Rows whose units are shown a target: what they should have done, not how wrong they were."""

from __future__ import annotations

from metarule.credit import CreditAssignment
from metarule.credit.auxiliary_output_target_propagation import AuxiliaryOutputTargetPropagation
from metarule.credit.difference_reconstruction_loss import DifferenceReconstructionLoss
from metarule.credit.difference_target_propagation import DifferenceTargetPropagation
from metarule.credit.direct_target_propagation import DirectTargetPropagation
from metarule.credit.gauss_newton_targets import GaussNewtonTargets
from metarule.credit.local_difference_reconstruction import LocalDifferenceReconstruction
from metarule.credit.simplified_difference_target_propagation import SimplifiedDifferenceTargetPropagation
from metarule.credit.target_propagation import TargetPropagation
from metarule.rules import Rule
from metarule.rules.textbook import Contrastive, Difference
from metarule.synapses.adam import Adam
from metarule.zoo.base import Algorithm


def _learned(
    source: str,
    summary: str,
    credit: CreditAssignment,
    rule: Rule,
    rate: float = 2e-3,
    inverse_rate: float = 2e-3,
    step: float | None = None,
    damping: float = 0.0,
) -> Algorithm:
    """A row whose feedback learns by `rule` beside the forward weights, Adam on both; weight decay damps inverses."""
    values = {"synapse.forward.rate": rate, "synapse.inverse.rate": inverse_rate}
    return Algorithm(
        source,
        summary,
        credit,
        {"forward": Difference(), "inverse": rule},
        {"forward": Adam(), "inverse": Adam(weight_decay=damping)},
        values if step is None else values | {"credit.step": step},
        free=("synapse.forward.rate",),
    )


TARGETS: dict[str, Algorithm] = {
    "target_propagation": _learned(
        "LeCun 1986; Bengio 2014",
        "targets sent down through learned inverses",
        TargetPropagation(),
        Difference(),
        rate=5e-4,
        inverse_rate=1e-2,
        step=1.0,
    ),
    "difference_target_propagation": _learned(
        "Lee et al. 2015",
        "the same, the error of the inverse subtracted",
        DifferenceTargetPropagation(),
        Difference(),
    ),
    "difference_target_propagation_lee": _learned(
        "Lee et al. 2015",
        "the original: a gradient sets the target below the output",
        DifferenceTargetPropagation(penultimate="gradient"),
        Difference(),
    ),
    "simplified_difference_target_propagation": _learned(
        "Bartunov et al. 2018",
        "the label is the target of the output: no gradient anywhere",
        SimplifiedDifferenceTargetPropagation(),
        Difference(),
    ),
    "auxiliary_output_target_propagation": _learned(
        "Bartunov et al. 2018",
        "the same, with random features beside the output",
        AuxiliaryOutputTargetPropagation(),
        Difference(),
    ),
    "difference_reconstruction_loss": _learned(
        "Meulemans et al. 2020",
        "inverses of the whole way to the output and back",
        DifferenceReconstructionLoss(),
        Contrastive(),
        inverse_rate=1e-2,
        damping=0.1,
    ),
    "direct_target_propagation_linear": _learned(
        "Meulemans et al. 2020",
        "a linear inverse from the output to every layer",
        DirectTargetPropagation(),
        Difference(),
        damping=0.1,
    ),
    "direct_target_propagation_hidden": _learned(
        "Meulemans et al. 2020",
        "the same through random features that layers share",
        DirectTargetPropagation(features=256),
        Difference(),
        damping=0.1,
    ),
    "local_difference_reconstruction": _learned(
        "Ernoult et al. 2022",
        "feedback that learns the transpose of the Jacobian",
        LocalDifferenceReconstruction(),
        Contrastive(),
        inverse_rate=1e-2,
        step=0.7,
    ),
    "gauss_newton_targets": Algorithm(
        "Meulemans et al. 2020",
        "exact pseudo-inverses: what target propagation aims at",
        GaussNewtonTargets(),
        {"forward": Difference()},
        {"forward": Adam()},
        {"synapse.forward.rate": 2e-3},
        free=("synapse.forward.rate",),
    ),
}
"""Every unit hears a target; rows differ in how one is made of the target above, and how feedback learns to make it."""
