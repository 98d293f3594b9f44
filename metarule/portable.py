"""Portable: how a learner learns, apart from any network: its parts, and the numbers found for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from metarule.acceptance import TRIALS, host_network
from metarule.comparing import folder_of, found_by
from metarule.credit import CreditAssignment
from metarule.jobs import recorded, resumed
from metarule.learner import Learner, always_one
from metarule.network import Network
from metarule.records import RunError
from metarule.rules import Rule
from metarule.synapses import SynapseModel
from metarule.zoo import ZOO

MARK = "_found_with"
"""Where a part of a run keeps what it was found with; a copy has it, so the part itself stays as it was made."""

Part = TypeVar("Part", bound=Any)


@dataclass(frozen=True, eq=False)
class Portable:
    """Credit assignment, rules and synapse models by key, and their `numbers` by the names of `Learner.all_params`.

    `network` is where it was found, or proven; `path` a run's folder, None for a row of the zoo.
    """

    name: str
    credit: CreditAssignment
    rules: Mapping[str, Rule]
    synapses: Mapping[str, SynapseModel]
    numbers: Mapping[str, float]
    network: Network
    source: str = ""
    path: Path | None = None
    plugins: tuple[str, ...] = field(default=())

    @property
    def home(self) -> Learner:
        """The learner on the network where it was found."""
        return self.learner(self.network)

    def learner(self, network: Network, schedule: Callable[[int], Mapping[str, float]] = always_one) -> Learner:
        """The learner on another network with the same numbers, none of them free.

        Raises ValueError where a part does not fit there, or needs a number that was never found.
        """
        bare = Learner(network, self.credit, self.rules, self.synapses, schedule)
        names = {param.name for param in bare.all_params}
        made = replace(bare, fixed={name: value for name, value in self.numbers.items() if name in names})
        if made.params:
            missing = ", ".join(param.name for param in made.params)
            raise ValueError(f"'{self.name}' has no value for {missing}, which this network needs")
        return made


def portable(name: str) -> Portable:
    """A row of the zoo with its numbers, or what a run found; raises ValueError where the name is neither."""
    if name not in ZOO:
        folder = folder_of(name)
        search, values = found_by(folder, resumed(folder, recorded(folder)))
        if search.model is not None:
            raise RunError(f"{folder.path} trained a [model] by descent and has no rule to take along")
        return taken(search.learner, values, folder.path, search.plugins)
    row = ZOO[name]
    network = host_network(row, TRIALS["digits"])
    numbers = {param.name: param.start for param in row.searchable(network).params}
    return Portable(name, row.credit, row.rules, row.synapses, numbers, network, row.source)


def taken(learner: Learner, values: Mapping[str, float], path: Path, plugins: tuple[str, ...] = ()) -> Portable:
    """What a run found, from its learner and the numbers of theta by name."""
    numbers = {**learner.fixed, **values}
    return Portable(
        str(path), learner.credit, learner.rules, learner.synapses, numbers, learner.network, path=path, plugins=plugins
    )


def carrying(part: Part, whole: Portable) -> Part:
    """A copy of a rule or a credit assignment that knows what it was found with; equal to the part in all else."""
    copied = copy.copy(part)
    object.__setattr__(copied, MARK, whole)
    return copied


def carried(part: object) -> Portable | None:
    """What a part was found with; None for one that was made by hand."""
    return vars(part).get(MARK)
