"""The adjoint in eager torch: all runs of a walk in lockstep, every step back written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metarule.adjoint.chain import Chain, Reads, times
from metarule.adjoint.pulled import Walker, pulled
from metarule.adjoint.update import Sides, Sums, Update, Values
from metarule.adjoint.walk import Cotangents, Walk, listed, plain, rate, served
from metarule.block import Block, BlockOutcome
from metarule.credit.feedback import target_of
from metarule.fused.tables import tabled
from metarule.learner import always_one
from metarule.signals import Batch, State

NAME = "adjoint"

Pairs = dict[str, list[tuple[Tensor, Tensor]]]
"""Projection -> left (R B I) and right (R B J) of what its weights' cotangent gains."""


def run_adjoint(block: Block) -> BlockOutcome:
    """Train, score and differentiate one block of runs."""
    return pulled(block, WALKER)._replace(engine=NAME)


class Step(NamedTuple):
    """The tape of one step: activities and errors by population, None where nobody reads them.

    `pres` are the rates at the source of each projection with the unit that is always on, `drives` those of its
    target. `values` and `sides` are what each rule reads, by projection. Where weights are kept, `weights` and
    `velocities` are those before the step, `after` the velocities after it.
    """

    number: int
    rates: list[Tensor]
    pres: list[Tensor]
    drives: list[Tensor | None]
    feedbacks: list[Tensor | None]
    errors: list[Tensor | None]
    values: dict[str, Values]
    sides: dict[str, list[Sides]]
    weights: dict[str, Tensor]
    velocities: dict[str, Tensor]
    after: dict[str, Tensor]


class _Signals:
    """Cotangents of rates, errors, feedbacks and drives by population, None where there is none yet; and gains."""

    def __init__(self, count: int) -> None:
        self.rates: list[Tensor | None] = [None] * count
        self.errors, self.feedbacks, self.drives = list(self.rates), list(self.rates), list(self.rates)
        self.gains = list(self.rates)


class Eager(Walk):
    """Populations and projections of the chain are numbered from the input, 0."""

    def __init__(self, world, columns):
        super().__init__(world, columns)
        learner = world.learner
        self.served = served(learner)
        rules = {name: listed(learner, p, columns) for name, p in self.served.items()}
        self.updates = {
            name: Update(rules[name], rate(learner, p, columns), plain(learner, p)) for name, p in self.served.items()
        }
        self.chain = Chain(learner, self.served, {name: rule.terms for name, rule in rules.items()})
        self.always = learner.rates(0, world.frozen) if learner.schedule is always_one else None

    @staticmethod
    def numbers(learner, batch):
        columns = learner.columns(torch.zeros(1, len(learner.params)))
        count = sum(learner.units[1:])  # feedbacks; rates and errors are among what rules read
        for projection in served(learner).values():
            size_out, size_in = learner.network.shape(projection)
            for table in tabled(listed(learner, projection, columns).terms):
                count += len(table.rows) * size_out + len(table.columns) * size_in
        return batch * count

    def there(self, state, steps, keep_weights):
        weights = dict(state["weights"])
        velocities = {name: state["synapses"][name].get("velocity") for name in self.served}
        tape = []
        for number in steps:
            multipliers, reads = self._reading(number)
            step = self._seen(number, self.world.episode.train(number), weights, reads)
            if keep_weights:
                step.weights.update((name, weights[name]) for name in self.served)
                step.velocities.update((name, each) for name, each in velocities.items() if each is not None)
            for name in reads.factors:
                weights[name], velocities[name] = self.updates[name].there(
                    weights[name], velocities[name], step.sides[name], multipliers[name], in_place=not keep_weights
                )
            if keep_weights:
                step.after.update((name, each) for name, each in velocities.items() if each is not None)
            tape.append(step)
        return _moved(state, weights, velocities), tape

    def back(self, state, tape, after):
        weights = dict(state["weights"])
        velocities = {name: state["synapses"][name].get("velocity") for name in self.served}
        sums = {
            name: update.start(after.weights[name], after.velocities.get(name)) for name, update in self.updates.items()
        }
        while tape:
            step = tape.pop()
            weights |= step.weights
            velocities |= step.velocities
            self._back(step, weights, sums)
        ended = {name: update.ended(sums[name]) for name, update in self.updates.items()}
        return _moved(state, weights, velocities), Cotangents(
            {name: each.weight for name, each in sums.items()},
            {name: each.velocity for name, each in sums.items() if each.velocity is not None},
            {name: after.coefficients[name] + found for name, (found, _) in ended.items()},
            {name: after.rates[name] + found for name, (_, found) in ended.items()},
        )

    def _reading(self, number: int) -> tuple[Mapping[str, float], Reads]:
        """The schedule's multipliers of a step, and what is read at it."""
        multipliers = self.always or self.world.learner.rates(number, self.world.frozen)
        return multipliers, self.chain.reads(frozenset(name for name in self.served if multipliers[name] != 0.0))

    def _seen(self, number: int, batch: Batch, weights: dict[str, Tensor], reads: Reads) -> Step:
        """The tape of a step before anything moves."""
        chain, network = self.chain, self.chain.network
        rates, pres, drives = [batch.x], [], []
        for place, projection in enumerate(chain.projections):
            pres.append(chain.always_on(place, rates[-1], 1.0))
            drive = torch.bmm(pres[-1], weights[projection.name].transpose(1, 2))
            rates.append(network.rate(projection.target, drive))
            drives.append(drive if "match" in reads.factors.get(projection.name, ()) else None)
        feedbacks: list[Tensor | None] = [None] * (chain.top + 1)
        errors = list(feedbacks)
        if chain.crossing != "nothing":
            feedbacks[-1] = errors[-1] = target_of(batch) - rates[-1]
        for place in reversed(range(chain.top)):
            if reads.errors[place]:
                sender = errors[-1] if chain.crossing == "direct" else errors[place + 1]
                assert sender is not None
                sent = feedbacks[place] = torch.bmm(sender, chain.matrix(place, weights))
                errors[place] = times(sent, chain.gain(place, rates[place]))
        step = Step(number, rates, pres, drives, feedbacks, errors, {}, {}, {}, {}, {})
        for name, read in reads.factors.items():
            values = self._taught(name, step) if name in chain.taught else self._read(name, read, step, weights)
            step.sides[name] = self.updates[name].sides(values, weights[name])
            step.values[name] = values
            if name in chain.place:
                self._held_once(chain.place[name], step, values)
        feedbacks[0] = None  # no more than the input's error was made of it
        return step

    def _held_once(self, place: int, step: Step, values: Values) -> None:
        """Rates and errors as parts of what the rule reads, which is on the tape in any case."""
        step.rates[place + 1] = values.get("post", step.rates[place + 1])
        if "error" in values:
            step.errors[place + 1] = values["error"]
        if "pre" in values:
            step.pres[place] = values["pre"]
        if place == 0:
            step.rates[0] = self.chain.units(0, step.pres[0])
            if "pre_error" in values:
                step.errors[0] = self.chain.units(0, values["pre_error"])

    def _taught(self, name: str, step: Step) -> Values:
        """The factors at feedback weights: seen from there, the lower rate is both post and the error."""
        place = self.chain.taught[name]
        post, error = step.rates[place], step.errors[place + 1]
        assert error is not None
        return {"pre": error, "post": post, "error": post, "total_post": post.sum(-1, keepdim=True)}

    def _read(self, name: str, read: frozenset[str], step: Step, weights: dict[str, Tensor]) -> Values:
        """The factors that a forward projection's rule reads, and those that they are made of."""
        chain, place = self.chain, self.chain.place[name]
        post, values = step.rates[place + 1], {}
        signals = {"post": post, "pre": step.pres[place], "error": step.errors[place + 1]}
        signals["feedback"] = step.feedbacks[place + 1]
        for factor, signal in signals.items():
            if factor in read or (factor == "error" and "match" in read):
                assert signal is not None
                values[factor] = signal
        if "gain" in read:
            gain = chain.gain(place + 1, post)
            values["gain"] = torch.ones_like(post) if gain is None else gain
        if "total_post" in read:
            values["total_post"] = post.sum(-1, keepdim=True)
        if read & {"pre_error", "agreement"}:
            below = step.errors[place]
            assert below is not None
            values["pre_error"] = chain.always_on(place, below, 0.0)
        if read & {"reconstruction", "agreement"}:
            values["reconstruction"] = torch.bmm(post, weights[name])
        if "agreement" in read:
            values["agreement"] = (values["pre_error"] * values["reconstruction"]).sum(-1, keepdim=True)
        if "match" in read:
            drive = step.drives[place]
            assert drive is not None
            values["match"] = (values["error"] * drive).sum(-1, keepdim=True)
        return values

    def _back(self, step: Step, weights: dict[str, Tensor], sums: dict[str, Sums]) -> None:
        """One step back: `sums` from after it to before it, and the weights too where they are not on the tape."""
        multipliers, reads = self._reading(step.number)
        signals = _Signals(self.chain.top + 1)
        pairs: Pairs = {name: [] for name in self.served}
        for name in reads.factors:
            update, sides, multiplier = self.updates[name], step.sides[name], multipliers[name]
            factors = update.factors(sides, multiplier)
            velocities = (step.velocities[name], step.after[name]) if name in step.velocities else None
            if not step.weights:
                update.rebuilt(weights[name], factors, multiplier)
            values = step.values[name]
            found = update.back(sums[name], sides, factors, values, weights[name], velocities, multiplier)
            if name in self.chain.taught:
                self._taught_back(self.chain.taught[name], found, step, signals)
            else:
                self._read_back(name, found, step, signals, weights, pairs)
        signals.gains[1:] = [self.chain.gain(place, step.rates[place]) for place in range(1, self.chain.top + 1)]
        self._errors_back(step, signals, weights, pairs)
        self._activities_back(step, signals, weights, pairs)
        for name, stacked in pairs.items():
            if stacked:
                left, right = (_joined(side) for side in zip(*stacked, strict=True))
                sums[name].weight.baddbmm_(left.transpose(1, 2), right)

    def _taught_back(self, place: int, found: Values, step: Step, signals: _Signals) -> None:
        _add(signals.errors, place + 1, found.get("pre"))
        for factor in ("post", "error"):
            _add(signals.rates, place, found.get(factor))
        if "total_post" in found:
            _add(signals.rates, place, found["total_post"].expand_as(step.rates[place]))

    def _read_back(
        self, name: str, found: Values, step: Step, signals: _Signals, weights: dict[str, Tensor], pairs: Pairs
    ) -> None:
        """From the cotangents of a forward projection's factors to those of activities and errors."""
        chain, place, values = self.chain, self.chain.place[name], step.values[name]
        post = step.rates[place + 1]
        if "match" in found:
            drive = step.drives[place]
            assert drive is not None
            _add(signals.errors, place + 1, drive * found["match"])
            _add(signals.drives, place + 1, values["error"] * found["match"])
        back = found.get("reconstruction")
        if "agreement" in found:
            more = values["pre_error"] * found["agreement"]
            back = more if back is None else back + more
            _add(signals.errors, place, chain.units(place, values["reconstruction"] * found["agreement"]))
        if back is not None:
            _add(signals.rates, place + 1, torch.bmm(back, weights[name].transpose(1, 2)))
            pairs[name].append((post, back))
        _add(signals.rates, place + 1, found.get("post"))
        if "total_post" in found:
            _add(signals.rates, place + 1, found["total_post"].expand_as(post))
        _add(signals.errors, place + 1, found.get("error"))
        _add(signals.feedbacks, place + 1, found.get("feedback"))
        if "gain" in found:
            _add(signals.rates, place + 1, chain.bent(place + 1, found["gain"], post))
        if place and "pre" in found:
            _add(signals.rates, place, chain.units(place, found["pre"]))
        if "pre_error" in found:
            _add(signals.errors, place, chain.units(place, found["pre_error"]))

    def _errors_back(self, step: Step, signals: _Signals, weights: dict[str, Tensor], pairs: Pairs) -> None:
        """From the errors, bottom to top, to activities, and to the weights that they came by."""
        chain = self.chain
        for place in range(chain.top):
            error, back = signals.errors[place], signals.feedbacks[place]
            if error is not None:
                feedback = step.feedbacks[place]
                if feedback is not None:
                    _add(signals.rates, place, chain.bent(place, error * feedback, step.rates[place]))
                gained = times(error, signals.gains[place] if place else chain.gain(0, step.rates[0]))
                back = gained if back is None else back + gained
            if back is None:
                continue
            sender = chain.top if chain.crossing == "direct" else place + 1
            _add(signals.errors, sender, torch.bmm(back, chain.matrix(place, weights).transpose(1, 2)))
            sent = step.errors[sender]
            assert sent is not None
            if chain.crossing == "transposed" and chain.names[place] in pairs:
                pairs[chain.names[place]].append((sent, chain.always_on(place, back, 0.0)))
            if chain.backs[place] in chain.taught:
                pairs[chain.backs[place]].append((back, sent))
        _add(signals.errors, chain.top, signals.feedbacks[chain.top])
        top = signals.errors[chain.top]
        if top is not None:  # target - rate
            _add(signals.rates, chain.top, -top)

    def _activities_back(self, step: Step, signals: _Signals, weights: dict[str, Tensor], pairs: Pairs) -> None:
        """From the activities, top to bottom, to the weights that they came by."""
        chain = self.chain
        for place in reversed(range(chain.top)):
            back, rate = signals.rates[place + 1], step.rates[place + 1]
            if back is not None:
                last = place + 1 == chain.top
                back = chain.output_back(back, rate) if last else times(back, signals.gains[place + 1])
                _add(signals.drives, place + 1, back)
            drive, name = signals.drives[place + 1], chain.names[place]
            if drive is None:
                continue
            if name in pairs:
                pairs[name].append((drive, step.pres[place]))
            if place:
                _add(signals.rates, place, chain.units(place, torch.bmm(drive, weights[name])))


def _moved(state: State, weights: dict[str, Tensor], velocities: dict[str, Tensor | None]) -> State:
    synapses = dict(state["synapses"])
    for name, velocity in velocities.items():
        if velocity is not None:
            synapses[name] = {**synapses[name], "velocity": velocity}
    return {**state, "weights": weights, "synapses": synapses}


def _add(cotangents: list[Tensor | None], place: int, more: Tensor | None) -> None:
    if more is not None:
        held = cotangents[place]
        cotangents[place] = more if held is None else held + more


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


WALKER = Walker(Eager, Eager.numbers)
