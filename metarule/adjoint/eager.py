"""The adjoint in eager torch: all runs of a walk in lockstep, every step back written by hand."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metarule.adjoint.chain import Chain, Reads
from metarule.adjoint.parts import Walker
from metarule.adjoint.pulled import pulled
from metarule.adjoint.returning import Pairs, Returned, activities_back, errors_back, joined, read_back, taught_back
from metarule.adjoint.tape import Step, seen
from metarule.adjoint.update import Sums, Update
from metarule.adjoint.walk import Cotangents, Walk
from metarule.block import Block, BlockOutcome
from metarule.fused.learners import listed, plain, rate, served
from metarule.fused.tables import tabled
from metarule.learner import always_one
from metarule.signals import State

NAME = "adjoint"


def run_adjoint(block: Block) -> BlockOutcome:
    """Train, score and differentiate one block of runs."""
    return pulled(block, WALKER)._replace(engine=NAME)


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
            step = seen(self.chain, self.updates, number, self.world.episode.train(number), weights, reads)
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

    def _back(self, step: Step, weights: dict[str, Tensor], sums: dict[str, Sums]) -> None:
        """One step back: `sums` from after it to before it, and the weights too where they are not on the tape."""
        multipliers, reads = self._reading(step.number)
        signals = Returned(self.chain.top + 1)
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
                taught_back(self.chain, name, found, step, signals)
            else:
                read_back(self.chain, name, found, step, signals, weights, pairs)
        signals.gains[1:] = [self.chain.gain(place, step.rates[place]) for place in range(1, self.chain.top + 1)]
        errors_back(self.chain, step, signals, weights, pairs)
        activities_back(self.chain, step, signals, weights, pairs)
        for name, stacked in pairs.items():
            if stacked:
                left, right = (joined(side) for side in zip(*stacked, strict=True))
                sums[name].weight.baddbmm_(left.transpose(1, 2), right)


def _moved(state: State, weights: dict[str, Tensor], velocities: dict[str, Tensor | None]) -> State:
    synapses = dict(state["synapses"])
    for name, velocity in velocities.items():
        if velocity is not None:
            synapses[name] = {**synapses[name], "velocity": velocity}
    return {**state, "weights": weights, "synapses": synapses}


WALKER = Walker(Eager, Eager.numbers)
