"""Knock-outs and knock-ins: a rule without a term, with its sign flipped, or with one more, on the same episodes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.evaluation import Conditions, interval
from metarule.inner import Runs
from metarule.inspection.subject import Subject
from metarule.learner import Learner, owner_of
from metarule.params import Param
from metarule.rng import seed_number
from metarule.rules.base import Rule
from metarule.rules.linear import LinearRule
from metarule.tasks import Task
from metarule.terms import TERMS, Term

STRENGTHS = (-0.3, -0.03, 0.03, 0.3)
"""Coefficients that a knock-in tries, normalised, in units of the rule's largest."""

LARGEST = 24
"""Terms knocked out at most, the largest ones."""

WHOLE = ""
"""The name of the rule as it is."""

FLIPPED = "-"
"""Before a parameter: the rule with its sign turned, the control that tells a needed term from needed noise."""


@dataclass(frozen=True)
class Listed(LinearRule):
    """A linear rule as the plain list of its terms, each with a coefficient that can be set."""

    kind = "listed"
    source = "metarule"

    terms: tuple[Term, ...]
    normalise: bool = False

    @property
    def weighted(self) -> tuple[Term, ...]:
        return self.terms

    @property
    def params(self) -> tuple[Param, ...]:
        return tuple(Param(term.name) for term in self.terms)


class Opened(NamedTuple):
    """A subject's learner with the terms of its linear rules as its only parameters, and their values (1 P)."""

    learner: Learner
    theta: Float[Tensor, "1 P"]


class Without(NamedTuple):
    """Work: the whole rule and the rule without each of its terms, or with its sign flipped, on held-out episodes."""

    opened: Opened
    task: Task
    conditions: Conditions
    episodes: int


class With(NamedTuple):
    """Work: the rule with one more term, its strength the best of some on search episodes, on held-out ones.

    `param` is the term's parameter and `strengths` are normalised, `values` the same in units of theta.
    """

    opened: Opened
    param: str
    strengths: tuple[float, ...]
    values: tuple[float, ...]
    task: Task
    conditions: Conditions
    episodes: int
    searched: int


class Added(NamedTuple):
    """What became of a knock-in: the strength that was chosen and its scores, per metric and held-out episode."""

    param: str
    strength: float
    scores: Mapping[str, Sequence[float]]


def opened(subject: Subject, key: str | None = None, extra: Term | None = None) -> Opened:
    """The subject with every linear rule a list of terms with its own coefficients; `extra` joins rule `key` with 0.

    Raises ValueError where no rule is a list of terms.
    """
    own = subject.learner
    held = dict(own.fixed) | dict(zip((param.name for param in own.params), subject.theta[0].tolist(), strict=True))
    columns = own.columns(subject.theta)
    rules: dict[str, Rule] = dict(own.rules)
    values: dict[str, float] = {}
    for name, rule in _lists(own).items():
        numbers = rule.coefficients(columns.rules[name])[0].tolist() if rule.params else [1.0] * len(rule.weighted)
        added = (extra,) if extra is not None and name == key else ()
        listed = Listed((*rule.weighted, *added), rule.normalise and bool(rule.params))
        rules[name] = listed
        values |= {
            f"{owner_of('rule', name)}.{term.name}": number
            for term, number in zip(listed.terms, [*numbers, *(0.0 for _ in added)], strict=True)
        }
    if not values:
        kinds = ", ".join(sorted({rule.kind for rule in own.rules.values()}))
        raise ValueError(f"a rule of kind {kinds} is no list of terms that could be left out")
    whole = Learner(own.network, own.credit, rules, own.synapses, own.schedule)
    names = {param.name for param in whole.all_params} - values.keys()
    learner = replace(whole, fixed={name: held[name] for name in names if name in held})
    return Opened(learner, torch.tensor([[values[param.name] for param in learner.params]], dtype=torch.float64))


def _lists(learner: Learner) -> dict[str, LinearRule]:
    """The rules that are no more than a weighted list of terms, by key."""
    return {
        key: rule
        for key, rule in learner.rules.items()
        if isinstance(rule, LinearRule) and type(rule).delta is LinearRule.delta
    }


def knock_outs(subject: Subject, episodes: int) -> Without:
    """The work of all knock-outs; raises ValueError where the rule has no terms."""
    return Without(opened(subject), subject.task, subject.conditions, episodes)


def knock_ins(subject: Subject, episodes: int, searched: int) -> list[With]:
    """The work of every knock-in: a term of the vocabulary that the credit assignment gives and the rule lacks."""
    work = []
    sizes = normalised(opened(subject))
    for key, rule in _lists(subject.learner).items():
        served = [p for p in subject.learner.plastic if subject.learner.rule_key(p) == key]
        if not any(projection in subject.network.projections for projection in served):
            continue
        given = frozenset.intersection(*(subject.learner.credit.gives_at(subject.network, p) for p in served))
        largest = max(abs(size) for name, size in sizes.items() if name.rpartition(".")[0] == owner_of("rule", key))
        known = {term.parts for term in rule.weighted} | {term.name for term in rule.weighted}
        for term in TERMS.values():
            if term.reads <= given and term.parts not in known and term.name not in known and largest > 0:
                whole = opened(subject, key, term)
                strengths = tuple(strength * largest for strength in STRENGTHS)
                unit = _unit(whole.learner, key, term)
                param = f"{owner_of('rule', key)}.{term.name}"
                values = tuple(strength * unit for strength in strengths)
                work.append(With(whole, param, strengths, values, subject.task, subject.conditions, episodes, searched))
    return work


def normalised(opened: Opened) -> dict[str, float]:
    """Every term's coefficient, normalised, by its parameter."""
    learner = opened.learner
    units = {
        f"{owner_of('rule', key)}.{term.name}": _unit(learner, key, term)
        for key, rule in learner.rules.items()
        if isinstance(rule, Listed)
        for term in rule.terms
    }
    return {
        param.name: value / units[param.name]
        for param, value in zip(learner.params, opened.theta[0].tolist(), strict=True)
    }


def _unit(learner: Learner, key: str, term: Term) -> float:
    """Theta per normalised coefficient, at the geometric-mean shape of the projections that the rule serves."""
    rule = learner.rules[key]
    if isinstance(rule, Listed) and rule.normalise:
        return 1.0
    shapes = [learner.network.shape(p) for p in learner.plastic if learner.rule_key(p) == key] or [(1, 1)]
    return term.scale(*(statistics.geometric_mean(sizes) for sizes in zip(*shapes, strict=True)))


def measured_without(work: Without) -> dict[str, dict[str, list[float]]]:
    """Parameter of the term that was left out, or `FLIPPED` before it, or `WHOLE` -> metric -> score per episode."""
    learner, theta = work.opened
    sizes = normalised(work.opened)
    largest = sorted(sizes, key=lambda name: -abs(sizes[name]))[:LARGEST]
    place = {param.name: column for column, param in enumerate(learner.params)}
    made = {WHOLE: theta[0]}
    for prefix, factor in (("", 0.0), (FLIPPED, -1.0)):
        for name in largest:
            row = theta[0].clone()
            row[place[name]] *= factor
            made[prefix + name] = row
    rows = torch.stack(list(made.values()))
    scores = _scores(learner, rows, work.task.held_out(), work.conditions, work.episodes, "battery")
    return {name: {metric: found[row].tolist() for metric, found in scores.items()} for row, name in enumerate(made)}


def measured_with(work: With) -> Added:
    """The best strength on search episodes, and what it does on held-out ones."""
    learner, theta = work.opened
    (column,) = (column for column, param in enumerate(learner.params) if param.name == work.param)
    rows = theta.repeat(len(work.values), 1)
    rows[:, column] = torch.tensor(work.values, dtype=rows.dtype)
    metric = work.task.headline
    sign = 1.0 if work.task.metrics[metric] == "max" else -1.0
    tried = _scores(learner, rows, work.task, work.conditions, work.searched, "tuning")[metric].mean(1) * sign
    best = int(tried.argmax())
    scores = _scores(learner, rows[best : best + 1], work.task.held_out(), work.conditions, work.episodes, "battery")
    return Added(work.param, work.strengths[best], {name: found[0].tolist() for name, found in scores.items()})


def _scores(
    learner: Learner, rows: Float[Tensor, "C P"], task: Task, conditions: Conditions, episodes: int, label: str
) -> dict[str, Tensor]:
    # all rows are candidate 0: what a credit assignment draws is the same for each, and their differences are theirs
    runs = Runs((0,) * len(rows), tuple(range(episodes)), seed_number(0, "knock-outs", label))
    return conditions.outcome(learner, rows, task, runs).scores


def knocked(
    subject: Subject, without: Mapping[str, Mapping[str, Sequence[float]]], added: Iterable[Added]
) -> list[dict[str, Any]]:
    """Every knock-out, every sign flip and, best first, every knock-in as JSON values.

    `change` is the score minus that of the whole rule in the same episodes, with its 95 % interval. A term is
    `necessary` where the whole interval of its knock-out is on the worse side of 0.
    """
    changed = [
        _entry(
            subject, name.removeprefix(FLIPPED), "sign flip" if name.startswith(FLIPPED) else "knock-out", scores,
            without[WHOLE], None,
        )
        for name, scores in without.items()
        if name != WHOLE
    ]  # fmt: skip
    joined = [_entry(subject, each.param, "knock-in", each.scores, without[WHOLE], each.strength) for each in added]
    sign = 1.0 if subject.task.metrics[subject.task.headline] == "max" else -1.0
    return changed + sorted(joined, key=lambda entry: -sign * entry["change"]["mean"])


def _entry(
    subject: Subject,
    param: str,
    kind: str,
    scores: Mapping[str, Sequence[float]],
    whole: Mapping[str, Sequence[float]],
    strength: float | None,
) -> dict[str, Any]:
    metric = subject.task.headline
    sign = 1.0 if subject.task.metrics[metric] == "max" else -1.0
    values, before = scores[metric], whole[metric]
    mean, low, high = interval(values)
    pairs = [0.0 if a == b else a - b for a, b in zip(values, before, strict=True)]  # inf - inf is no change
    change = dict(zip(("mean", "low", "high"), interval(pairs), strict=True))
    worse, better = change["low"] > 0, change["high"] < 0
    if sign > 0:
        worse, better = better, worse
    if all(map(math.isfinite, before)) and not math.isfinite(mean):  # diverged, with no interval to show for it
        worse = True
    name = param.removeprefix("rule.") if len(subject.learner.rules) > 1 else param.rpartition(".")[2]
    figures = f"{metric} {said(mean, low, high)}, a change of {said(*change.values(), sign=True)}"
    if kind == "knock-out":
        verdict = "necessary" if worse else "better without it" if better else "not shown to be necessary"
        sentence = f"without {name}: {figures}: {verdict}"
    else:
        verdict = "harms" if worse else "would help" if better else "no gain is shown"
        how = "with its sign flipped" if strength is None else f"at {strength:+.3g}"
        sentence = f"with {name} {how}: {figures}: {verdict}"
    return {
        "term": name, "kind": kind, "metric": metric, "mean": mean, "low": low, "high": high, "change": change,
        "necessary": kind == "knock-out" and worse, "strength": strength, "sentence": sentence,
    }  # fmt: skip


def said(mean: float, low: float, high: float, sign: bool = False) -> str:
    """A mean with its interval, in words."""
    if not math.isfinite(mean):
        return "without a number (it diverged)"
    form = "+.3f" if sign else ".3f"
    return f"{mean:{form}} [{low:{form}} to {high:{form}}]"
