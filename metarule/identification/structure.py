"""The network that a recording's edges describe: its populations, their sizes, and the order in which they act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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


def structure(weights: Mapping[str, np.ndarray]) -> tuple[Structure | None, list[str]]:
    """The network of edges whose weights are (T, I, J) each, or None and everything that keeps them from being one."""
    found = [
        f"/weights/{edge} does not say which way it runs; name it 'pre->post' with one arrow"
        for edge in weights
        if ends(edge) is None
    ]
    if found or not weights:
        return None, found or ["/weights is empty; name each edge 'pre->post', as in weights/input->hidden1"]
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
