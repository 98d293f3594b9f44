"""Banks small enough to be made in a test."""

from __future__ import annotations

import json
from typing import NamedTuple

from metarule.identification.simulation import Simulation


class SmallBank(NamedTuple):
    """A bank of a few tiny networks: the simulation file that asks for it, and the simulation that the file is."""

    text: str
    simulation: Simulation


def small_bank(*rules: str) -> SmallBank:
    """One of networks that learn the digits by `rules`."""
    text = f"""
[simulation]
rules = {json.dumps(rules)}
tasks = ["digits"]
hidden = [[8], [6, 6]]
init_scale = [1.0]
batch = [8]
taught = 5
blocks = 1
runs = 2
updates = 40
bursts = 4
probes = 4
seed = 5
"""
    return SmallBank(
        text,
        Simulation(
            rules, ("digits",), ((8,), (6, 6)), init_scale=(1.0,), batch=(8,), taught=5, blocks=1, runs=2, updates=40,
            bursts=4, probes=4, seed=5,
        ),
    )  # fmt: skip
