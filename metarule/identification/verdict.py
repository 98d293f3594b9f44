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


def fused(discriminative: Discriminative, replayed: Mapping[str, str], hidden_layers: int) -> Fused:
    """One answer from the trees and from what replay says of each rule ("explains", "excluded", "open").

    Rules that explain all changes stand against the trees' prediction set; a rule that replay excludes is struck out of
    it. Where the two leave nothing in common the answer is ambiguous, or unknown if replay speaks for no rule.
    """
    leading = discriminative.leading
    considered = (leading, *(name for name in discriminative.prediction_set if name != leading))
    chances = discriminative.probabilities
    explaining = tuple(
        sorted(
            (name for name, says in replayed.items() if says == "explains"), key=lambda name: -chances.get(name, 0.0)
        )
    )
    novel = discriminative.novelty_p < NOVEL
    if explaining:
        return _beside(explaining, considered, hidden_layers, novel)
    remain = tuple(name for name in considered if replayed.get(name) != "excluded")
    if not remain:
        return Fused("unknown", (), f"it resembles {leading}, which replay excludes, and no replayed rule explains it")
    if novel:
        return Fused("unknown", (), "it resembles no rule of the bank, and no replayed rule explains it")
    if remain[0] != leading:
        return Fused("ambiguous", remain, f"the trees name {leading}, which replay excludes")
    if set(remain) <= set(equivalence_class(leading, hidden_layers)):
        return Fused("identified", (leading,), "the trees leave one rule, or rules that are the same here")
    return Fused("ambiguous", remain, "the prediction set holds several rules")


def _beside(explaining: tuple[str, ...], considered: tuple[str, ...], hidden_layers: int, novel: bool) -> Fused:
    """The answer where replay names rules: what they and the trees have in common; replay's own where trees abstain."""
    shared = tuple(name for name in considered if name in explaining)
    if not shared:
        if novel and set(explaining) <= set(equivalence_class(explaining[0], hidden_layers)):
            return Fused("identified", explaining[:1], "replay explains every change; the trees know nothing like it")
        return Fused("ambiguous", (*explaining, considered[0]), "replay and trees name different rules")
    if not set(shared) <= set(equivalence_class(shared[0], hidden_layers)):
        return Fused("ambiguous", shared, "neither replay nor trees tell these rules apart on this recording")
    if set(explaining) <= set(equivalence_class(shared[0], hidden_layers)):
        return Fused("identified", shared[:1], "trees and replay name the same rule")
    return Fused("identified", shared[:1], "replay leaves several rules, and the trees exclude the others")


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
