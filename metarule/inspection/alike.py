"""Which of several runs' rules act the same on a task, whatever their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from metarule.comparing import learner_of
from metarule.evaluation import Conditions
from metarule.inner import Reference
from metarule.inspection.classes import Acting, classes
from metarule.inspection.references import references, rules_of
from metarule.inspection.subject import Subject
from metarule.learner import Learner
from metarule.spec import Search


class Contestant(NamedTuple):
    """A rule of the comparison: what the run is called, its learner on the task's network, its numbers."""

    name: str
    learner: Learner
    theta: Float[Tensor, "1 P"]

    @property
    def numbers(self) -> dict[str, float]:
        """The parameters of its credit assignment and synapse models: with others, the same change acts otherwise."""
        named = dict(zip((param.name for param in self.learner.params), self.theta[0].tolist(), strict=True))
        return {name: value for name, value in {**self.learner.fixed, **named}.items() if not name.startswith("rule.")}


def alike(folders: Sequence[str], names: Sequence[str], search: Search) -> list[dict[str, Any]]:
    """{members, sentence, kind} per group of runs whose rules induce the same changes on a search's task.

    Only runs with the same credit assignment and synapse models, and the same numbers of theirs, can act the same; they
    are looked at on what the first of them sees.
    """
    groups: list[list[Contestant]] = []
    for folder, name in zip(folders, names, strict=True):
        learner, theta = learner_of(folder, search)
        assert theta is not None  # a row of the zoo has none, a run has
        one = Contestant(name, learner, theta)
        home = next((group for group in groups if same_around(one, group[0])), None)
        if home is None:
            groups.append([one])
        else:
            home.append(one)
    found = []
    for group in groups:
        if len(group) > 1:
            seen = references(_subject(group[0], search))
            found += classes({one.name: Acting(rules_of(one.learner, one.theta[0])) for one in group}, seen)
    return found


def same_around(one: Contestant, other: Contestant) -> bool:
    """Whether all but the rules is the same: what carries the error, what makes a weight of a change."""
    a, b = one.learner, other.learner
    return (a.credit, a.synapses, a.schedule, one.numbers) == (b.credit, b.synapses, b.schedule, other.numbers)


def _subject(one: Contestant, search: Search) -> Subject:
    conditions = Conditions(Reference(), search.steps, search.inner.batch)
    return Subject(one.name, one.learner, one.theta, search.task, conditions, budget=0)
