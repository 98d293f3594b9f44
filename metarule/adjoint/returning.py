"""A step back: from the cotangents of what rules read to those of activities, errors and weights."""

from __future__ import annotations

import torch
from torch import Tensor

from metarule.adjoint.chain import Chain, times
from metarule.adjoint.monomials import Values
from metarule.adjoint.tape import Step

Pairs = dict[str, list[tuple[Tensor, Tensor]]]
"""Projection -> left (R B I) and right (R B J) of what its weights' cotangent gains."""


class Returned:
    """Cotangents of rates, errors, feedbacks and drives by population, None where there is none yet; and gains."""

    def __init__(self, count: int) -> None:
        self.rates: list[Tensor | None] = [None] * count
        self.errors, self.feedbacks, self.drives = list(self.rates), list(self.rates), list(self.rates)
        self.gains = list(self.rates)


def taught_back(chain: Chain, name: str, found: Values, step: Step, signals: Returned) -> None:
    """From the cotangents of the factors at feedback weights to those of activities and errors."""
    place = chain.taught[name]
    _add(signals.errors, place + 1, found.get("pre"))
    for factor in ("post", "error"):
        _add(signals.rates, place, found.get(factor))
    if "total_post" in found:
        _add(signals.rates, place, found["total_post"].expand_as(step.rates[place]))


def read_back(
    chain: Chain, name: str, found: Values, step: Step, signals: Returned, weights: dict[str, Tensor], pairs: Pairs
) -> None:
    """From the cotangents of a forward projection's factors to those of activities and errors."""
    place, values = chain.place[name], step.values[name]
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


def errors_back(chain: Chain, step: Step, signals: Returned, weights: dict[str, Tensor], pairs: Pairs) -> None:
    """From the errors, bottom to top, to activities, and to the weights that they came by."""
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


def activities_back(chain: Chain, step: Step, signals: Returned, weights: dict[str, Tensor], pairs: Pairs) -> None:
    """From the activities, top to bottom, to the weights that they came by."""
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


def _add(cotangents: list[Tensor | None], place: int, more: Tensor | None) -> None:
    if more is not None:
        held = cotangents[place]
        cotangents[place] = more if held is None else held + more


def joined(parts: tuple[Tensor, ...]) -> Tensor:
    """One side of several pairs, along the events."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
