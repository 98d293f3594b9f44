"""Nested dicts of tensors: flattened, mapped, sliced by runs and joined again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from metarule.signals import State


def leaves(state: State) -> list[Tensor]:
    """All tensors of a state, in a fixed order."""
    found: list[Tensor] = []
    for name in sorted(state):
        found += leaves(state[name]) if isinstance(state[name], dict) else [state[name]]
    return found


def rebuilt(state: State, tensors: list[Tensor]) -> State:
    """A state of the same shape with other tensors, in the order of `leaves`."""
    return _built(state, iter(tensors))


def mapped(state: State, function: Callable[[Tensor], Tensor]) -> State:
    """A state whose tensors went through `function`."""
    return {
        name: mapped(part, function) if isinstance(part, dict) else function(part)
        for name, part in sorted(state.items())
    }


def selected(state: State, runs: slice | Tensor) -> State:
    """A copy of some runs of a state, a slice or their numbers."""
    return mapped(state, lambda leaf: leaf[runs].clone())


def joined(states: list[State]) -> State:
    """Runs of several states, one after another; a single state is returned as it is."""
    if len(states) == 1:
        return states[0]
    columns = zip(*(leaves(state) for state in states), strict=True)
    return rebuilt(states[0], [torch.cat(column) for column in columns])


def _built(part: State, remaining: Iterator[Tensor]) -> State:
    # not a closure: one that calls itself would hold every tensor until the next garbage collection
    return {
        name: _built(part[name], remaining) if isinstance(part[name], dict) else next(remaining)
        for name in sorted(part)
    }
