"""The adjoint in eager torch: all runs of a walk in lockstep, every step back written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from metarule.adjoint.pulled import Walker, pulled
from metarule.adjoint.update import Update, Values
from metarule.adjoint.walk import Cotangents, Walk, listed, plain, rate, served
from metarule.block import Block, BlockOutcome
from metarule.credit.feedback import feedback_name, target_of
from metarule.signals import Batch, State
from metarule.terms import glorot

NAME = "adjoint"

BENDS: dict[str, Callable[[Tensor, float], Tensor] | None] = {
    "linear": None,
    "relu": None,
    "sigmoid": lambda h, beta: beta * (1 - 2 * h),
    "softplus": lambda h, beta: beta * torch.exp(-beta * h),
    "tanh": lambda h, beta: -2 * h,
}
"""How the slope of a nonlinearity changes with the rate; None: not at all."""


def run_adjoint(block: Block) -> BlockOutcome:
    """Train, score and differentiate one block of runs."""
    return pulled(block, Walker(Eager, Eager.numbers))._replace(engine=NAME)


class Step(NamedTuple):
    """The tape of one step: activities and errors by population, reconstructions by projection, None where not needed.

    `weights` and `velocities` before the step by name, where they are kept; `after` are the velocities after it.
    """

    number: int
    rates: list[Tensor]
    feedbacks: list[Tensor | None]
    reconstructions: list[Tensor | None]
    drives: list[Tensor | None]
    weights: dict[str, Tensor]
    velocities: dict[str, Tensor]
    after: dict[str, Tensor]


class Reads(NamedTuple):
    """What the projections that are stepped read: factors by name, and at which populations that takes an error."""

    factors: dict[str, frozenset[str]]
    errors: tuple[bool, ...]


class Eager(Walk):
    """Populations and projections of the chain are numbered from the input, 0."""

    def __init__(self, world, columns):
        super().__init__(world, columns)
        learner = world.learner
        self.network, self.crossing = learner.network, learner.credit.crossing
        self.chain = learner.network.projections
        self.top = len(self.chain)
        self.names = [p.name for p in self.chain]
        self.populations = [p.name for p in learner.network.populations]
        self.served = served(learner)
        self.updates = {
            name: Update(listed(learner, p, columns), rate(learner, p, columns), plain(learner, p))
            for name, p in self.served.items()
        }
        self.terms = {name: listed(learner, p, columns).terms for name, p in self.served.items()}
        self.taught = [feedback_name(p) if feedback_name(p) in self.served else None for p in self.chain]
        self.schedule: dict[frozenset[str], Reads] = {}

    @staticmethod
    def numbers(learner, batch):
        sizes = tuple(learner.network.sizes.values())
        # rates, feedbacks and reconstructions
        return batch * 3 * sum(sizes)

    def there(self, state, steps, keep_weights):
        weights = dict(state["weights"])
        velocities = {name: state["synapses"][name].get("velocity") for name in self.served}
        tape = []
        for number in steps:
            batch = self.world.episode.train(number)
            multipliers, reads = self._reading(number)
            seen = self._seen(number, batch, weights, reads)
            kept = {name: weights[name] for name in self.served} if keep_weights else {}
            moved = {name: each for name, each in velocities.items() if each is not None}
            errors = self._errors(seen)
            for name in reads.factors:
                update = self.updates[name]
                sides = update.sides(self._values(name, seen, errors, reads), weights[name], multipliers[name])
                weights[name], velocities[name] = update.there(
                    weights[name], velocities[name], sides, multipliers[name], in_place=not keep_weights
                )
            after = {name: each for name, each in velocities.items() if each is not None}
            tape.append(seen._replace(weights=kept, velocities=moved, after=after) if keep_weights else seen)
        return self._state(state, weights, velocities), tape

    def back(self, state, tape, after):
        weights = dict(state["weights"])
        sums = {
            name: update.start(after.weights[name], after.velocities.get(name)) for name, update in self.updates.items()
        }
        velocities = {name: state["synapses"][name].get("velocity") for name in self.served}
        while tape:
            step = tape.pop()
            weights |= step.weights
            velocities |= step.velocities
            self._back(step, weights, sums)
        ended = {name: update.ended(sums[name]) for name, update in self.updates.items()}
        return self._state(state, weights, velocities), Cotangents(
            {name: each.weight for name, each in sums.items()},
            {name: each.velocity for name, each in sums.items() if each.velocity is not None},
            {name: after.coefficients[name] + found for name, (found, _) in ended.items()},
            {name: after.rates[name] + found for name, (_, found) in ended.items()},
        )

    def _state(self, state: State, weights: dict[str, Tensor], velocities: dict[str, Tensor | None]) -> State:
        synapses = dict(state["synapses"])
        for name, velocity in velocities.items():
            if velocity is not None:
                synapses[name] = {**synapses[name], "velocity": velocity}
        return {**state, "weights": weights, "synapses": synapses}

    def _reading(self, number: int) -> tuple[dict[str, float], Reads]:
        """The schedule's multipliers of a step, and what is read at it."""
        multipliers = self.world.learner.rates(number, self.world.frozen)
        moved = frozenset(name for name in self.served if multipliers[name] != 0.0)
        if moved not in self.schedule:
            factors = {
                name: frozenset().union(*(term.factors for term in self.terms[name]))
                for name in self.served
                if name in moved
            }
            self.schedule[moved] = Reads(factors, self._errors_read(factors))
        return multipliers, self.schedule[moved]

    def _errors_read(self, factors: dict[str, frozenset[str]]) -> tuple[bool, ...]:
        """At which populations anybody reads an error, or one that is made of it further down."""
        if self.crossing == "nothing":
            return (False,) * (self.top + 1)
        found: list[bool] = []
        for place in range(self.top + 1):
            above = factors.get(self.names[place], frozenset()) if place < self.top else frozenset()
            below = factors.get(self.names[place - 1], frozenset()) if place else frozenset()
            read = bool(above & {"pre_error", "agreement"} or below & {"error", "feedback", "match"})
            read |= place > 0 and self.taught[place - 1] in factors
            passed = any(found) if self.crossing == "direct" and place == self.top else bool(found) and found[-1]
            found.append(read or (passed and (self.crossing != "direct" or place == self.top)))
        return tuple(found)

    def _seen(self, number: int, batch: Batch, weights: dict[str, Tensor], reads: Reads) -> Step:
        """What is on the tape of a step before anything moves."""
        network = self.network
        rates, drives = [batch.x], []
        for place, projection in enumerate(self.chain):
            drive = torch.bmm(self._always_on(place, rates[-1], 1.0), weights[projection.name].mT)
            rates.append(network.rate(projection.target, drive))
            drives.append(drive if "match" in reads.factors.get(projection.name, ()) else None)
        feedbacks: list[Tensor | None] = [None] * (self.top + 1)
        error = top = None
        if self.crossing != "nothing":
            error = top = feedbacks[-1] = target_of(batch) - rates[-1]
        for place in reversed(range(self.top)):
            if not reads.errors[place]:
                continue
            assert error is not None
            assert top is not None
            sent = torch.bmm(top if self.crossing == "direct" else error, self._matrix(place, weights))
            feedbacks[place] = sent
            error = self._gained(place, sent, rates)
        reconstructions = [
            torch.bmm(rates[place + 1], weights[name])
            if reads.factors.get(name, frozenset()) & {"reconstruction", "agreement"}
            else None
            for place, name in enumerate(self.names)
        ]
        return Step(number, rates, feedbacks, reconstructions, drives, {}, {}, {})

    def _always_on(self, place: int, values: Tensor, always: float) -> Tensor:
        """Values at the source of a projection, and of the unit that is always on where it has a bias."""
        return functional.pad(values, (0, 1), value=always) if self.chain[place].bias else values

    def _units(self, place: int, values: Tensor) -> Tensor:
        return values[..., :-1] if self.chain[place].bias else values

    def _matrix(self, place: int, weights: dict[str, Tensor]) -> Tensor:
        """What errors cross a projection by, (R I J), I of the population that sends."""
        projection = self.chain[place]
        if self.crossing == "direct":
            return weights[f"{self.network.output_name}=>{projection.source}"].mT
        if self.crossing in ("own", "own_taught"):
            return weights[feedback_name(projection)].mT
        weight = self._units(place, weights[projection.name])
        if self.crossing == "transposed":
            return weight
        if self.crossing == "signs":
            return torch.sign(weight) * glorot(*weight.shape[1:])
        return torch.sign(weight) * weights[feedback_name(projection)].mT.abs()

    def _gain(self, place: int, rates: list[Tensor]) -> Tensor | None:
        """The slope at a population; None where it is 1."""
        if place == self.top or self.network.activations[self.populations[place]] == "linear":
            return None
        return self.network.gain(self.populations[place], {self.populations[place]: rates[place]})

    def _gained(self, place: int, values: Tensor, rates: list[Tensor]) -> Tensor:
        gain = self._gain(place, rates)
        return values if gain is None else values * gain

    def _errors(self, step: Step) -> list[Tensor | None]:
        return [
            None if feedback is None else self._gained(place, feedback, step.rates)
            for place, feedback in enumerate(step.feedbacks)
        ]

    def _values(self, name: str, step: Step, errors: list[Tensor | None], reads: Reads) -> Values:
        """The factors that a projection's rule reads."""
        read = reads.factors[name]
        if name not in self.names:
            place = self.taught.index(name)
            post = step.rates[place]
            error = errors[place + 1]
            found = {"pre": error, "post": post, "error": post}
            if "total_post" in read:
                found["total_post"] = post.sum(-1, keepdim=True)
            return {factor: value for factor, value in found.items() if factor in read and value is not None}
        place = self.names.index(name)
        post, error = step.rates[place + 1], errors[place + 1]
        made: dict[str, Callable[[], Tensor | None]] = {
            "post": lambda: post,
            "error": lambda: error,
            "feedback": lambda: step.feedbacks[place + 1],
            "gain": lambda: self._gained(place + 1, torch.ones_like(post), step.rates),
            "total_post": lambda: post.sum(-1, keepdim=True),
            "pre": lambda: self._always_on(place, step.rates[place], 1.0),
            "reconstruction": lambda: step.reconstructions[place],
        }
        values = {factor: value for factor in read if factor in made and (value := made[factor]()) is not None}
        if read & {"pre_error", "agreement"}:
            below = errors[place]
            assert below is not None
            values["pre_error"] = self._always_on(place, below, 0.0)
        if "agreement" in read:
            reconstruction = step.reconstructions[place]
            assert reconstruction is not None
            values["reconstruction"] = reconstruction
            values["agreement"] = (values["pre_error"] * reconstruction).sum(-1, keepdim=True)
        if "match" in read:
            drive = step.drives[place]
            assert error is not None
            assert drive is not None
            values["error"] = error
            values["match"] = (error * drive).sum(-1, keepdim=True)
        return values

    def _back(self, step: Step, weights: dict[str, Tensor], sums: dict) -> None:
        """One step back: `sums` from after it to before it, and the weights too where they have to be rebuilt."""
        multipliers, reads = self._reading(step.number)
        errors = self._errors(step)
        rate_: list[Tensor | None] = [None] * (self.top + 1)  # cotangents by population
        error_, feedback_, drive_ = list(rate_), list(rate_), list(rate_)
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.served}
        for name in reads.factors:
            update, multiplier = self.updates[name], multipliers[name]
            values = self._values(name, step, errors, reads)
            sides = update.sides(values, weights[name], multiplier)
            velocities = None
            if name in step.velocities:
                velocities = step.velocities[name], step.after[name]
            if not step.weights:
                update.rebuilt(weights[name], sides, multiplier)
            found = update.back(sums[name], sides, values, weights[name], velocities, multiplier)
            if name in self.names:
                self._to_signals(name, found, values, step, weights, pairs, rate_, error_, feedback_, drive_)
            else:
                place = self.taught.index(name)
                _add(error_, place + 1, found.get("pre"))
                for factor in ("post", "error"):
                    _add(rate_, place, found.get(factor))
                if "total_post" in found:
                    _add(rate_, place, found["total_post"].expand_as(step.rates[place]))
        self._errors_back(step, weights, errors, pairs, rate_, error_, feedback_)
        self._activities_back(step, weights, pairs, rate_, drive_)
        for name, stacked in pairs.items():
            if stacked:
                left, right = (_joined(side) for side in zip(*stacked, strict=True))
                sums[name].weight.baddbmm_(left.mT, right)

    def _to_signals(self, name, found, values, step, weights, pairs, rate_, error_, feedback_, drive_) -> None:
        """From the cotangents of a forward projection's factors to those of activities and errors."""
        place = self.names.index(name)
        if "match" in found:
            error, drive = values["error"], step.drives[place]
            _add(error_, place + 1, drive * found["match"])
            _add(drive_, place + 1, error * found["match"])
        back = found.get("reconstruction")
        if "agreement" in found:
            more = values["pre_error"] * found["agreement"]
            back = more if back is None else back + more
            _add(error_, place, self._units(place, values["reconstruction"] * found["agreement"]))
        if back is not None:
            _add(rate_, place + 1, torch.bmm(back, weights[name].mT))
            pairs[name].append((step.rates[place + 1], back))
        _add(rate_, place + 1, found.get("post"))
        if "total_post" in found:
            _add(rate_, place + 1, found["total_post"].expand_as(step.rates[place + 1]))
        _add(error_, place + 1, found.get("error"))
        _add(feedback_, place + 1, found.get("feedback"))
        if "gain" in found:
            _add(rate_, place + 1, self._bent(place + 1, found["gain"], step.rates))
        if place and "pre" in found:
            _add(rate_, place, self._units(place, found["pre"]))
        if "pre_error" in found:
            _add(error_, place, self._units(place, found["pre_error"]))

    def _bent(self, place: int, gain: Tensor, rates: list[Tensor]) -> Tensor | None:
        """The cotangent of the rates from that of their slope; None where it is 0."""
        bend = None if place in (0, self.top) else BENDS[self.network.activations[self.populations[place]]]
        return None if bend is None else gain * bend(rates[place], self.network.beta)

    def _errors_back(self, step, weights, errors, pairs, rate_, error_, feedback_) -> None:
        """From the errors, bottom to top, to activities, and to the weights that they came by."""
        for place in range(self.top):
            feedback, error = step.feedbacks[place], error_[place]
            if feedback is None:
                continue
            back = feedback_[place]
            if error is not None:
                _add(rate_, place, self._bent(place, error * feedback, step.rates))
                gained = self._gained(place, error, step.rates)
                back = gained if back is None else back + gained
            if back is None:
                continue
            sender = self.top if self.crossing == "direct" else place + 1
            _add(error_, sender, torch.bmm(back, self._matrix(place, weights).mT))
            if self.crossing == "transposed" and self.names[place] in self.served:
                pairs[self.names[place]].append((errors[place + 1], self._always_on(place, back, 0.0)))
            if self.taught[place] is not None:
                pairs[self.taught[place]].append((back, errors[place + 1]))
        _add(error_, self.top, feedback_[self.top])
        top = error_[self.top]
        if top is not None:
            _add(rate_, self.top, -top)

    def _activities_back(self, step, weights, pairs, rate_, drive_) -> None:
        """From the activities, top to bottom, to the weights that they came by."""
        for place in reversed(range(self.top)):
            slope = self._drive(place + 1, rate_[place + 1], step.rates)
            slope = (
                drive_[place + 1]
                if slope is None
                else slope
                if drive_[place + 1] is None
                else slope + drive_[place + 1]
            )
            if slope is None:
                continue
            name = self.names[place]
            if name in self.served:
                pairs[name].append((slope, self._always_on(place, step.rates[place], 1.0)))
            if place:
                _add(rate_, place, self._units(place, torch.bmm(slope, weights[name])))

    def _drive(self, place: int, back: Tensor | None, rates: list[Tensor]) -> Tensor | None:
        """The cotangent of a population's drive from that of its rates."""
        if back is None:
            return None
        rate = rates[place]
        if place < self.top:
            return self._gained(place, back, rates)
        if self.network.output == "softmax":
            return rate * (back - (back * rate).sum(-1, keepdim=True))
        return back * rate * (1 - rate) if self.network.output == "sigmoid" else back


def _add(cotangents: list[Tensor | None], place: int, more: Tensor | None) -> None:
    if more is not None:
        held = cotangents[place]
        cotangents[place] = more if held is None else held + more


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
