"""The network that a recording's edges describe: its populations, their sizes, and the order in which they act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Structure(NamedTuple):
    """Population -> its number of units, in feedforward order: the first one the input, the last one the output."""

    sizes: dict[str, int]

    @property
    def input(self) -> str:
        """The population that receives nothing."""
        return next(iter(self.sizes))

    @property
    def output(self) -> str:
        """The population that sends nothing."""
        return next(reversed(self.sizes))


def ends(edge: str) -> tuple[str, str] | None:
    """The two populations of an edge 'pre->post'; None where its name is not of this form."""
    source, arrow, target = edge.partition("->")
    return (source, target) if arrow and source and target and "->" not in target else None


def structure(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> tuple[Structure | None, list[str]]:
    """The network of a recording's arrays, named by their paths, or None and everything that keeps them from being one.

    Edges "weights/pre->post" (T, I, J) describe it; where there are none, meta["populations"] names the populations in
    feedforward order and their activities (T, S, units) have the sizes.
    """
    weights = {path.removeprefix("weights/"): array for path, array in arrays.items() if path.startswith("weights/")}
    if weights:
        return of_edges(weights)
    active = {path.removeprefix("activity/"): array for path, array in arrays.items() if path.startswith("activity/")}
    if not active:
        return None, ["/weights is empty; name each edge 'pre->post', as in weights/input->hidden1, or give /activity"]
    return _of_populations(active, arrays, meta)


def _of_populations(
    active: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> tuple[Structure | None, list[str]]:
    names = meta.get("populations")
    if names is None:
        return None, ["/weights is empty; name each edge 'pre->post', or list the populations of /activity in /meta"]
    cure = "without /weights list their names in feedforward order, the input's first and the output's last"
    if not isinstance(names, (list, tuple)) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        return None, [f"/meta: populations = {names!r} does not name two or more populations; {cure}"]
    if len({*names}) < len(names):
        return None, [f"/meta: populations = {names!r} names one of them twice; {cure}"]
    widths = {name: array.shape[-1] for name, array in active.items()}
    for part, name in (("input", names[0]), ("target", names[-1])):
        if part in arrays:
            widths.setdefault(name, arrays[part].shape[-1])
    found = [
        f"/meta: populations has '{name}', of which nothing is recorded; add /activity/{name} or leave it out"
        for name in names
        if name not in widths
    ]
    return (None, found) if found else (Structure({name: widths[name] for name in names}), [])


def of_edges(weights: Mapping[str, np.ndarray]) -> tuple[Structure | None, list[str]]:
    """The network of edges whose weights are (T, I, J) each, or None and everything that keeps them from being one."""
    found = [
        f"/weights/{edge} does not say which way it runs; name it 'pre->post' with one arrow"
        for edge in weights
        if ends(edge) is None
    ]
    if found:
        return None, found
    pairs = {edge: pair for edge in weights if (pair := ends(edge))}
    sizes: dict[str, int] = {}
    for edge, (source, target) in pairs.items():
        for name, size in ((source, weights[edge].shape[2]), (target, weights[edge].shape[1])):
            if sizes.setdefault(name, size) != size:
                found.append(
                    f"/weights/{edge}: population '{name}' has {size} units here, elsewhere {sizes[name]}; "
                    "weights are (time, post, pre)"
                )
    order: list[str] = []
    while ready := [
        name
        for name in sizes
        if name not in order and all(source in order for source, target in pairs.values() if target == name)
    ]:
        order += ready
    if len(order) < len(sizes):
        rest = ", ".join(name for name in sizes if name not in order)
        return None, [*found, f"/weights: the edges form a loop through {rest}; a feedforward network is needed"]
    for many, one, side in (("receive", "input", 1), ("send", "output", 0)):
        outer = [name for name in order if all(pair[side] != name for pair in pairs.values())]
        if len(outer) > 1:
            found.append(f"/weights: {', '.join(outer)} {many} nothing; a network with one {one} is needed")
    return (None, found) if found else (Structure({name: sizes[name] for name in order}), [])
