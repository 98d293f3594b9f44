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


def fused(
    discriminative: Discriminative | None,
    replayed: Mapping[str, str],
    hidden_layers: int,
    spoken: Mapping[str, str] | None = None,
) -> Fused:
    """One answer from the trees, from what replay says of each rule ("explains", "excluded", "open") and what an exact
    equation says ("supports", "contradicts").

    Rules that explain all changes stand against the trees' prediction set; a rule that replay excludes is struck out of
    it. Where the two leave nothing in common the answer is ambiguous, or unknown if replay speaks for no rule. An
    equation that is not the named rule's makes it ambiguous; of several rules it strikes out those that it contradicts.
    """
    found = _of_two(discriminative, replayed, hidden_layers)
    against = {name for name, says in (spoken or {}).items() if says == "contradicts"}
    remain = tuple(name for name in found.labels if name not in against)
    if found.kind == "identified" and not remain:
        return Fused("ambiguous", found.labels, f"{found.why}, and the equation is exact and is not its own")
    if found.kind == "ambiguous" and remain and len(remain) < len(found.labels):
        one = set(remain) <= set(equivalence_class(remain[0], hidden_layers))
        why = f"{found.why}; the exact equation contradicts the others"
        return Fused("identified" if one else "ambiguous", remain, why)
    return found


def _of_two(discriminative: Discriminative | None, replayed: Mapping[str, str], hidden_layers: int) -> Fused:
    """The answer of trees and replay."""
    chances = discriminative.probabilities if discriminative else {}
    named = [name for name, says in replayed.items() if says == "explains"]
    explaining = tuple(sorted(named, key=lambda name: -chances.get(name, 0.0)))
    if discriminative is None:
        if explaining and set(explaining) <= set(equivalence_class(explaining[0], hidden_layers)):
            return Fused("identified", explaining[:1], "replay explains every change; the trees cannot be asked")
        if explaining:
            return Fused("ambiguous", explaining, "replay explains every change by each; the trees cannot be asked")
        return Fused("insufficient", (), "the trees cannot be asked, and no replayed rule explains it")
    leading = discriminative.leading
    considered = (leading, *(name for name in discriminative.prediction_set if name != leading))
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
    one = set(explaining) <= set(equivalence_class(explaining[0], hidden_layers))
    if novel:
        # the trees know nothing like it: they exclude nothing
        if one:
            return Fused("identified", explaining[:1], "replay explains every change; the trees know nothing like it")
        return Fused("ambiguous", explaining, "replay explains every change by each; the trees know nothing like it")
    shared = tuple(name for name in considered if name in explaining)
    if not shared:
        return Fused("ambiguous", (*explaining, considered[0]), "replay and trees name different rules")
    if not set(shared) <= set(equivalence_class(shared[0], hidden_layers)):
        return Fused("ambiguous", shared, "neither replay nor trees tell these rules apart on this recording")
    if one:
        return Fused("identified", shared[:1], "trees and replay name the same rule")
    return Fused("identified", shared[:1], "replay leaves several rules, and the trees exclude the others")


def summary(
    fused: Fused,
    discriminative: Discriminative | None,
    hidden_layers: int,
    outside: list[str],
    unsaid: list[str] | None = None,
    equation: bool = False,
) -> str:
    """One paragraph: no label without the trees' probability and the domain.

    `outside` and `unsaid` are covariates beyond the bank's range, and unknown ones; `equation` says whether an exact
    one was found.
    """
    novelty = "" if discriminative is None else f"novelty p = {discriminative.novelty_p:.2g}"
    if not fused.labels:
        said = {"unknown": "Unknown rule", "insufficient": "Not enough was recorded"}[fused.kind]
        own = " Its equation is exact all the same: it stands below." if equation else ""
        return f"{said}{f' ({novelty})' if novelty else ''}: {fused.why}.{own} {GAP}"
    label = fused.labels[0]
    same = equivalence_class(label, hidden_layers)
    names = " or ".join(same) + (" (the same rule in such a network)" if len(same) > 1 else "")
    if fused.kind == "ambiguous":
        names = f"between {' and '.join(fused.labels)}" if len(fused.labels) > 1 else f"{label} remains, with a doubt"
    where = f"outside the bank's range in {', '.join(outside)}" if outside else "inside the bank's range"
    where += f", {', '.join(unsaid)} unknown" if unsaid else ""
    chances = {} if discriminative is None else discriminative.probabilities
    facts = f"trees' probability {chances.get(label, 0.0):.2f}, {novelty}, {where}" if chances else where
    return f"{fused.kind.capitalize()}: {names} ({facts}); {fused.why}. {GAP}"


def label_of(fused: Fused) -> tuple[str | None, str | None]:
    """The leading label and its family; "unknown" where nothing of the bank fits."""
    if fused.labels:
        return fused.labels[0], family(fused.labels[0])
    return (UNKNOWN, None) if fused.kind == "unknown" else (None, None)
