"""What a rule does, as a row of numbers: two rows of theta that act the same on probe signals are the same rule."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.learner import Learner
from metarule.rng import Noise, noise_for
from metarule.rules import Rule
from metarule.signals import SIGNALS, Signals
from metarule.symbolic import Values
from metarule.terms import FACTORS

SIZE_OUT, SIZE_IN, EVENTS = 3, 4, 2
STEPS = 5
"""Changes in a row: a memory shows from the second on, the last of four that feed each other at the fifth."""

DIGITS = 9
"""What is smaller than this many digits of a rule's largest change is rounding."""


def fingerprint(learner: Learner, theta: Float[Tensor, "C P"], values: Values | None = None) -> Float[Tensor, "C F"]:
    """The changes of all rules on fixed probe signals, rounded, and what else theta says of credit and synapses.

    `values` is what is known of a task's signals: rules that differ elsewhere only have one fingerprint. A change
    that is not finite is inf.
    """
    columns = learner.columns(theta.to(torch.float64))
    parts = [columns.credit, *(columns.synapses[key] for key in sorted(columns.synapses))]
    for key in sorted(learner.rules):
        parts.append(rounded(responses(learner.rules[key], columns.rules[key], values or {})))
    return torch.cat(parts, dim=1)


def responses(rule: Rule, theta: Float[Tensor, "C p"], values: Values) -> Float[Tensor, "C F"]:
    """The changes of one rule on `STEPS` sets of probe signals, one after the other, the state carried on."""
    try:
        return _responses(rule, theta, values, EVENTS)
    except ValueError:  # a rule that remembers single events refuses more than one
        return _responses(rule, theta, values, 1)


def _responses(rule: Rule, theta: Tensor, values: Values, events: int) -> Tensor:
    noise = noise_for([("fingerprint",)] * len(theta), theta.dtype)
    found, state = [], None
    with torch.no_grad():
        for step in range(STEPS):
            signals = probe_signals(rule.reads, noise.at(step), (events, SIZE_OUT, SIZE_IN), values)
            state = rule.init(theta, signals.weight) if state is None else state
            change, state = rule.delta(theta, signals, state, noise.at("rule", step))
            found.append(change.tensor(signals.weight).flatten(1))
    return torch.cat(found, dim=1)


def probe_signals(names: Iterable[str], noise: Noise, sizes: tuple[int, int, int], values: Values) -> Signals:
    """Random signals, `names` and the weight: standard normal, or one of their few `values`; sizes are (B, I, J)."""
    events, size_out, size_in = sizes
    shapes = {
        "post": (events, size_out),
        "pre": (events, size_in),
        "event": (events, 1),
        "synapse": (size_out, size_in),
    }
    given = {}
    for name in SIGNALS:
        if name in {*names, "weight"}:
            shape, stream = shapes[FACTORS[name].side], noise.at(name)
            if name in values:
                few = torch.tensor(tuple(values[name]), dtype=noise.dtype)
                given[name] = few[stream.integers(len(few), *shape)]
            else:
                given[name] = stream.normal(*shape)
    return Signals(**given)


def rounded(rows: Float[Tensor, "C F"]) -> Float[Tensor, "C F"]:
    """Rows to `DIGITS` digits of their largest number; what is not finite is inf, zeros have no sign."""
    finite = torch.isfinite(rows)
    largest = torch.where(finite, rows, 0.0).abs().amax(1, keepdim=True)
    unit = 10.0 ** (torch.log10(largest.clamp(min=torch.finfo(rows.dtype).tiny)).floor() - DIGITS)
    unit = unit.clamp(min=torch.finfo(rows.dtype).tiny)
    return torch.where(finite, (rows / unit).round() * unit + 0.0, torch.inf)
