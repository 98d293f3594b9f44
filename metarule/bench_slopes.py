"""Ways to a meta-gradient, d loss / d theta of coefficients that all runs of a cell share, averaged over runs.

`reverse` is autograd through every step, `segments` the same with states stored a root of T apart, `forward` a pass per
coefficient; other names are the engines that go back by hand; `differences` needs losses only, two candidates per
coefficient, from the fused engine where there is one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule import tree
from metarule.bench_work import Setting
from metarule.inner import ENGINES, Fastest, Fused, Inner, Reference, in_turn
from metarule.outer.descent import Descent
from metarule.outer.estimators import Differences
from metarule.rng import noise_for

GRADIENT = frozenset({"loss", "grad"})
REVERSE, DIFFERENCES = "reverse", "differences"
RELATIVE = 0.01
"""Step of a difference, as a share of its coefficient."""


class Slope(NamedTuple):
    """A gradient, and what computed it."""

    gradient: Float[Tensor, "P"]
    ran: str


Way = Callable[[], Slope]


def ways(world: Setting) -> dict[str, Way]:
    """All ways that this machine has, ready to be walked."""
    segments = Reference(segments=round(math.sqrt(world.cell.steps)))
    engines: dict[str, tuple[Inner, frozenset[str]]] = {
        REVERSE: (Reference(), GRADIENT),
        "segments": (segments, GRADIENT),
        "forward": (Reference(), GRADIENT | {"forward"}),
    }
    for name, make in ENGINES.items():
        if name in (Reference.name, Fastest.name):
            continue
        engine = make(None, torch.float32, 1, in_turn)
        wanted = {name: GRADIENT, f"{name}, forward": GRADIENT | {"forward"}}
        engines |= {way: (engine, wants) for way, wants in wanted.items() if engine.can(world.learner, wants) is None}
    found: dict[str, Way] = {name: functools.partial(_exact, world, *asked) for name, asked in engines.items()}
    return {**found, DIFFERENCES: differences(world)}


def _exact(world: Setting, engine: Inner, wants: frozenset[str]) -> Slope:
    outcome = world.evaluated(engine, wants)
    assert outcome.grad is not None
    return Slope(outcome.grad[0], outcome.engine)


def differences(world: Setting) -> Way:
    """Central differences; the candidates' first weights are laid out beforehand."""
    centre = Descent(world.learner.params, rate=1e-6)
    estimator = Differences(RELATIVE)
    rows = estimator.rows(centre, 2 * len(centre.params), noise_for([("bench",)]), fresh=True)
    wide = world._replace(
        theta=centre.decoded(rows),
        state=tree.mapped(world.state, lambda leaf: leaf.repeat(len(rows), *[1] * (leaf.ndim - 1))),
    )
    engine = Reference() if Fused().can(world.learner) else Fused(block_runs=world.cell.runs)

    def walk() -> Slope:
        outcome = wide.evaluated(engine)
        slope = estimator.slope(centre, outcome.loss[:, :, 0].mean(1), None)
        return Slope(slope / centre.stretch, f"differences, {outcome.engine}")

    return walk
