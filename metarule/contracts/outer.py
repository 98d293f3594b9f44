"""The contract of an outer loop: it descends, copes with failures, and goes on bit for bit from its state."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from metarule.contracts.base import Check, has_source, require, verified
from metarule.outer import OuterLoop
from metarule.params import Param, starts
from metarule.rng import noise_for

PARAMS = (Param("a", 0.0, 1.0), Param("b", 1.0, 0.5, low=-3.0, high=3.0), Param("c", 0.5, 0.5, low=1e-3, log=True))
TARGET = (0.7, -0.4, 1.1)
CANDIDATES, EVALUATIONS = 10, 300


def check_outer(loop: OuterLoop) -> Iterator[Check]:
    """Every property of one outer loop."""
    return verified(f"outer.{loop.kind}", loop, PROPERTIES)


def proposes(loop: OuterLoop) -> None:
    """proposes rows of theta inside their bounds, float64"""
    loop = _begun(loop)
    theta = loop.ask(_candidates(loop), noise_for([("contract", 0)]))
    require(theta.dtype == torch.float64, f"ask gave {theta.dtype}")
    require(theta.dim() == 2 and theta.shape[1] == len(PARAMS), f"ask gave shape {tuple(theta.shape)}")
    for column, param in enumerate(PARAMS):
        inside = bool(((theta[:, column] >= param.low) & (theta[:, column] <= param.high)).all())
        require(inside, f"{param.name} left its bounds [{param.low}, {param.high}]")
    require(tuple(loop.best.shape) == (len(PARAMS),), f"best has shape {tuple(loop.best.shape)}")


def descends(loop: OuterLoop) -> str:
    """minimises a quadratic, some candidates failing with a loss of +inf"""
    loop = _begun(loop)
    before = float(_loss(starts(PARAMS)[None]))
    generations = EVALUATIONS // _candidates(loop)
    _generations(loop, range(generations), failing=True)
    after = float(_loss(loop.best[None]))
    require(math.isfinite(after) and after < 0.5 * before, f"the loss went from {before:.3g} to {after:.3g}")
    return f"loss {before:.3g} -> {after:.3g} in {generations} generations of {_candidates(loop)}"


def goes_on(loop: OuterLoop) -> None:
    """continues bit for bit from its state after any generation"""
    whole, first, second = _begun(loop), _begun(loop), _begun(loop)
    _generations(whole, range(6))
    _generations(first, range(3))
    second.load_state_dict(_through_disk(first.state_dict()))
    _generations(second, range(3, 6))
    require(torch.equal(whole.best, second.best), "after a restore, best differs from the uninterrupted one")
    streams = [noise_for([("contract", 6)]) for _ in range(2)]
    same = torch.equal(whole.ask(_candidates(loop), streams[0]), second.ask(_candidates(loop), streams[1]))
    require(same, "after a restore, the next candidates differ from the uninterrupted ones")


def _begun(loop: OuterLoop) -> OuterLoop:
    begun = copy.copy(loop)
    begun.start(PARAMS)
    return begun


def _candidates(loop: OuterLoop) -> int:
    """A loop that follows gradients moves one rule; the others want a population."""
    return 1 if "grad" in loop.wants else CANDIDATES


def _loss(theta: Tensor) -> Tensor:
    return (theta - torch.tensor(TARGET, dtype=theta.dtype)).square().sum(1)


def _generations(loop: OuterLoop, numbers: range, failing: bool = False) -> None:
    for number in numbers:
        theta = loop.ask(_candidates(loop), noise_for([("contract", number)]))
        loss = _loss(theta)
        grad = 2 * (theta - torch.tensor(TARGET, dtype=theta.dtype)) if "grad" in loop.wants else None
        if failing and number % 7 == 3:
            loss[0] = math.inf
            if grad is not None:
                grad[0] = math.nan
        loop.tell(theta, loss[:, None], grad)


def _through_disk(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a state: tensors as they are, all else through JSON."""

    def packed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.clone()
        if isinstance(value, dict):
            return {key: packed(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [packed(part) for part in value]
        return json.loads(json.dumps(value))

    return packed(state)


PROPERTIES = (has_source, proposes, descends, goes_on)
