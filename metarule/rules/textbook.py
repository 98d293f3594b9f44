"""Textbook rules: fixed lists of terms with unit coefficients; the step size is the synapse model's rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from metarule.rules.linear import LinearRule
from metarule.terms import TERMS, Term


class Textbook(LinearRule):
    """A rule without numbers of its own."""

    terms: ClassVar[tuple[str, ...]]

    @property
    def weighted(self) -> tuple[Term, ...]:
        return tuple(TERMS[name] for name in self.terms)


@dataclass(frozen=True)
class Delta(Textbook):
    """dW = error pre^T: with backpropagated errors, gradient descent."""

    kind = "delta"
    source = "Widrow and Hoff 1960; Rumelhart, Hinton and Williams 1986"
    terms = ("error_pre",)


@dataclass(frozen=True)
class Hebb(Textbook):
    """dW = post pre^T: grows without bound along the first principal component."""

    kind = "hebb"
    source = "Hebb 1949"
    terms = ("post_pre",)


@dataclass(frozen=True)
class Oja(Textbook):
    """dW = post pre^T - post^2 W, every unit alone: weights converge to +-PC1 with norm 1."""

    kind = "oja"
    source = "Oja 1982"
    terms = ("oja",)


@dataclass(frozen=True)
class SubspaceOja(Textbook):
    """dW = post (pre - W^T post)^T: rows converge to an orthonormal basis of the principal subspace; not local."""

    kind = "subspace_oja"
    source = "Oja 1989; Williams 1985"
    terms = ("subspace_oja",)


@dataclass(frozen=True)
class Difference(Textbook):
    """dW = gain (post - post_ref) pre^T: activity moves towards a target that the credit assignment sets."""

    kind = "difference"
    source = "Lillicrap et al. 2020 (NGRAD)"
    terms = ("gain_post_change_pre",)


@dataclass(frozen=True)
class Contrastive(Textbook):
    """dW = post pre^T - post_ref pre_ref^T: Hebbian in one phase, anti-Hebbian in the other."""

    kind = "contrastive"
    source = "Ackley, Hinton and Sejnowski 1985; Movellan 1991"
    terms = ("contrastive",)


@dataclass(frozen=True)
class NodePerturbation(Textbook):
    """dW = reward (post - post_ref) pre^T: noise that paid off is repeated."""

    kind = "node_perturbation"
    source = "Williams 1992; Werfel, Xie and Seung 2005"
    terms = ("reward_post_change_pre",)


@dataclass(frozen=True)
class WeightPerturbation(Textbook):
    """dW = reward weight_noise: the whole network's gain or loss, credited to each synapse's own noise."""

    kind = "weight_perturbation"
    source = "Jabri and Flower 1992; Cauwenberghs 1993"
    terms = ("reward_weight_noise",)


@dataclass(frozen=True)
class WeightDecay(Textbook):
    """dW = -W: forgetting."""

    kind = "weight_decay"
    source = "Hinton 1987"
    terms = ("weight_decay",)


@dataclass(frozen=True)
class ScaledContrastive(Textbook):
    """dW = reward (post pre^T - post_ref pre_ref^T): contrastive Hebbian learning at the size that credit knows."""

    kind = "scaled_contrastive"
    source = "Xie and Seung 2003; Scellier and Bengio 2017"
    terms = ("reward_contrastive",)


@dataclass(frozen=True)
class Reinforce(Textbook):
    """dW = reward gain (post - post_ref) pre^T: a noisy unit's deviation from its mean, times what followed."""

    kind = "reinforce"
    source = "Williams 1992"
    terms = ("reward_gain_post_change_pre",)


@dataclass(frozen=True)
class RewardedDelta(Textbook):
    """dW = reward error pre^T: a gate says which synapses took part, a global number says how it went."""

    kind = "rewarded_delta"
    source = "Roelfsema and van Ooyen 2005"
    terms = ("reward_error_pre",)


@dataclass(frozen=True)
class ModulatedHebb(Textbook):
    """dW = reward post pre^T: Hebbian or anti-Hebbian, as a scalar says."""

    kind = "modulated_hebb"
    source = "Gerstner et al. 2018; Hinton 2022"
    terms = ("reward_post_pre",)


@dataclass(frozen=True)
class ActivityDifference(Textbook):
    """dW = (post - post_ref) pre^T: from what was, or was expected, to what should be, whatever the unit's slope."""

    kind = "activity_difference"
    source = "Payeur et al. 2021; Dellaferrera and Kreiman 2022"
    terms = ("post_change_pre",)


@dataclass(frozen=True)
class RewardModulatedStdp(Textbook):
    """dW = reward (post pre_ref^T - post_ref pre^T), *_ref traces of spikes: pre before post, less post before pre."""

    kind = "reward_modulated_stdp"
    source = "Florian 2007; Izhikevich 2007"
    terms = ("reward_stdp",)


@dataclass(frozen=True)
class SoftHebb(Textbook):
    """dW = post (pre - post_ref W), post_ref the drive: rows converge to the directions of clusters, norm 1."""

    kind = "soft_hebb"
    source = "Moraitis et al. 2022"
    terms = ("soft_hebb",)


@dataclass(frozen=True)
class DifferentialHebb(Textbook):
    """dW = reward (post - post_ref) pre^T with post_ref a moment ago: pre times the rate at which post is changing."""

    kind = "differential_hebb"
    source = "Xie and Seung 2000; Bengio et al. 2017"
    terms = ("reward_post_change_pre",)
