"""The other seeds of a search: which run folders are its replicates, and how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarule.records import RunError, read_json
from metarule.replicates import beside

Document = dict[str, Any]


def siblings(path: Path) -> list[Path]:
    """Finished runs NAME-seedK of one search beside each other, itself included; [] where `path` is none of several.

    They are of one search where nothing differs but search.seed, and how the rule was tested.
    """
    own = _asked(path)
    found = [each for each in beside(path) if _result(each) and _asked(each) == own]
    return found if len(found) > 1 and path.resolve() in found else []


def over_seeds(path: Path) -> dict[str, dict[str, Any]]:
    """Name of a coefficient -> {values, mean, low, high}, its normalised values in all seeds with a 95 % interval.

    Only seeds count that made the same choices: coefficients of different programs are different things. {} below two.
    """
    results = [_result(each) for each in siblings(path)]
    own = _result(path)
    alike = [each for each in results if _choices(each) == _choices(own)]
    if len(alike) < 2:
        return {}
    from metarule.intervals import interval  # brings scipy, which a run without replicates is shown without

    found = {}
    for term in own["terms"]:
        name = term["name"]
        values = [each["normalised"] for result in alike for each in result["terms"] if each["name"] == name]
        if len(values) == len(alike) and all(value is not None for value in values):
            mean, low, high = interval(values)
            found[name] = {"values": values, "mean": mean, "low": low, "high": high}
    return found


def seeds(path: Path) -> dict[str, int]:
    """Run -> its seed, of a run and its replicates."""
    found = {}
    for each in siblings(path) or [path.resolve()]:
        search = read_json(each / "spec.json").get("search", {}).get("search", {})
        found[each.name] = search.get("seed", 0)
    return found


def _asked(path: Path) -> Document:
    """The search of a run, its seed and its battery apart; {} where it cannot be read."""
    try:
        search = read_json(path / "spec.json")["search"]
    except (RunError, KeyError):
        return {}
    own = {key: value for key, value in search.get("search", {}).items() if key != "seed"}
    return {key: value for key, value in search.items() if key != "battery"} | {"search": own}


def _result(path: Path) -> Document:
    """The result of a run; {} where there is none yet."""
    try:
        return read_json(path / "result.json")
    except RunError:
        return {}


def _choices(result: Document) -> Document:
    """What a rule chose: its structure, its switches, its program."""
    return {name: value for name, value in result.get("theta", {}).items() if isinstance(value, str)}
