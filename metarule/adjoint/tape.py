"""The tape of a step: what flowed through the chain of layers, and what each rule read of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarule.adjoint.chain import Chain, Reads, times
from metarule.adjoint.monomials import Values
from metarule.adjoint.update import Sides, Update
from metarule.credit.feedback import target_of
from metarule.signals import Batch


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


def seen(
    chain: Chain, updates: dict[str, Update], number: int, batch: Batch, weights: dict[str, Tensor], reads: Reads
) -> Step:
    """The tape of a step before anything moves."""
    network = chain.network
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
        values = _taught(chain, name, step) if name in chain.taught else _read(chain, name, read, step, weights)
        step.sides[name] = updates[name].sides(values, weights[name])
        step.values[name] = values
        if name in chain.place:
            _held_once(chain, chain.place[name], step, values)
    feedbacks[0] = None  # no more than the input's error was made of it
    return step


def _held_once(chain: Chain, place: int, step: Step, values: Values) -> None:
    """Rates and errors as parts of what the rule reads, which is on the tape in any case."""
    step.rates[place + 1] = values.get("post", step.rates[place + 1])
    if "error" in values:
        step.errors[place + 1] = values["error"]
    if "pre" in values:
        step.pres[place] = values["pre"]
    if place == 0:
        step.rates[0] = chain.units(0, step.pres[0])
        if "pre_error" in values:
            step.errors[0] = chain.units(0, values["pre_error"])


def _taught(chain: Chain, name: str, step: Step) -> Values:
    """The factors at feedback weights: seen from there, the lower rate is both post and the error."""
    place = chain.taught[name]
    post, error = step.rates[place], step.errors[place + 1]
    assert error is not None
    return {"pre": error, "post": post, "error": post, "total_post": post.sum(-1, keepdim=True)}


def _read(chain: Chain, name: str, read: frozenset[str], step: Step, weights: dict[str, Tensor]) -> Values:
    """The factors that a forward projection's rule reads, and those that they are made of."""
    place = chain.place[name]
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
