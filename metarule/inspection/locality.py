"""Locality: what a rule reads, which of it is at hand at the synapse, and what the credit assignment adds."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from metarule.glossary import MEANINGS
from metarule.inspection.subject import Subject
from metarule.results import expressions
from metarule.terms import FACTORS, TERMS

LOCAL = "local"
BROADCAST = "local given a broadcast scalar"
LAYER_WIDE = "layer-wide"
"""How far a synapse has to see: its two ends and itself, one number that all hear, or other units of its layer."""


class Reading(NamedTuple):
    """The factors of `terms.FACTORS` that a rule reads, and whether all that it needs is at hand at the synapse."""

    factors: tuple[str, ...]
    local: bool


def locality(subject: Subject) -> dict[str, Any]:
    """The level of the rule, every quantity that it reads, and what the credit assignment uses that is not local.

    Of several rules the level is that of the farthest-seeing one. Terms whose coefficient is 0 read nothing.
    """
    learner, credit = subject.learner, subject.learner.credit
    read: dict[str, list[str]] = {}
    far = []
    for key, reading in readings(subject, subject.theta[0]).items():
        for name in reading.factors:
            read.setdefault(name, []).append(key)
        if not reading.local:
            far.append(key)
    scalars = [name for name in read if FACTORS[name].side == "event" and FACTORS[name].local]
    level = LAYER_WIDE if far else BROADCAST if scalars else LOCAL
    delivered = [name for name in read if MEANINGS[name].delivered]
    return {
        "local": not far,
        "level": level,
        "sentence": _sentence(level, list(read), far if len(learner.rules) > 1 else [], scalars),
        "signals": [
            {
                "name": name,
                "side": FACTORS[name].side,
                "local": FACTORS[name].local,
                "delivered": MEANINGS[name].delivered,
                "meaning": MEANINGS[name].text,
                "rules": keys,
            }
            for name, keys in sorted(read.items(), key=lambda item: [*FACTORS].index(item[0]))
        ],
        "credit": {"kind": credit.kind, "sentence": _delivery(credit.kind, delivered, credit.not_local)},
    }


def readings(subject: Subject, theta: Float[Tensor, "P"]) -> dict[str, Reading]:
    """What every rule's equation contains; of a rule without one, what it declares, and the weight."""
    found = {}
    for key, parts in expressions(subject, theta).items():
        rule = subject.learner.rules[key]
        if not parts:
            names = {*rule.reads, "weight"}
            found[key] = Reading(tuple(name for name in FACTORS if name in names), rule.local)
            continue
        # of a program's symbols some are terms, and some its own memories
        symbols = {str(symbol) for part in parts.values() for symbol in part.free_symbols}
        names = {factor for name in symbols for factor in (TERMS[name].factors if name in TERMS else (name,))}
        factors = tuple(name for name in FACTORS if name in names)
        found[key] = Reading(factors, all(FACTORS[name].local for name in factors))
    return found


def _sentence(level: str, names: list[str], far: list[str], scalars: list[str]) -> str:
    if level == LOCAL:
        return "A synapse reads what is at its two ends and its own weight, nothing else."
    if level == BROADCAST:
        return f"A synapse reads what is at its two ends, its own weight, and {_listed(scalars)}, one number for all."
    remote = [f"{name} ({MEANINGS[name].text})" for name in names if not FACTORS[name].local]
    what = _listed(remote) if remote else "other units of its layer"
    whose = f" (rule {_listed(far)})" if far else ""
    return f"A synapse needs {what}, which is not at hand at a synapse{whose}."


def _delivery(kind: str, delivered: list[str], sentence: str) -> str:
    if not delivered:
        return f"Credit assignment {kind} delivers nothing that the rule reads."
    return f"{_listed(delivered)} {'is' if len(delivered) == 1 else 'are'} delivered by {kind}: {sentence}"


def _listed(names: list[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
