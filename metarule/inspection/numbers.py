"""The numbers behind every picture and report of a run, read from its folder without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarule.findings import learning_curve, terms, trajectories
from metarule.glossary import known
from metarule.inspection.kept import kept
from metarule.inspection.provenance import provenance
from metarule.inspection.siblings import over_seeds
from metarule.records import RunError, read_json, read_log

LARGEST = 24
"""Coefficients drawn and printed at most: two columns of names."""

Document = dict[str, Any]
"""What `found` returns: JSON values, the keys of result.json and those that it adds."""


def found(path: Path) -> Document:
    """Everything a run folder says about its search; of one that is not finished, what is known so far.

    The content of result.json (`equation`, `terms`, `battery`, `differences`, `tunings`, ...) with `run`, `finished`,
    `planned` generations, `learning_curve` and `coefficients` (normalised, per generation). While a search is under way
    `battery` is empty, and `equation` None until a card was computed. `provenance` and the seeds' intervals are read at
    once; the rest of the rule card (`equations`, `locality`, `nearest`, `known_as`, `identifiability`) is what was kept
    of it, else empty. Raises RunError where the folder is not a run's or is damaged.
    """
    spec = read_json(path / "spec.json")
    log = read_log(path / "log.jsonl")
    try:
        search = spec["search"]
        planned = search["outer"]["generations"]
        result = read_json(path / "result.json") if (path / "result.json").exists() else None
        finished = result is not None and result["generations"] == len(log) == planned
        document = result if finished and result is not None else _so_far(path, spec, log)
        return _with_card(path, spec, log, document) | {
            "run": str(path),
            "finished": finished,
            "planned": planned,
            "model": search.get("model", {}).get("kind"),
            "objectives": spec["objectives"],
            "learning_curve": learning_curve(log),
            "coefficients": trajectories(spec["parameters"], log),
        }
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: its files lack {error}") from error


def _with_card(path: Path, spec: Document, log: list[Document], document: Document) -> Document:
    """The document with the kept card, if there is one of this rule, and what of a card needs no computing."""
    sections = kept(path, log[-1]["theta"]) if log else {}
    card = sections.pop("card", {}) | {"provenance": provenance(path, spec)}
    whole = merged(document, card)
    agreed = over_seeds(path)
    rows = [{**term, "seeds": agreed.get(term["name"])} for term in whole["terms"]]
    return {**whole, **sections, "terms": rows}


def merged(document: Document, card: Document) -> Document:
    """The document with what a card adds; of a run's coefficients the ranges stay, a row of the zoo has the card's."""
    empty = {"equations": [], "locality": None, "nearest": [], "known_as": None, "identifiability": None}
    said = {key: card.get(key, value) for key, value in (empty | {"provenance": None}).items()}
    own = {term["name"]: term for term in card.get("terms", [])}
    if document["equation"] is None:
        said |= {key: card[key] for key in ("equation", "latex") if key in card}
    rows = [{**_called(term["name"]), **own.get(term["name"], {}), **term} for term in document["terms"]]
    return {**document, **said, "terms": rows or list(own.values())}


def _called(name: str) -> Document:
    """What is known of a coefficient by its name alone."""
    called = known(name)
    source = called.source if called else None
    return {"known_as": called.name if called else None, "source": source, "local": None, "seeds": None}


def _so_far(path: Path, spec: Document, log: list[Document]) -> Document:
    search = spec["search"]
    return blank(path.resolve().name, search["task"]["kind"], search.get("credit", {}).get("kind", "searched")) | {
        "schema": spec["schema"],
        "outer": search["outer"]["kind"],
        "generations": len(log),
        "terms": terms(spec["parameters"], log),
        "theta": log[-1]["theta"] if log else {},
    }


def blank(name: str, task: str, credit: str) -> Document:
    """A document with every key, of which nothing more is known: `outer` None, as of what no search found."""
    return {
        "name": name,
        "run": None,
        "finished": False,
        "task": task,
        "credit": credit,
        "model": None,
        "structure": {},
        "outer": None,
        "generations": 0,
        "planned": 0,
        "objectives": [],
        "learning_curve": [],
        "coefficients": {},
        "equation": None,
        "latex": [],
        "terms": [],
        "theta": {},
        "front": [],
        "battery": [],
        "differences": [],
        "tunings": {},
        "trained_on": None,
        "tested_on": None,
    }


def episodes(path: Path) -> dict[str, dict[str, list[float]]]:
    """Learner -> metric -> one value per held-out episode (inf where a run diverged); {} where no battery was run."""
    if not (path / "episodes.json").exists():
        return {}
    return {
        learner: {
            metric: [math.inf if value is None else value for value in values] for metric, values in scores.items()
        }
        for learner, scores in read_json(path / "episodes.json").items()
    }


@dataclass(frozen=True)
class LearningCurve:
    """Objective of the mean and of the luckiest candidate, and means of all other metrics; nan where all failed."""

    generations: tuple[int, ...]
    mean: tuple[float, ...]
    best: tuple[float, ...]
    metrics: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Coefficients:
    """Normalised coefficients per generation, and the interval of each over the last of them."""

    generations: tuple[int, ...]
    values: dict[str, tuple[float, ...]]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Comparison:
    """One metric of the battery: mean and 95 % interval per learner, and its episodes."""

    metric: str
    learners: tuple[str, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    episodes: tuple[tuple[float, ...], ...]


def curve(document: Document) -> LearningCurve:
    """The learning curve of a run."""
    lines = document["learning_curve"]
    names = {name for line in lines for name in line["scores"]} - {*document["objectives"][:1]}
    return LearningCurve(
        tuple(line["generation"] for line in lines),
        tuple(_number(line["loss_mean"]) for line in lines),
        tuple(_number(line["loss_best"]) for line in lines),
        {name: tuple(_number(line["scores"].get(name)) for line in lines) for name in sorted(names)},
    )


def coefficients(document: Document) -> Coefficients:
    """The coefficients of a run over its generations."""
    return Coefficients(
        tuple(line["generation"] for line in document["learning_curve"]),
        {name: tuple(values) for name, values in document["coefficients"].items()},
        {term["name"]: (term["low"], term["high"]) for term in document["terms"]},
    )


def comparison(document: Document, scores: dict[str, dict[str, list[float]]]) -> Comparison | None:
    """The leading metric of a run's battery with `episodes`' values; None where no battery was run."""
    rows = document["battery"]
    if not rows:
        return None
    metric = rows[0]["metric"]
    rows = [row for row in rows if row["metric"] == metric]
    return Comparison(
        metric,
        tuple(row["learner"] for row in rows),
        tuple(_number(row["mean"]) for row in rows),
        tuple(_number(row["low"]) for row in rows),
        tuple(_number(row["high"]) for row in rows),
        tuple(tuple(scores.get(row["learner"], {}).get(metric, ())) for row in rows),
    )


@dataclass(frozen=True)
class Front:
    """The rules that no other beats in one objective without losing in another, and everything that was tried.

    `first` and `second` objective and what to call it, per rule of the front; `tried` pairs of both.
    """

    objectives: tuple[str, str]
    first: tuple[float, ...]
    second: tuple[float, ...]
    labels: tuple[str, ...]
    tried: tuple[tuple[float, float], ...]


def front(document: Document, log: list[Document]) -> Front | None:
    """The front of a finished run by its first two objectives, from its log what else was tried; None without one."""
    rules = document.get("front", [])
    if not rules:
        return None
    one, two = document["objectives"][:2]
    tried = [row[:2] for line in log for row in line["losses"] if None not in row[:2]]
    return Front(
        (one, two),
        tuple(rule["losses"][one] for rule in rules),
        tuple(rule["losses"][two] for rule in rules),
        tuple(", ".join(rule["structure"].values()) or rule["equation"] or "" for rule in rules),
        tuple((first, second) for first, second in tried),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
