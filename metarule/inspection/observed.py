"""Observed: the signals that a rule meets on its own task, and what it does there, one synapse and event at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.block import Block, World
from metarule.inspection.subject import Subject
from metarule.learner import Learner
from metarule.network import Projection
from metarule.programs import leaf
from metarule.rng import Noise
from metarule.rules import Rule
from metarule.signals import SIGNALS, Signals
from metarule.terms import FACTORS

EPISODES = 16
"""Runs that are looked at."""

MOMENTS = 6
"""Moments of their training, evenly spread from its start."""

EVENTS = 3
"""Events of a moment."""

SYNAPSES = 8
"""Synapses of an event and run, drawn at random."""


@dataclass(frozen=True, eq=False)
class Observed:
    """N single events at single synapses of one projection `at` of shape (I, J), run after run: factor -> (N), and the
    rule's changes (N), of a rule with a memory its first."""

    at: str
    shape: tuple[int, int]
    signals: dict[str, np.ndarray]
    change: np.ndarray

    def half(self, place: int) -> Observed:
        """Those of the first or the second half of the runs."""
        middle = len(self.change) // 2
        part = slice(middle) if place == 0 else slice(middle, None)
        return replace(self, signals={k: v[part] for k, v in self.signals.items()}, change=self.change[part])


def factors_of(rule: Rule) -> list[str]:
    """The factors that a rule may use: what it reads, and sums over units where it is not local."""
    known = {*rule.reads, "weight"}
    return [
        name
        for name, factor in FACTORS.items()
        if name in known or (not rule.local and not factor.local and set(factor.reads) <= known)
    ]


def evaluated(expression: sympy.Expr, signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """What an equation in the symbols of factors says of N synapses."""
    symbols = sorted(expression.free_symbols, key=str)
    found = sympy.lambdify(symbols, expression, "numpy")(*(signals[str(symbol)] for symbol in symbols))
    return np.broadcast_to(np.asarray(found, dtype=float), next(iter(signals.values())).shape)


def typical(learner: Learner, key: str) -> Projection | None:
    """The projection at which a rule is looked at: the first that it serves between hidden units, or at all."""
    served = [p for p in learner.plastic if learner.rule_key(p) == key]
    inner = [p for p in served if p.source != learner.network.input_name and p.target != learner.network.output_name]
    return next(iter(inner or served), None)


def observed(subject: Subject, key: str) -> Observed | None:
    """What rule `key` of a subject met and did on the task that its search saw; None where it serves no projection, or
    no run is left.

    Runs that diverged are left out. Raises ValueError where a change is not finite although its run was.
    """
    learner, conditions = subject.learner, subject.conditions
    at = typical(learner, key)
    if at is None:
        return None
    runs = subject.runs(EPISODES, "observed")
    theta = subject.theta.to(torch.float64).expand(EPISODES, -1)
    world = World(
        Block(
            learner, theta, subject.task, runs.addresses, runs.seed, range(conditions.steps), conditions.batch,
            frozenset(), (), (conditions.steps,), None, None, torch.float64, 1,
        )
    )  # fmt: skip
    rule, names = learner.rules[key], factors_of(learner.rules[key])
    rows: list[Float[Tensor, "R S K"]] = []
    with torch.no_grad():
        columns = learner.columns(theta)
        state, done = world.start(columns), 0
        for place in range(MOMENTS):
            moment = place * conditions.steps // MOMENTS
            state, done = world.advance(columns, state, range(done, moment), in_place=False, record=False), moment
            noise = world.run_noise.at("observed", place)
            batch = world.episode.train(moment)
            credit_state, seen = state["credit"], []
            for k in range(learner.credit.stages(learner.network, batch)):
                signals, credit_state = learner.credit.stage(
                    k, columns.credit, learner.network, state["weights"], credit_state, batch, moment,
                    noise.at("credit", k), learner.wanted,
                )  # fmt: skip
                if at.name in signals:
                    seen += _events(signals[at.name])
            chosen = [seen[number * len(seen) // EVENTS] for number in range(min(EVENTS, len(seen)))]
            for number, single in enumerate(chosen):
                rows.append(_sampled(rule, columns.rules[key], single, names, noise.at(number)))
    if not rows:
        return None
    table = torch.cat(rows, dim=1)
    finite = table[..., :-1].isfinite().all(dim=(1, 2)) if table.shape[1] else table.new_zeros(0, dtype=torch.bool)
    if not finite.any():
        return None
    table = table[finite].flatten(0, 1)
    if not table[:, -1].isfinite().all():
        raise ValueError(
            f"the change of rule '{key}' is not finite on the signals of its task; it has no equation there"
        )
    shape = learner.network.shape(at)
    return Observed(at.name, shape, dict(zip(names, table.T.numpy(), strict=False)), table[:, -1].numpy())


def _events(signals: Signals) -> list[Signals]:
    """The same signals event by event, a few of them."""
    given = {name: value for name in SIGNALS if (value := getattr(signals, name)) is not None}
    sides = {name: FACTORS[name].side for name in given}
    count = max((value.shape[1] for name, value in given.items() if sides[name] != "synapse"), default=1)
    few = sorted({number * count // EVENTS for number in range(EVENTS)})
    return [
        Signals(**{n: value if sides[n] == "synapse" else value[:, event : event + 1] for n, value in given.items()})
        for event in few
    ]


def _sampled(rule: Rule, theta: Tensor, signals: Signals, names: list[str], noise: Noise) -> Float[Tensor, "R S K"]:
    """Every factor and the change at some synapses drawn at random."""
    weight = signals.weight
    change = rule.delta(theta, signals, rule.init(theta, weight), noise.at("rule"))[0].tensor(weight)
    runs, size_out, size_in = weight.shape
    which = noise.at("synapses").integers(size_out * size_in, SYNAPSES)
    full = (leaf(name, signals).expand(runs, 1, size_out, size_in)[:, 0] for name in names)
    return torch.stack([value.flatten(1).gather(1, which) for value in (*full, change)], dim=2)
