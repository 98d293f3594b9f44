"""Why does the three-term rule learn? The angle between the errors it hears and those of backprop, layer by layer.

Feedback alignment's errors come through fixed random weights B. A rule that moves the forward weights W towards the
transpose of B makes these errors point where backprop's point. Measured after one online pass of the network of
`searches/feedback_alignment_terms.toml`, on the query images: the angle alpha_l between the two errors at hidden layer
l, mean over images, and E = |W W^T - I|_F / sqrt(I), how far rows are from orthonormal, mean over hidden layers. The
coefficients are those of the zoo's row `three_term`, and of its terms taken alone or in pairs.

    python analysis/alignment.py
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch

from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.evaluation import interval
from metarule.inner import Reference, Runs
from metarule.inspection.angles import heard
from metarule.inspection.orthonormality import orthonormality
from metarule.learner import ANY, Learner
from metarule.reading import find, read
from metarule.rng import noise_for, seed_number
from metarule.rules.terms import Terms
from metarule.signals import Batch
from metarule.spec import Search
from metarule.synapses.sgd import Sgd
from metarule.tasks.few_shot import FewShotEpisode
from metarule.zoo import ZOO

SEARCH = "feedback_alignment_terms"

RULES = {
    "feedback alignment": ("error_pre",),
    "feedback alignment + Oja": ("error_pre", "subspace_oja"),
    "feedback alignment + eHebb": ("error_pre", "error_pre_error"),
    "all three terms": ("error_pre", "error_pre_error", "subspace_oja"),
}
"""Subsets of the published three terms."""


class Measured(NamedTuple):
    """One number per episode; `angles` by hidden layer, the first one leading."""

    angles: list[list[float]]
    orthonormality: list[float]
    accuracy: list[float]


def learner_of(search: Search, terms: tuple[str, ...]) -> Learner:
    """The published rule, reduced to some of its terms, on the search's network."""
    values = {f"rule.forward.{term}": ZOO["three_term"].values[f"rule.forward.{term}"] for term in terms}
    rule = Terms(terms, normalise=False)
    network = search.network.build(search.task)
    return Learner(network, FeedbackAlignment(), {"forward": rule}, {ANY: Sgd()}, fixed=values)


def measured(search: Search, terms: tuple[str, ...], episodes: int, trained: bool = True) -> Measured:
    """Angles, orthonormality and accuracy after the whole pass of fresh episodes, or before its first step."""
    learner = learner_of(search, terms)
    task = search.task.held_out()
    runs = Runs((0,), tuple(range(episodes)), seed_number("analysis", "alignment"))
    steps = range(search.steps if trained else 1)
    outcome = Reference(1, torch.float32).evaluate(
        learner, torch.zeros(1, 0), task, runs, steps, search.inner.batch, frozenset({"loss", "carry"})
    )
    assert outcome.carry is not None
    noise = noise_for([(runs.seed, "episode", episode) for episode in runs.episodes], torch.float32)
    episode = task.sample(noise.at("data"), search.inner.batch)
    assert isinstance(episode, FewShotEpisode)
    queries = Batch(episode.images[episode.score_rows], episode.one_hot[episode.score_labels])
    with torch.no_grad():
        own, theirs = (heard(learner, each, outcome.carry, queries) for each in (learner.credit, Backprop()))
    cosines = [torch.cosine_similarity(one, other, dim=-1) for one, other in zip(own, theirs, strict=True)]
    angles = [torch.rad2deg(torch.acos(each.clamp(-1, 1))).mean(1).tolist() for each in cosines]
    away = torch.stack([orthonormality(outcome.carry["weights"][p.name]) for p in learner.network.projections[:-1]])
    return Measured(angles, away.mean(0).tolist(), outcome.scores["accuracy"][0].tolist())


def shown(values: list[float], form: str) -> str:
    mean, low, high = interval(values)
    return f"{mean:{form}} [{low:{form}} to {high:{form}}]"


def main(episodes: int = 20) -> None:
    torch.set_num_threads(1)
    search, _ = read(find(SEARCH))
    print(f"{SEARCH}, {search.steps} steps, mean [95 % interval] of {episodes} episodes; angles in degrees:")
    lines = {"before learning": measured(search, RULES["feedback alignment"], episodes, trained=False)}
    for name, found in [*lines.items(), *((name, measured(search, terms, episodes)) for name, terms in RULES.items())]:
        angles = ", ".join(f"a{layer} {shown(each, '.1f')}" for layer, each in enumerate(found.angles, 1))
        print(f"  {name}: {angles}; E {shown(found.orthonormality, '.3f')}; accuracy {shown(found.accuracy, '.3f')}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
