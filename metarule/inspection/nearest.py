"""The nearest known rules by what they do: changes on one fixed battery of probes, not coefficients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.fingerprint import probe_signals
from metarule.glossary import KNOWN
from metarule.inner import Map, in_turn
from metarule.inspection.subject import Subject
from metarule.learner import owner_of
from metarule.results import mean_shape
from metarule.rng import noise_for
from metarule.rules import Rule
from metarule.rules.base import Shape
from metarule.rules.terms import Terms
from metarule.signals import SIGNALS, Signals
from metarule.terms import TERMS, equation
from metarule.zoo import ZOO

PROBES, SIZE_OUT, SIZE_IN, STEPS = 64, 3, 4, 5
"""Single events at so many projections of this size, one after the other: a memory shows from the second on."""

APART = 0.3
"""Least size of a probe signal; beyond it they are normal."""

EQUIVALENT = 1e-6
"""Distance up to which two rules are one."""

PARTS = 6
"""Known rules at most that a rule is said to be the sum of."""


class Probed(NamedTuple):
    """A rule with its numbers, as a worker can be handed it."""

    rule: Rule
    theta: Float[Tensor, "P"]


class Member(NamedTuple):
    """A known rule: what it is called, where it stands in the zoo, who wrote it down, what it does on the battery."""

    name: str
    summary: str
    source: str
    rows: tuple[str, ...]
    probed: Probed
    answer: Float[Tensor, "F"]


def nearest(subject: Subject, map: Map = in_turn) -> list[dict[str, Any]]:
    """Known rules by their distance to each rule of the subject, the nearest first, its first rule's before others'.

    Distance sqrt(1 - cos^2) of all changes on the battery, the best positive factor taken out; 1 where they point
    apart. A sum of known terms that is the rule comes first of all. Only rules that read what the subject's credit
    assignment gives are there; rows of the zoo with one rule are one entry.
    """
    found = []
    for key, rule in subject.learner.rules.items():
        own = answer(Probed(rule, raw_at_probes(rule, _numbers(subject, key), mean_shape(subject, key))))
        if not bool(own.isfinite().all()) or not bool(own.any()):
            continue
        given = given_to(subject, key)
        entries = [_entry(key, each, own) for each in known_rules(given, map)]
        entries.sort(key=lambda entry: (entry["distance"], -entry["cosine"], entry["name"]))
        composed = sum_of_known(own, given, map)
        if composed is not None and not (len(composed["parts"]) == 1 and entries and entries[0]["equivalent"]):
            entries.insert(0, {**composed, "rule": key})
        found += entries
    return found


def known_as(found: Sequence[dict[str, Any]]) -> str | None:
    """What the literature calls the subject's rules, by the equivalent entries; None where it knows none of them."""
    keys = list(dict.fromkeys(entry["rule"] for entry in found))
    names = {entry["rule"]: entry["name"] for entry in reversed(found) if entry["equivalent"]}
    if not names:
        return None
    if len(keys) == 1:
        return names[keys[0]]
    return "; ".join(f"{key}: {names.get(key, 'no known rule')}" for key in keys)


def answer(probed: Probed) -> Float[Tensor, "F"]:
    """All changes of a rule on the battery, one after the other, its memory carried on."""
    noise = noise_for([("nearest", place) for place in range(PROBES)], torch.float64)
    rows = probed.theta[None].expand(PROBES, -1)
    changes, state = [], None
    with torch.no_grad():
        for step in range(STEPS):
            signals = probe_signals(probed.rule.reads, noise.at(step), (1, SIZE_OUT, SIZE_IN), {})
            signals = _away_from_zero(signals)
            state = probed.rule.init(rows, signals.weight) if state is None else state
            change, state = probed.rule.delta(rows, signals, state, noise.at("rule", step))
            changes.append(change.tensor(signals.weight).flatten())
    return torch.cat(changes)


def _away_from_zero(signals: Signals) -> Signals:
    """No probe is near 0, where a quotient of two signals would drown everything else."""
    given = {name: value for name in SIGNALS if (value := getattr(signals, name)) is not None}
    return Signals(**{name: value + APART * value.sign() for name, value in given.items()})


def raw_at_probes(rule: Rule, theta: Float[Tensor, "P"], shape: Shape) -> Float[Tensor, "P"]:
    """The numbers with which a rule has at the probes' size the raw coefficients that it has at `shape`."""
    here, there = rule.scales(shape), rule.scales((SIZE_OUT, SIZE_IN))
    factors = [
        1.0 if param.choices else one / other for param, one, other in zip(rule.params, here, there, strict=True)
    ]
    return theta * torch.tensor(factors, dtype=torch.float64)


def distance(one: Float[Tensor, "F"], other: Float[Tensor, "F"]) -> tuple[float, float]:
    """Distance and cosine of two answers, a positive factor apart."""
    first, second = one / one.norm(), other / other.norm()
    cosine = float(first @ second)
    return (float((first - cosine * second).norm()) if cosine > 0 else 1.0), max(-1.0, min(cosine, 1.0))


def sum_of_known(own: Float[Tensor, "F"], given: frozenset[str], map: Map = in_turn) -> dict[str, Any] | None:
    """The entry of the fewest known terms whose sum the answer is; None where it is none."""
    names = [name for name in KNOWN if TERMS[name].reads <= given]
    answers = map(answer, [_term(name) for name in names])
    columns = {name: each for name, each in zip(names, answers, strict=True) if bool(each.any())}
    parts: dict[str, float] = {}
    rest = own
    while len(parts) < min(PARTS, len(columns)) and float(rest.norm()) > EQUIVALENT * float(own.norm()):
        left = [name for name in columns if name not in parts]
        best = max(left, key=lambda name: abs(float(columns[name] @ rest)) / float(columns[name].norm()))
        chosen = [*parts, best]
        design = torch.stack([columns[name] for name in chosen], dim=1)
        numbers = torch.linalg.lstsq(design, own[:, None]).solution[:, 0]
        parts, rest = dict(zip(chosen, numbers.tolist(), strict=True)), own - design @ numbers
    gap = float(rest.norm() / own.norm())
    if gap > EQUIVALENT:
        return None
    order = sorted(parts, key=lambda name: (parts[name] < 0, [*KNOWN].index(name)))
    return {
        "name": _summed(order, parts),
        "distance": gap,
        "cosine": 1.0,
        "equivalent": True,
        "summary": "the sum of " + ", ".join(f"{parts[name]:.3g} × {KNOWN[name].name}" for name in order),
        "source": "; ".join(dict.fromkeys(each for name in order for each in KNOWN[name].source.split("; "))),
        "rows": [],
        "parts": {name: parts[name] for name in order},
    }


def _summed(order: list[str], parts: dict[str, float]) -> str:
    if len(order) == 1 and parts[order[0]] > 0:
        return KNOWN[order[0]].alone or KNOWN[order[0]].name
    said = "".join(f" {'+' if parts[name] > 0 else '−'} {KNOWN[name].name}" for name in order)
    return said.removeprefix(" + ").lstrip()


def known_rules(given: frozenset[str], map: Map = in_turn) -> list[Member]:
    """The zoo's rules that read no more than what is given, each once: equal ones are one member."""
    known = [(name, key, probed) for name, key, probed in _rules() if probed.rule.reads <= given]
    answers = map(answer, [probed for _, _, probed in known])
    members: list[Member] = []
    for (row, _, probed), own in zip(known, answers, strict=True):
        if not bool(own.isfinite().all()) or not bool(own.any()):
            continue
        same = next((k for k, each in enumerate(members) if distance(own, each.answer)[0] <= EQUIVALENT), None)
        if same is not None:
            members[same] = members[same]._replace(rows=tuple(dict.fromkeys((*members[same].rows, row))))
        elif probed.rule.params:
            algorithm = ZOO[row]
            members.append(Member(row, algorithm.summary, algorithm.source, (row,), probed, own))
        else:
            members.append(Member(_called(probed.rule), _said(probed.rule), probed.rule.source, (row,), probed, own))
    return members


def _rules() -> Iterator[tuple[str, str, Probed]]:
    """Every rule of every row of the zoo with the row's numbers."""
    for name, row in ZOO.items():
        for key, rule in row.rules.items():
            numbers = [row.values.get(f"{owner_of('rule', key)}.{param.name}", param.start) for param in rule.params]
            yield name, key, Probed(rule, torch.tensor(numbers, dtype=torch.float64))


def _called(rule: Rule) -> str:
    """The literature's name of a textbook rule: that of its term, else its kind."""
    own = rule.equation(torch.zeros(0, dtype=torch.float64), (1.0, 1.0))
    term = next((known for name, known in KNOWN.items() if own == equation([TERMS[name]], [1.0])), None)
    return (term.alone or term.name) if term else rule.kind.replace("_", " ")


def _said(rule: Rule) -> str:
    return (type(rule).__doc__ or "").split("\n", maxsplit=1)[0]


def _entry(key: str, member: Member, own: Float[Tensor, "F"]) -> dict[str, Any]:
    apart, cosine = distance(own, member.answer)
    return {
        "name": member.name,
        "distance": apart,
        "cosine": cosine,
        "equivalent": apart <= EQUIVALENT,
        "summary": member.summary,
        "source": member.source,
        "rows": list(member.rows),
        "parts": {},
        "rule": key,
    }


def _term(name: str) -> Probed:
    return Probed(Terms((name,), normalise=False), torch.ones(1, dtype=torch.float64))


def _numbers(subject: Subject, key: str) -> Float[Tensor, "P"]:
    return subject.learner.columns(subject.theta).rules[key][0].to(torch.float64)


def given_to(subject: Subject, key: str) -> frozenset[str]:
    """What the credit assignment gives wherever a rule serves, the weight included."""
    learner = subject.learner
    served = [p for p in learner.plastic if learner.rule_key(p) == key]
    return frozenset.intersection(*(learner.credit.gives_at(learner.network, p) for p in served)) | {"weight"}
