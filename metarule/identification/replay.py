"""Replay: every rule is run one step at a time on what was recorded, its step size profiled out.

What a rule would have done at the recorded weights, inputs and targets is compared with what was done. Feedback weights
that nobody recorded are fitted to all updates but the one that they are judged on; a momentum comes from consecutive
changes; Adam is followed from the first update on. Noise of recorded weights, which makes consecutive rests
echo one another with the sign turned, is not held against a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarule.credit import CreditAssignment
from metarule.credit.direct_feedback_alignment import DirectFeedbackAlignment
from metarule.credit.direct_random_target import DirectRandomTarget
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.identification.moments import Moments, moments
from metarule.identification.recording import Recording, RecordingError
from metarule.identification.reference import REFERENCE
from metarule.identification.replayed_feedback import with_fitted_feedback
from metarule.identification.step_sizes import Fit, fitted
from metarule.learner import ANY, Learner
from metarule.rng import noise_for
from metarule.rules.textbook import Delta
from metarule.signals import Change
from metarule.synapses.adam import Adam
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd
from metarule.zoo import Algorithm

FLOOR = 1e-3
"""Share of the changes that may stay unexplained where weights are exact: float32 of a user's own model, rounding."""

FITTED_FLOOR = 3e-3
"""The same where feedback weights are fitted: some of them had few updates to show."""

SHORT = 0.02
"""Share that a rule may fall short of everything before it is excluded, where weights are exact."""

SHORT_FITTED = 0.1
"""The same where feedback weights are fitted."""

DECIDES = 0.75
"""Share of noise in the changes from which on replay says nothing."""

MOMENTA = (0.3, 0.999)
"""Momenta that are told from none; the zoo's is 0.9."""

FITTED: dict[type[CreditAssignment], str] = {
    FeedbackAlignment: "above",
    DirectFeedbackAlignment: "error",
    DirectRandomTarget: "target",
}
"""Kind of credit whose fixed feedback is fitted -> what that feedback brings to a layer."""


@dataclass(frozen=True)
class Replay:
    """How well one rule explains a recording: `explained` = 1 - |dW - a P|^2 / |dW|^2, noise subtracted from both.

    The size a >= 0 is free per projection and per burst of updates; `scale` is its mean with a 95 % interval.
    `weakest` is the share at the projection that the rule explains least: a readout that learns fast would else speak
    for hidden layers that learn otherwise. `says` is "explains", "excluded" (noise makes no such rest) or "open".
    `log_likelihood` is Gaussian, its variance per projection profiled out.
    """

    rule: str
    explained: float
    weakest: float
    scale: float
    scale_low: float
    scale_high: float
    log_likelihood: float
    updates: int
    says: str
    detail: Mapping[str, Any]

    def table(self) -> dict[str, Any]:
        """The replay as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Replays:
    """All rules that could be replayed, the best first; `tolerance` is how much a true rule may leave unexplained.

    `noise` is the share of noise in the changes. `switched_off` says of the others why they could not be.
    """

    rows: tuple[Replay, ...]
    switched_off: Mapping[str, str]
    tolerance: float
    noise: float


class Candidate(NamedTuple):
    """One rule's fit, not yet compared with others."""

    rule: str
    fit: Fit
    updates: int
    noises: float  # variance of the rest's noise in units of one snapshot's
    detail: dict[str, Any]
    whole: bool = True  # all updates were replayed
    by_fitted: bool = False  # feedback weights were fitted, and have a size of their own everywhere but at the readout


class UnfitError(Exception):
    """Why a rule cannot be replayed on a recording."""


def replay(recording: Recording, rows: Mapping[str, Algorithm] | None = None) -> Replays:
    """Every rule replayed on the single updates of a recording; the bank's rules where none are given."""
    return judged(*candidates(recording, REFERENCE if rows is None else rows))


def candidates(recording: Recording, rows: Mapping[str, Algorithm]) -> tuple[list[Candidate], dict[str, str]]:
    """What each rule explains, before rules are compared; and of those that cannot be replayed, why."""
    try:
        seen = moments(recording)
    except RecordingError as error:
        return [], dict.fromkeys(rows, str(error))
    if not 0 < sum(float(change.square().sum()) for change in seen.changes.values()) < np.inf:
        return [], dict.fromkeys(rows, "/weights: they do not change from one update to the next")
    found, switched_off = [], {}
    gradients: dict[str, dict[str, Tensor]] = {}
    for name, row in rows.items():
        try:
            found.append(_replayed(name, row, seen, gradients))
        except UnfitError as error:
            switched_off[name] = str(error)
    return found, switched_off


def _replayed(name: str, row: Algorithm, seen: Moments, known: dict[str, dict[str, Tensor]]) -> Candidate:
    if type(row.credit) in FITTED and all(isinstance(rule, Delta) for rule in row.rules.values()):
        return _with_feedback(name, FITTED[type(row.credit)], seen)
    synapses = set(row.synapses.values())
    if len(synapses) > 1:
        raise UnfitError("its projections have synapses of different kinds")
    (synapse,) = synapses
    if not isinstance(synapse, (Sgd, Momentum, Adam)) or synapse.bound is not None or synapse.dale:
        raise UnfitError("its synapses have a hidden state or are bounded")
    learner, made = _induced(replace(row, synapses={ANY: Sgd()}), seen, known)
    if isinstance(synapse, Momentum):
        if synapse.nesterov:
            raise UnfitError("its momentum looks ahead")
        return _with_momentum(name, made, seen)
    if isinstance(synapse, Adam):
        return _with_adam(name, synapse, learner, made, seen)
    return _plain(name, made, seen)


def _induced(row: Algorithm, seen: Moments, known: dict[str, dict[str, Tensor]]) -> tuple[Learner, dict[str, Tensor]]:
    """What a row's batch induces at every moment; raises UnfitError where something that it needs was not recorded."""
    network = seen.network
    if row.credit.projections(network):
        raise UnfitError("its feedback weights were not recorded")
    try:
        free = tuple(name for name in row.free if name.endswith("rate"))
        values = {key: value for key, value in row.values.items() if not key.startswith("synapse")}
        learner = replace(row, values=values, free=free).learner(network)
    except ValueError as error:
        raise UnfitError(str(error)) from error
    key = f"{learner.credit} {learner.rules}"
    if key in known:
        return learner, known[key]
    if learner.credit.stages(network, seen.batch) > 1:
        raise UnfitError("it changes weights several times per batch, and snapshots show one change")
    count = len(seen.times)
    columns = learner.columns(torch.ones(count, len(learner.params), dtype=torch.float64))
    noise = noise_for([(0, "replay", moment) for moment in range(count)])
    if learner.credit.init(columns.credit, network, seen.weights, noise):
        raise UnfitError("its credit assignment has a hidden state")
    if any(rule.init(columns.rules[name], next(iter(seen.weights.values()))) for name, rule in learner.rules.items()):
        raise UnfitError("its rule has a hidden state")
    state = {"weights": seen.weights, "credit": {}, "rules": {p.name: {} for p in learner.plastic}}
    try:
        first, second = (learner.induced(columns, state, seen.batch, 0, noise.at(draw)) for draw in ("one", "other"))
    except ValueError as error:
        raise UnfitError(str(error)) from error
    if any(not torch.equal(first[name], second[name]) for name in first):
        raise UnfitError("it explores with noise that was not recorded")
    known[key] = first
    return learner, first


def _plain(name: str, made: dict[str, Tensor], seen: Moments) -> Candidate:
    fit = fitted(seen.changes, made, seen.piece, seen.follows)
    decayed = fitted(seen.changes, made, seen.piece, seen.follows, [seen.weights])
    if decayed.shared[0] < 0 and fit.unexplained > FLOOR and decayed.unexplained < fit.unexplained / 2:
        return Candidate(name, decayed, len(seen.times), 2.0, {"decay": -float(decayed.shared[0])})
    return Candidate(name, fit, len(seen.times), 2.0, {})


def _with_momentum(name: str, made: dict[str, Tensor], seen: Moments) -> Candidate:
    """dW[t] = a P[t] + m dW[t - 1], m shared by all projections."""
    later = np.flatnonzero(seen.follows)
    if not len(later):
        raise UnfitError("a momentum shows in two updates in a row, and the recording has single ones")
    before = {edge: change[later - 1] for edge, change in seen.changes.items()}
    now, made = seen.at(seen.follows), {edge: change[later] for edge, change in made.items()}
    piece, follows = now.piece, now.follows
    fit = fitted(now.changes, made, piece, follows, [before])
    momentum = float(np.clip(fit.shared[0], *MOMENTA))
    if momentum != fit.shared[0]:
        fit = fitted(now.changes, made, piece, follows, [before], np.array([momentum]))
    return Candidate(name, fit, len(later), 1 + (1 + momentum) ** 2 + momentum**2, {"momentum": momentum})


def _with_adam(name: str, synapse: Adam, learner: Learner, made: dict[str, Tensor], seen: Moments) -> Candidate:
    """Adam's own steps from the first update on, when its averages were empty."""
    first = np.flatnonzero((seen.piece == seen.piece[0]) & (seen.times == np.arange(len(seen.times))))
    if not len(first):
        raise UnfitError(
            "its averages over earlier updates are unknown: the recording does not begin with the first one"
        )
    theta = torch.ones(1, 1, dtype=torch.float64)
    stepped: dict[str, Tensor] = {}
    for edge, changes in made.items():
        weight = seen.weights[edge][:1]
        state, steps = synapse.init(theta, weight), []
        for moment in first:
            step, state = synapse.step(
                theta, weight, Change(full=changes[moment : moment + 1]), 1.0, state, noise_for([(0, "adam")])
            )
            steps.append(step.tensor(weight))
        stepped[edge] = torch.cat(steps)
    now = seen.at(first)
    return Candidate(name, fitted(now.changes, stepped, now.piece, now.follows), len(first), 2.0, {}, whole=False)


def _with_feedback(name: str, carried: str, seen: Moments) -> Candidate:
    """The rule with the feedback weights that explain all other updates, at every update."""
    if len(seen.times) < 2:
        raise UnfitError("its feedback weights are fitted to some updates and judged on others, and there is only one")
    try:
        made, alignment = with_fitted_feedback(seen, carried)
    except RecordingError as error:
        raise UnfitError(str(error)) from error
    fit = fitted(seen.changes, made, seen.piece, seen.follows)
    return Candidate(name, fit, len(seen.times), 2.0, {"feedback_on_weights": alignment}, by_fitted=True)


def judged(found: list[Candidate], switched_off: dict[str, str]) -> Replays:
    """What replay says of each rule, in the light of all: how noisy changes are, and which rule needs no fitting."""
    if not found:
        return Replays((), switched_off, 1.0, 0.0)
    # Adam is followed over its first updates alone, whose size is not that of the others
    heard = [each for each in found if (each.fit.echoes > 0).all() and each.noises == 2.0 and each.whole]
    noise, share, sure = np.zeros(len(found[0].fit.energy)), 0.0, np.inf
    if heard:
        best = min(heard, key=lambda each: each.fit.unexplained).fit
        noise = np.maximum(-best.echo / best.echoes, 0.0)
        # as much as chance makes of rests that do not echo is no noise
        noise = np.where(noise > 3 * best.left / best.count / np.sqrt(best.echoes), noise, 0.0)
        share = float((2 * noise * best.count).sum() / best.energy.sum())
        sure = float(np.sqrt(best.echoes.min()))
    tolerance = FLOOR + 4 * share / max(1 - share, 1e-3) / sure
    rows = [_row(each, noise, tolerance, decides=share < DECIDES) for each in found]
    fixed = {each.rule for each in found if not each.by_fitted}
    left = min((1 - row.weakest for row in rows if row.rule in fixed and row.says == "explains"), default=None)
    if left is not None:
        # fitted feedback may copy weights that hardly move: a rule that fits nothing and leaves less goes before it
        most = max(10 * left, tolerance - FLOOR)
        rows = [row if row.rule in fixed or 1 - row.weakest <= most else _opened(row) for row in rows]
    return Replays(tuple(sorted(rows, key=lambda row: -row.explained)), switched_off, tolerance, share)


def _opened(row: Replay) -> Replay:
    return replace(row, says="open") if row.says == "explains" else row


def _says(each: Candidate, unexplained: float, tolerance: float, decides: bool) -> str:
    if not decides:
        return "open"
    floor, short = (FITTED_FLOOR, SHORT_FITTED) if each.by_fitted else (FLOOR, SHORT)
    if unexplained <= tolerance - FLOOR + floor:
        return "explains"
    # noise in the change before passes for a lower momentum: only rests that echo tell how much there is
    if each.noises != 2.0 and (not (each.fit.echoes > 0).all() or (each.fit.echo < -0.01 * each.fit.left).any()):
        return "open"
    return "excluded" if unexplained > max(short, 4 * tolerance) else "open"


def _row(each: Candidate, noise: np.ndarray, tolerance: float, decides: bool) -> Replay:
    fit = each.fit
    left = np.maximum(fit.left - each.noises * noise * fit.count, 0.0)
    energy = fit.energy - 2 * noise * fit.count
    clear = energy > 0.02 * fit.energy
    # a projection that never changes, as one that is held, or whose changes are all noise speaks for no rule
    judged = clear & (fit.energy > 0)
    shares = np.where(judged, 1 - left / np.where(judged, energy, 1.0), 1.0)
    whole = 1 - left.sum() / max(energy.sum(), 1e-300)
    sizes = fit.sizes[-1:] if each.by_fitted else fit.sizes
    sizes = sizes[np.isfinite(sizes)]
    mean = float(sizes.mean()) if len(sizes) else 0.0
    spread = 1.96 * float(sizes.std(ddof=1)) / np.sqrt(len(sizes)) if len(sizes) > 1 else 0.0
    variance = np.maximum(fit.left / fit.count, 1e-30)
    likelihood = float(-0.5 * (fit.count * (np.log(2 * np.pi * variance) + 1)).sum())
    says = _says(each, 1 - min(whole, float(shares.min())), tolerance, decides)
    return Replay(
        each.rule, float(max(whole, 0.0)), float(max(shares.min(), 0.0)), mean, float(mean - spread),
        float(mean + spread), likelihood, each.updates, says, each.detail,
    )  # fmt: skip
