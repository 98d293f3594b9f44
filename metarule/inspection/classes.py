"""Rules with different numbers that act the same on a task: replicates, rules of the front, rows of the zoo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.comparing import found_by
from metarule.inspection.nearest import given_to, known_rules
from metarule.inspection.references import Moment, Rules, action, fits, rules_of
from metarule.inspection.siblings import siblings
from metarule.inspection.subject import Subject
from metarule.jobs import recorded, resumed
from metarule.learner import Learner
from metarule.records import RunError
from metarule.runs import RunFolder

SAME = 0.01
"""Share of the update by which two rules of one class may differ."""

REPLICATES = 8
"""Replicates that are compared, the first ones."""

FOUND, ZOO_PREFIX = "found", "zoo: "


class Acting(NamedTuple):
    """Rules by projection; `scaled` where their numbers say how far a step goes, else a rate does."""

    rules: Rules
    scaled: bool = True


def classes(members: Mapping[str, Acting], seen: Sequence[Moment]) -> list[dict[str, Any]]:
    """Groups of members whose changes on what was seen of the task are the same up to `SAME` of their size.

    Between one whose size is a rate's and another, the best positive factor is taken out. Members that read what is
    not there are left out, and so are groups of one and of the zoo's alone.
    """
    groups: list[list[tuple[str, Acting, Float[Tensor, "F"], float]]] = []
    for name, member in members.items():
        if not fits(seen, member.rules):
            continue
        own = action(seen, member.rules)
        if not bool(own.isfinite().all()) or not bool(own.any()):
            continue
        apart = [_apart(own, group[0][2], member.scaled and group[0][1].scaled) for group in groups]
        near = min(range(len(groups)), key=apart.__getitem__, default=None)
        if near is not None and apart[near] <= SAME:
            groups[near].append((name, member, own, apart[near]))
        else:
            groups.append([(name, member, own, 0.0)])
    named = [group for group in groups if any(not name.startswith(ZOO_PREFIX) for name, *_ in group)]
    return [_said(group) for group in named if len(group) > 1]


def members(subject: Subject, reduced: Float[Tensor, "P"] | None) -> dict[str, Acting]:
    """Who may act as the subject does: it with fewer terms, its replicates, its front, the rules of the zoo."""
    found = {FOUND: Acting(rules_of(subject.learner, subject.theta[0]))}
    if reduced is not None:
        found["reduced"] = Acting(rules_of(subject.learner, reduced))
    if subject.path is not None:
        found |= _replicates(subject) | _front(subject)
    return found | _zoo(subject, found[FOUND].rules)


def _replicates(subject: Subject) -> dict[str, Acting]:
    assert subject.path is not None
    found = {}
    for path in siblings(subject.path)[:REPLICATES]:
        if path == subject.path.resolve():
            continue
        folder = RunFolder(path)
        try:
            search, values = found_by(folder, resumed(folder, recorded(folder)))
        except RunError:  # it has no rule yet
            continue
        learner: Learner = search.learner
        theta = torch.tensor([values[param.name] for param in learner.params], dtype=torch.float64)
        found[path.name] = Acting(rules_of(learner, theta))
    return found


def _front(subject: Subject) -> dict[str, Acting]:
    """The other rules of the run's front that have the structure of the one found."""
    assert subject.path is not None
    file = subject.path / "result.json"
    result = RunFolder(subject.path).read_json("result.json") if file.exists() else {}
    found = {}
    for place, entry in enumerate(result.get("front", []), start=1):
        values = entry["theta"]
        params = subject.learner.params
        if entry["structure"] != result["structure"] or any(param.name not in values for param in params):
            continue
        numbers = [param.choices.index(values[param.name]) if param.choices else values[param.name] for param in params]
        theta = torch.tensor(numbers, dtype=torch.float64)
        if not torch.equal(theta, subject.theta[0]):
            found[f"front {place}"] = Acting(rules_of(subject.learner, theta))
    return found


def _zoo(subject: Subject, own: Rules) -> dict[str, Acting]:
    """Rules of the zoo in the place of the subject's first one, the others as they are."""
    learner = subject.learner
    key = next(iter(learner.rules))
    served = [p.name for p in learner.plastic if learner.rule_key(p) == key]
    found = {}
    for member in known_rules(given_to(subject, key)):
        if subject.row is None or subject.name not in member.rows:
            found[f"{ZOO_PREFIX}{member.name}"] = Acting(own | dict.fromkeys(served, member.probed), scaled=False)
    return found


def _apart(one: Float[Tensor, "F"], other: Float[Tensor, "F"], scaled: bool) -> float:
    """|one - other| in units of the larger, a positive factor taken out of the second where sizes are rates."""
    if not scaled:
        other = other * max(float(one @ other) / float(other @ other), 0.0)
    return float((one - other).norm() / torch.maximum(one.norm(), other.norm()))


def _said(group: list[tuple[str, Acting, Float[Tensor, "F"], float]]) -> dict[str, Any]:
    names = [name for name, *_ in group]
    apart = max(gap for *_, gap in group)
    rate = "" if all(member.scaled for _, member, *_ in group) else ", up to a rate"
    said = f"their changes differ by {100 * apart:.2g} % at most" if apart > 1e-6 else "their changes are equal"
    return {
        "members": names,
        "sentence": f"{', '.join(names)} act the same on this task{rate}: {said}.",
        "kind": "rules",
    }
