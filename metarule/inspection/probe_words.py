"""What probes found, in sentences that are made of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Spread = Mapping[str, float | None]
"""Mean, low and high of a 95 % interval; None where there is no number."""

AT_REST, A_GRADIENT = 0.1, 1e-6
"""Drift, as a share of what it was, below which weights have come to rest; asymmetry below which there is no curl."""

FEW = 3
"""Terms that are named one by one."""

MOST_RUNS = 0.8
"""Share of the runs that must have a norm at which they rest, for it to be said of the rule."""


def number(value: float | None, sign: bool = False) -> str:
    """Three digits, as people write them."""
    if value is None:
        return "–"
    return f"{value:+.3g}" if sign else f"{value:.3g}"


def between(spread: Spread, sign: bool = False) -> str:
    """ "0.98 [0.97, 0.99]"."""
    low, high = spread["low"], spread["high"]
    reach = f" [{number(low, sign)}, {number(high, sign)}]" if low is not None and high is not None else ""
    return number(spread["mean"], sign) + reach


def direction(change: Spread) -> int:
    """+1 or -1 where the interval leaves out 0, else 0."""
    low, high = change["low"], change["high"]
    if low is None or high is None:
        return 0
    return (low > 0) - (high < 0)


def curve_sentence(label: str, unit: str, layers: Mapping[str, Any], changes: Mapping[str, Spread]) -> str:
    """From where to where a curve goes, layer by layer, and whether that is more than chance."""
    parts = []
    for layer, series in layers.items():
        moved = {1: "rises from", -1: "falls from", 0: "does not measurably change:"}[direction(changes[layer])]
        last = {key: series[key][-1] for key in ("mean", "low", "high")}
        parts.append(f"{layer} {moved} {number(series['mean'][0])} to {between(last)}")
    written = f" ({unit})" if unit != "1" else ""
    return f"{label[0].upper()}{label[1:]}{written}: {'; '.join(parts)}."


def angles_sentence(curves: list[dict[str, Any]], taught: bool) -> list[str]:
    """What is said of alignment before all else."""
    if not taught:
        return ["Nobody teaches on this task: there is no gradient to compare the updates with."]
    return [curve["sentence"] for curve in curves if curve["name"] in ("error_angle", "angle_to_backprop")]


def curl_sentence(asymmetry: Spread, draws: int) -> str:
    """Whether the update is a gradient."""
    # a perturbation that descends on average turns about in every single draw
    where = (
        f"asymmetry of its Jacobian {between(asymmetry)} in {draws} small random copies of the network, whatever is "
        "drawn at random held fixed"
    )
    low, high = asymmetry["low"], asymmetry["high"]
    if asymmetry["mean"] is None or low is None or high is None:
        return "The update does not depend on the weights that it changes: curl says nothing."
    if high < A_GRADIENT:
        return f"The update is the gradient of some loss, where all weights share one rate: {where}."
    if low > A_GRADIENT:
        return f"The update is the gradient of no loss: {where}."
    return f"Whether the update is the gradient of some loss is not decided: {where}."


def contrast_sentence(means: Mapping[str, Mapping[str, Any]], runs: int) -> str:
    """What a term does to orthonormality and alignment, mean over hidden layers: probe -> row."""
    first = next(iter(means.values()))
    rest = " + ".join(first["to"]) if len(first["to"]) <= FEW else "the rest of the rule"
    beginning = f"{first['term']}, added to {rest},"
    effects = []
    if "orthonormality" in means:
        gap = means["orthonormality"]["difference"]
        effects.append((-direction(gap), "orthonormality", f"E {between(gap, sign=True)}"))
    for probe, name in (("error_angle", "alignment"), ("angle_to_backprop", "alignment")):
        if probe in means:
            gap = means[probe]["difference"]
            what = "of errors" if probe == "error_angle" else "of updates"
            effects.append((-direction(gap), f"{name} {what}", f"angle {between(gap, sign=True)} degrees"))
    # an angle may be none because nothing moves: a run that diverged has no number at all
    lost, broken = (min(row[key] for row in means.values()) for key in ("diverged", "diverged_with"))
    counts = [(lost, "without it"), (broken, "with it")]
    said = [f"{count} runs diverged {how}" for count, how in counts if count]
    tail = f" ({', '.join(said)})" if said else ""
    known = [effect for effect in effects if "–" not in effect[2]]
    if not known:
        return f"Of {runs} runs {lost} diverge without {first['term']}, and {broken} with it beside {rest}."
    verbs = {1: "raises", -1: "lowers", 0: "does not measurably change"}
    groups = [(verbs[sign], [f"{n} ({t})" for s, n, t in known if s == sign]) for sign in (1, -1, 0)]
    said = [f"{verb} {' and '.join(names)}" for verb, names in groups if names]
    return f"{beginning} {', but '.join(filter(None, (said[0], ' and '.join(said[1:]))))}{tail}."


def rest_sentence(found: Mapping[str, Any], runs: int) -> str:
    """Whether a layer's weights have come to rest, and where they would."""
    ratio, layer = found["drift_ratio"], found["layer"]
    if found["drift"]["mean"] is None:
        return f"{layer}: its weights diverged."
    pace = f"a step moves its weights, on average over the data, by {between(found['drift'])} of their length"
    share = f"{between(ratio)} of what it was after {found['since']} steps"
    if ratio["high"] is None:
        slows = pace
    elif ratio["high"] < AT_REST:
        slows = f"has come to rest: {pace}, {share}"
    elif ratio["high"] < 1:
        slows = f"slows but does not settle: {pace}, {share}"
    else:
        slows = f"does not slow down: {pace}, {share}"
    there = found["runs_with_rest"]
    if there >= MOST_RUNS * runs:
        where = (
            f"scaled alone, its weights would stay at |w| = {between(found['rest'])} per unit, and they are at "
            f"{between(found['norm'])}"
        )
    else:
        ends = {"largest": found["grows_when_large"], "smallest": found["grows_when_small"]}
        said = " and ".join(
            f"grow in {number(100 * (share or 0))} % of runs at the {end}" for end, share in ends.items()
        )
        where = (
            f"{there} of {runs} runs have a length, between 1/4 and 4 times theirs, at which its weights would stay; "
            f"they {said} of these"
        )
    return f"{layer} {slows}; {where}."
