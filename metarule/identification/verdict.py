"""Verdict: three witnesses become one answer; where they disagree it is said to be ambiguous.

A, *discriminative*: trees over scale-free observables, calibrated, with a prediction set and a novelty p-value. B,
*replay*: every rule run one step at a time on what was recorded. C, *equation*: regression on the vocabulary of terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from metarule.identification.reference import UNKNOWN, equivalence_class, family

NOVEL = 0.05
"""Novelty p-value below which a recording is not taken for one of the bank's."""

EXPLAINS = 0.98
"""Share of the weight changes, at the worst edge too, from which on replay names a rule."""

CONTRADICTS = 0.9
"""Share that a rule which can be replayed has to explain where another rule explains more, or it is not named."""

TIE = 0.01
"""Rules whose explained shares differ by less cannot be told apart by replay."""

GAP = (
    "The bank is small simulated rate networks with known inputs: how far a verdict carries to a brain area is open, "
    "and none is claimed."
)


@dataclass(frozen=True)
class Verdict:
    """The answer. `verdict` is "identified", "ambiguous", "unknown" or "insufficient"; `label` the leading class.

    `probabilities` are calibrated, by class; `prediction_set` covers the true class of networks like the bank's in
    1 - alpha of cases; `equivalence_class` are the rules that no recording of this kind can tell from `label`;
    `domain` says for every covariate whether it lies in the bank's range; `used` what was looked at.
    """

    verdict: str
    label: str | None
    family: str | None
    equivalence_class: tuple[str, ...]
    probabilities: Mapping[str, float]
    prediction_set: tuple[str, ...]
    novelty_p: float | None
    replay: tuple[Mapping[str, Any], ...]
    equation: Mapping[str, Any] | None
    domain: Mapping[str, Any]
    used: Mapping[str, Any]
    warnings: tuple[str, ...]
    would_help: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""

    def table(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Discriminative:
    """What witness A says."""

    probabilities: Mapping[str, float]
    prediction_set: tuple[str, ...]
    novelty_p: float

    @property
    def leading(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])


@dataclass(frozen=True)
class Fused:
    """`kind` of verdict, the classes that remain (the leading one first), and why, in a sentence."""

    kind: str
    labels: tuple[str, ...]
    why: str


def fused(discriminative: Discriminative, replayed: Mapping[str, float], hidden_layers: int) -> Fused:
    """One answer from the probabilities and, by rule, the share that replay explains (at its worst edge).

    Replay that explains nearly everything speaks for the rules tied with it; a rule that can be replayed and does not
    explain what another explains is struck out.
    """
    best = max(replayed.values(), default=0.0)
    tied = tuple(name for name, share in replayed.items() if share >= max(EXPLAINS, best - TIE))
    leading = discriminative.leading
    same = equivalence_class(leading, hidden_layers)
    novel = discriminative.novelty_p < NOVEL
    if tied:
        agreeing = [name for name in tied if name in same]
        if agreeing and set(tied) <= set(same):
            return Fused("identified", (leading,), "trees and replay name the same rule")
        if agreeing:
            remain = tuple(name for name in tied if name in (*discriminative.prediction_set, leading))
            if set(remain) <= set(same) and not novel:
                return Fused("identified", (leading,), "replay leaves several rules, and the trees exclude the others")
            others = tuple(name for name in remain or tied if name != leading)
            return Fused("ambiguous", (leading, *others), "replay cannot tell these rules apart on this recording")
        return Fused("ambiguous", (*tied, leading), "replay and trees name different rules")
    if leading in replayed and replayed[leading] < CONTRADICTS and best >= CONTRADICTS:
        rival = max(replayed, key=lambda name: replayed[name])
        return Fused("ambiguous", (rival, leading), "replay explains another rule better than the one the trees name")
    if novel:
        return Fused("unknown", (), "it resembles no rule of the bank, and no replayed rule explains it")
    remaining = tuple(name for name in discriminative.prediction_set if name != leading)
    if set(remaining) <= set(same):
        return Fused("identified", (leading,), "the trees leave one rule, or rules that are the same here")
    return Fused("ambiguous", (leading, *remaining), "the prediction set holds several rules")


def summary(fused: Fused, discriminative: Discriminative | None, hidden_layers: int, outside: list[str]) -> str:
    """One paragraph: no label without its probability and its domain."""
    if discriminative is None or not fused.labels:
        said = {"unknown": "Unknown rule", "insufficient": "Not enough was recorded"}[fused.kind]
        tail = f" (novelty p = {discriminative.novelty_p:.3f})" if discriminative else ""
        return f"{said}{tail}: {fused.why}. {GAP}"
    label = fused.labels[0]
    chance = discriminative.probabilities.get(label, 0.0)
    same = equivalence_class(label, hidden_layers)
    names = " or ".join(same) + (" (the same rule with one hidden layer)" if len(same) > 1 else "")
    if fused.kind == "ambiguous":
        names = "between " + " and ".join(fused.labels)
    where = f"outside the bank's range in {', '.join(outside)}" if outside else "inside the bank's range"
    return (
        f"{fused.kind.capitalize()}: {names} (probability {chance:.2f}, novelty p = {discriminative.novelty_p:.2f}, "
        f"{where}); {fused.why}. {GAP}"
    )


def label_of(fused: Fused) -> tuple[str | None, str | None]:
    """The leading label and its family; "unknown" where nothing of the bank fits."""
    if fused.labels:
        return fused.labels[0], family(fused.labels[0])
    return (UNKNOWN, None) if fused.kind == "unknown" else (None, None)
