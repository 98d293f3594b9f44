"""What a rule sees on its own task, at the start, in the middle and at the end of a run, and what rules do then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule import tree
from metarule.block import Block, World
from metarule.inner import Reference
from metarule.inspection.nearest import Probed
from metarule.inspection.subject import Subject
from metarule.learner import ANY, Learner
from metarule.rng import Noise
from metarule.rules import Rule
from metarule.signals import SIGNALS, Signals, State

RUNS = 2
"""Episodes that are looked at, in float64."""

LONGEST = 500
"""Steps after which a run counts as ended: what a rule sees later is not looked at."""

STAGES = 4
"""Plasticity events of a batch that are looked at, the first ones."""

MOST = 60_000
"""Synapses whose changes are compared: of more, every second, third, ... one."""

LOST = 1e9
"""Size of a signal beyond which the run that it comes from has diverged."""


Rules = dict[str, Probed]
"""Plastic projection -> its rule with its numbers."""


class Moment(NamedTuple):
    """One projection at one plasticity event: what the rule there sees, and the state of the subject's own."""

    projection: str
    rule: Rule
    signals: Signals
    state: State
    noise: Noise


def references(subject: Subject) -> list[Moment]:
    """Every plastic projection of `RUNS` runs at the first, the middle and the last step of the subject's training.

    All signals are there that the credit assignment gives, whether or not the subject's rule reads them. Moments of a
    run that has diverged are left out; those of the first step are always there.
    """
    learner, batch = subject.learner, subject.conditions.batch
    last = min(subject.conditions.steps, LONGEST) - 1
    runs = subject.runs(RUNS, "references")
    engine, carry, done = Reference(dtype=torch.float64), None, 0
    found = []
    for cut in sorted({0, last // 2, last}):
        if cut > done:
            outcome = engine.evaluate(
                learner, subject.theta, subject.task, runs, range(done, cut), batch, frozenset({"loss", "carry"}),
                carry=carry,
            )  # fmt: skip
            carry, done = outcome.carry, cut
        world = World(
            Block(
                learner, subject.theta.expand(RUNS, -1), subject.task, runs.addresses, runs.seed, range(cut, cut + 1),
                batch, frozenset(), (), (cut + 1,), None, carry, torch.float64, 1,
            )
        )  # fmt: skip
        found += [each for each in _seen(world, cut) if cut == 0 or _alive(each.signals)]
    return found


def _alive(signals: Signals) -> bool:
    """Whether every signal is a number of a run that has not diverged."""
    given = [value for name in SIGNALS if (value := getattr(signals, name)) is not None]
    return all(bool((value.abs() < LOST).all()) for value in given)


def _seen(world: World, step: int) -> list[Moment]:
    learner = world.learner
    found = []
    with torch.no_grad():
        columns = learner.columns(world.block.theta)
        state, batch, noise = world.start(columns), world.episode.train(step), world.run_noise.at(step)
        wanted = {
            p.name: learner.credit.gives_at(learner.network, p)
            for p in learner.plastic
            if learner.rates(step, world.frozen)[p.name]
        }
        credit_state = state["credit"]
        for k in range(min(learner.credit.stages(learner.network, batch), STAGES)):
            signals, credit_state = learner.credit.stage(
                k, columns.credit, learner.network, state["weights"], credit_state, batch, step, noise.at("credit", k),
                wanted,
            )  # fmt: skip
            for p in learner.plastic:
                if p.name in signals and p.name in wanted:
                    rule = learner.rules[learner.rule_key(p) or ANY]
                    own = tree.mapped(state["rules"][p.name], torch.Tensor.clone)
                    found.append(Moment(p.name, rule, signals[p.name], own, noise.at("rule", p.name, k)))
    return found


def rules_of(learner: Learner, theta: Float[Tensor, "P"]) -> Rules:
    """The rule of every plastic projection with its numbers, as one row of theta says."""
    columns = learner.columns(theta[None].to(torch.float64)).rules
    keys = {p.name: learner.rule_key(p) or ANY for p in learner.plastic}
    return {name: Probed(learner.rules[key], columns[key][0]) for name, key in keys.items()}


def fits(seen: Sequence[Moment], rules: Rules) -> bool:
    """Whether there is a rule for every projection that was seen, and it reads no more than is there."""
    return all(
        each.projection in rules
        and all(getattr(each.signals, name) is not None for name in rules[each.projection].rule.reads)
        for each in seen
    )


def action(seen: Sequence[Moment], rules: Rules) -> Float[Tensor, "F"]:
    """All changes that rules induce there, before any synapse model.

    A rule that is the subject's own goes on with its memory, another one begins with none.
    """
    changes = []
    with torch.no_grad():
        for each in seen:
            rule, theta = rules[each.projection]
            rows, weight = theta[None].expand(RUNS, -1), each.signals.weight
            state = each.state if rule == each.rule else rule.init(rows, weight)
            changes.append(rule.delta(rows, each.signals, state, each.noise)[0].tensor(weight).flatten())
    whole = torch.cat(changes)
    return whole[:: max(len(whole) // MOST, 1)]
