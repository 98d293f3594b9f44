"""The verdict: three witnesses become one answer, and what they disagree about is said."""

from __future__ import annotations

import json

import pytest

from metarule.identification.reference import EQUIVALENT, FAMILIES, REFERENCE, equivalence_class, family, merged
from metarule.identification.verdict import GAP, Discriminative, fused, label_of, summary


def trees(*names, novelty=0.5, inside=None):
    """Trees that hold classes probable in this order, all of them in the prediction set."""
    chances = {name: 2.0**-k for k, name in enumerate(names, 1)}
    return Discriminative(chances, names if inside is None else inside, novelty)


def answer(discriminative, replayed=None, layers=2, spoken=None):
    found = fused(discriminative, replayed or {}, layers, spoken)
    return found.kind, found.labels


def test_trees_and_replay_that_agree_identify():
    assert answer(trees("backprop"), {"backprop": "explains", "adam": "excluded"}) == ("identified", ("backprop",))


def test_trees_alone_identify_what_cannot_be_replayed():
    assert answer(trees("node_perturbation"), {"backprop": "excluded"}) == ("identified", ("node_perturbation",))
    both = trees("node_perturbation", "weight_perturbation")
    assert answer(both, {"backprop": "excluded"}) == ("ambiguous", ("node_perturbation", "weight_perturbation"))


def test_replay_decides_within_the_prediction_set():
    several = trees("backprop", "momentum", "adam")
    says = {"momentum": "explains", "backprop": "excluded", "adam": "excluded"}
    assert answer(several, says) == ("identified", ("momentum",))


def test_trees_decide_between_rules_that_replay_leaves():
    says = {"backprop": "explains", "sign_symmetry": "explains"}
    assert answer(trees("backprop"), says) == ("identified", ("backprop",))
    kind, labels = answer(trees("backprop", "sign_symmetry"), says)
    assert (kind, labels) == ("ambiguous", ("backprop", "sign_symmetry"))


def test_disagreement_is_ambiguity():
    kind, labels = answer(trees("adam"), {"momentum": "explains", "adam": "open"})
    assert kind == "ambiguous"
    assert {*labels} == {"adam", "momentum"}
    kind, labels = answer(trees("adam", "kolen_pollack"), {"adam": "excluded"})
    assert (kind, labels) == ("ambiguous", ("kolen_pollack",))


def test_replay_answers_alone_where_the_trees_abstain():
    assert answer(trees("adam", novelty=0.01), {"momentum": "explains"}) == ("identified", ("momentum",))
    # but not where it leaves several
    says = {"momentum": "explains", "backprop": "explains"}
    assert answer(trees("adam", novelty=0.01), says)[0] == "ambiguous"


def test_what_the_trees_take_it_for_and_replay_excludes_is_unknown():
    assert answer(trees("adam"), {"adam": "excluded"}) == ("unknown", ())


def test_what_is_novel_and_not_replayed_is_unknown():
    found = fused(trees("pepita", novelty=0.01), {"backprop": "open"}, 1)
    assert (found.kind, found.labels, label_of(found)) == ("unknown", (), ("unknown", None))


def test_rules_declared_the_same_are_one_answer_with_one_hidden_layer_and_two_with_more():
    pair = trees("feedback_alignment", "direct_feedback_alignment")
    says = dict.fromkeys(("feedback_alignment", "direct_feedback_alignment"), "explains")
    assert answer(pair, says, 1) == ("identified", ("feedback_alignment",))
    assert answer(pair, {}, 1) == ("identified", ("feedback_alignment",))
    assert answer(pair, says, 2)[0] == "ambiguous"


def test_trees_that_know_nothing_like_it_exclude_nothing():
    says = {"backprop": "explains", "feedback_alignment": "explains"}
    assert answer(trees("feedback_alignment", novelty=0.01), says)[0] == "ambiguous"


def test_without_trees_replay_answers_or_nobody():
    assert answer(None, {"oja": "explains", "backprop": "open"}) == ("identified", ("oja",))
    assert answer(None, {"oja": "explains", "backprop": "explains"})[0] == "ambiguous"
    assert answer(None, {"backprop": "open"}) == ("insufficient", ())


def test_an_exact_equation_has_its_say():
    says = {"backprop": "explains"}
    assert answer(trees("backprop"), says, spoken={"backprop": "supports"})[0] == "identified"
    assert answer(trees("backprop"), says, spoken={"backprop": "contradicts"}) == ("ambiguous", ("backprop",))
    several = trees("oja", "bcm")
    assert answer(several, spoken={"oja": "contradicts"}) == ("identified", ("bcm",))
    assert answer(several, spoken={"oja": "contradicts", "bcm": "contradicts"}) == ("ambiguous", ("oja", "bcm"))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    "case", [(trees("backprop"), {}), (trees("adam"), {"adam": "excluded"}), (trees("bcm", "oja"), {})]
)
def test_no_sentence_without_probability_domain_and_the_gap(case, layers):
    found = fused(case[0], case[1], layers)
    text = summary(found, case[0], layers, ["width"])
    assert text.endswith(GAP)
    assert "novelty p = 0.5" in text
    if found.labels:
        assert "probability 0.50" in text
        assert "outside the bank's range in width" in text
        assert "inside the bank's range, noise unknown" in summary(found, case[0], layers, [], ["noise"])
        assert "inside the bank's range" in summary(found, case[0], layers, [])
    json.dumps(label_of(found))


def test_every_class_has_a_family_and_equivalents_have_one_name():
    assert sorted(name for members in FAMILIES.values() for name in members) == sorted(REFERENCE)
    assert {family(name) for name in REFERENCE} == {*FAMILIES}
    assert family("mine") == "added"
    for members in EQUIVALENT:
        assert members <= {*REFERENCE}
        assert len({merged(name) for name in members}) == 1
    assert len({merged(name) for name in REFERENCE}) >= 12
    assert equivalence_class("feedback_alignment", 1) == ("direct_feedback_alignment", "feedback_alignment")
    assert equivalence_class("feedback_alignment", 2) == ("feedback_alignment",)
    assert {"backprop", "kolen_pollack"} <= {*equivalence_class("backprop", 0)}
    assert equivalence_class("momentum", 0) == ("momentum",)
