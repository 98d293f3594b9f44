"""What the microcircuit kinds of credit share: interneurons predict the layer above, and cancel what it sends down.

Above every hidden layer k stands the next one, k+1, and beside it interneurons I, as many as layer k+1 has units. Into
the apical dendrite of layer k come W_down of layer k+1 and W_PI of its interneurons, into the interneurons W_IP.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metarule.collect import unknown
from metarule.credit.base import CreditAssignment, Weights
from metarule.credit.feedback import feedback_name, feedback_projection, output_error, without_bias
from metarule.credit.targets import chain
from metarule.network import Activity, Network, Projection
from metarule.signals import Batch, Signals

FEEDBACK = ("random", "transposed")
"""How W_down is drawn: at random, or as the transpose of the forward weights it runs against; it stays as it was."""


class Microcircuit(CreditAssignment):
    """post = phi(u) of a taught soma, post_ref = phi(v_hat), what its basal dendrite predicts.

    W_IP and W_PI need rules for their roles "interneuron" (`difference`: phi(u_I) against phi(v_hat_I)) and "lateral"
    (`delta`: error = -v_A), and learn while nobody teaches. `self_predicting` starts them where v_A = 0 without a
    teacher. At a sigmoid output 0 and 1 are taught as the rates `low` and `high`.
    Raises ValueError where the network is no chain or the task gives no target.
    """

    gives = frozenset({"pre", "post", "post_ref", "gain"})
    plastic_roles = frozenset({"interneuron", "lateral"})
    requires = {"output": ("sigmoid", "linear")}  # noqa: RUF012
    feedback: str
    self_predicting: bool
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.feedback not in FEEDBACK:
            raise ValueError(unknown("credit.feedback", self.feedback, FEEDBACK))
        if not 0 < self.low < self.high < 1:
            raise ValueError(f"credit.low = {self.low} and credit.high = {self.high} must be rates, 0 < low < high < 1")

    def projections(self, network):
        return tuple(
            own
            for projection in chain(network)[1:]
            for own in (feedback_projection(projection), to_interneurons(projection), from_interneurons(projection))
        )

    def gives_at(self, network: Network, projection: Projection):
        own = {"lateral": frozenset({"pre", "post", "error"}), "feedback": frozenset[str]()}
        return own.get(projection.role, self.gives)

    def tied(self, network, weights):
        tied = dict(weights)
        for projection in chain(network)[1:]:
            down = feedback_name(projection)
            if self.feedback == "transposed":
                tied[down] = without_bias(projection, weights[projection.name]).mT.contiguous()
            if self.self_predicting:
                scale = self.prediction(network, projection)
                tied[to_interneurons(projection).name] = scale * weights[projection.name]
                tied[from_interneurons(projection).name] = -tied[down]
        return tied

    def prediction(self, network: Network, projection: Projection) -> float:
        """W_IP / W in the self-predicting state."""
        return 1.0

    def target_drive(self, network: Network, batch: Batch, activity: Activity) -> Tensor:
        """The output drive that is taught (R B I)."""
        y = activity.rates[network.output_name] + output_error(network, activity, batch)
        return y if network.output == "linear" else torch.logit(self.low + (self.high - self.low) * y)


def apical(weights: Weights, projection: Projection, upper: Tensor, interneurons: Tensor) -> Tensor:
    """v_A of a projection's source (R B I): W_down phi(u above) + W_PI phi(u_I)."""
    excited = torch.bmm(upper, weights[feedback_name(projection)].mT)
    return torch.baddbmm(excited, interneurons, weights[from_interneurons(projection).name].mT)


def lateral_signals(
    network: Network,
    weights: Weights,
    projection: Projection,
    rates: Mapping[str, Tensor],
    interneurons: Tensor,
    predicted: Tensor,
    gain: Tensor,
    wanted: Mapping[str, frozenset[str]],
) -> dict[str, Signals]:
    """Signals at W_IP and W_PI of the interneurons beside a projection's source, from rates without a teacher.

    `predicted` is phi(v_hat_I), `gain` undoes how weakly the layer above nudges.
    """
    into, back = to_interneurons(projection), from_interneurons(projection)
    signals = {
        into.name: Signals(
            weights[into.name],
            pre=network.pre(into, rates),
            post=interneurons,
            post_ref=predicted,
            gain=gain.expand_as(interneurons),
        ),
        back.name: Signals(
            weights[back.name],
            pre=interneurons,
            post=rates[projection.source],
            error=-apical(weights, projection, rates[projection.target], interneurons),
        ),
    }
    return {name: seen for name, seen in signals.items() if name in wanted}


def to_interneurons(projection: Projection) -> Projection:
    """W_IP: from the source of a forward projection to the interneurons that stand for its target."""
    source = projection.source
    return projection._replace(name=f"{source}->{source}.interneurons", role="interneuron")


def from_interneurons(projection: Projection) -> Projection:
    """W_PI: from those interneurons back to the source of a forward projection."""
    source, target = projection.source, projection.target
    return Projection(f"{source}.interneurons->{source}", target, source, "lateral")
