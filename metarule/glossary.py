"""What the words of the vocabulary mean: signals in a sentence, terms by the name that the literature gives them."""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """A factor in words; `delivered` by the credit assignment, not by what passes the synapse anyway."""

    text: str
    delivered: bool = False


class Known(NamedTuple):
    """What the literature calls a term, `alone` where it calls it otherwise as a whole rule, and who wrote it down."""

    name: str
    source: str
    alone: str | None = None


MEANINGS: dict[str, Meaning] = {
    "post": Meaning("activity of the unit behind the synapse"),
    "post_ref": Meaning("the same unit's activity in a reference condition", delivered=True),
    "error": Meaning("the direction in which the post unit should move", delivered=True),
    "feedback": Meaning("top-down drive that arrives at the post unit", delivered=True),
    "gain": Meaning("slope of the post unit's nonlinearity"),
    "post_change": Meaning("what the post unit differs by from its reference", delivered=True),
    "pre": Meaning("activity of the unit before the synapse"),
    "pre_ref": Meaning("the same unit's activity in a reference condition", delivered=True),
    "pre_error": Meaning("the direction in which the pre unit should move", delivered=True),
    "reconstruction": Meaning("Wᵀpost, what the whole layer would reconstruct of the pre unit"),
    "reward": Meaning("one number for all synapses", delivered=True),
    "total_post": Meaning("the sum of the layer's activity"),
    "agreement": Meaning("post · W pre_error, a sum over the layer"),
    "match": Meaning("error · W pre, a sum over the layer"),
    "weight": Meaning("the synapse's own weight"),
    "weight_noise": Meaning("the perturbation that was put on the synapse", delivered=True),
    "eligibility": Meaning("what the synapse remembers of its own activity", delivered=True),
}
"""Factor of `terms.FACTORS` -> what it stands for."""

KNOWN: dict[str, Known] = {
    "error_pre": Known(
        "pseudo-gradient", "Widrow and Hoff 1960; Shervani-Tabar and Rosenbaum 2023", alone="delta rule"
    ),
    "error_pre_error": Known("eHebb", "Shervani-Tabar and Rosenbaum 2023"),
    "weight_decay": Known("weight decay", "Hinton 1987"),
    "subspace_oja": Known("subspace Oja", "Oja 1989; Williams 1985"),
    "oja": Known("Oja", "Oja 1982"),
    "post_pre": Known("Hebb", "Hebb 1949"),
    "feedback_pre": Known("feedback-driven Hebb", "Lillicrap et al. 2020"),
    "gain_post_change_pre": Known("difference rule (NGRAD)", "Lillicrap et al. 2020"),
    "reward_post_change_pre": Known("node perturbation", "Williams 1992; Werfel, Xie and Seung 2005"),
    "contrastive": Known("contrastive Hebbian", "Ackley, Hinton and Sejnowski 1985; Movellan 1991"),
    "reward_contrastive": Known("scaled contrastive Hebbian", "Xie and Seung 2003; Scellier and Bengio 2017"),
    "reward_weight_noise": Known("weight perturbation", "Jabri and Flower 1992; Cauwenberghs 1993"),
    "post_change_pre": Known("activity difference", "Payeur et al. 2021; Dellaferrera and Kreiman 2022"),
    "reward_post_pre": Known("reward-modulated Hebb", "Gerstner et al. 2018; Hinton 2022"),
    "reward_error_pre": Known("reward-gated delta rule", "Roelfsema and van Ooyen 2005"),
    "reward_gain_post_change_pre": Known("REINFORCE", "Williams 1992"),
    "post_pre_ref": Known("pre-before-post potentiation", "Song, Miller and Abbott 2000"),
    "post_ref_pre": Known("post-before-pre change", "Song, Miller and Abbott 2000"),
    "post_weight": Known("postsynaptically gated decay", "Nessler et al. 2013"),
    "soft_hebb": Known("SoftHebb", "Moraitis et al. 2022"),
    "reward_stdp": Known("reward-modulated STDP", "Florian 2007; Izhikevich 2007"),
    "reward_eligibility": Known("three-factor rule", "Frémaux and Gerstner 2016; Gerstner et al. 2018"),
    "pre_weight": Known("presynaptically gated decay", "Rumelhart and Zipser 1985"),
}
"""Term of `terms.TERMS` -> its name and source; a term that nobody named is not here."""


def known(term: str) -> Known | None:
    """The literature's name of a term, "feedback.error_pre" of one of several rules included; None without one."""
    return KNOWN.get(term.rpartition(".")[2])
