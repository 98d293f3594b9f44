"""The rule card: what a rule is, how far it sees, what it is called, and which of its numbers the task determines."""

from __future__ import annotations

from typing import Any

from metarule.evaluation import Progress
from metarule.glossary import known
from metarule.inner import Map, in_turn
from metarule.inspection.identifiability import identifiability
from metarule.inspection.locality import locality
from metarule.inspection.nearest import known_as, nearest
from metarule.inspection.provenance import provenance
from metarule.inspection.siblings import over_seeds
from metarule.inspection.subject import Subject
from metarule.jobs import recorded, versions
from metarule.results import coefficients, equations, text, written
from metarule.runs import RunFolder
from metarule.terms import TERMS


def card(subject: Subject, map: Map = in_turn, progress: Progress = lambda text: None) -> dict[str, Any]:
    """{equation, equations, latex, terms, locality, nearest, known_as, identifiability, provenance} as JSON values.

    What computes is identifiability, some evaluations on the subject's task; see there. Raises ValueError where the
    subject's runs all diverge.
    """
    progress("looking for known rules that act alike")
    found = nearest(subject, map)
    said = equations(subject, subject.theta[0])
    return {
        "equation": text(said),
        "latex": [part["latex"] for part in said.values() if part],
        "equations": [each._asdict() for each in written(subject, subject.theta[0])],
        "terms": terms(subject),
        "locality": locality(subject),
        "nearest": found,
        "known_as": known_as(found),
        "identifiability": identifiability(subject, map, progress),
        "provenance": _provenance(subject),
    }


def terms(subject: Subject) -> list[dict[str, Any]]:
    """{name, raw, normalised, known_as, source, local, seeds} per number of a rule; `local` None of no term."""
    agreed = over_seeds(subject.path) if subject.path is not None else {}
    rows = []
    for each in coefficients(subject, subject.theta[0]):
        called = known(each.name)
        term = TERMS.get(each.param.name)
        rows.append(
            {
                "name": each.name,
                "raw": each.raw,
                "normalised": each.normalised,
                "known_as": called.name if called else None,
                "source": called.source if called else None,
                "local": term.local if term else None,
                "seeds": agreed.get(each.name),
            }
        )
    return rows


def _provenance(subject: Subject) -> dict[str, Any]:
    if subject.path is not None:
        return provenance(subject.path, recorded(RunFolder(subject.path)))
    return {
        "command": f"metarule evaluate {subject.name}",
        "versions": versions(),
        "git_revision": None,
        "seeds": {},
        "search": None,
        "search_sha256": None,
    }
