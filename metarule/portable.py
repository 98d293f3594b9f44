"""Portable: how a learner learns, apart from any network: its parts, and the numbers found for them."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from metarule.acceptance import TRIALS, host_network
from metarule.comparing import folder_of, found_by
from metarule.credit import CreditAssignment
from metarule.jobs import recorded, resumed
from metarule.learner import Learner
from metarule.network import Network, Population, Projection
from metarule.plugins import load_plugin, plug
from metarule.records import RunError
from metarule.rules import Rule
from metarule.spec import Search
from metarule.synapses import SynapseModel
from metarule.zoo import ZOO

SCHEMA = "metarule learner 1"
"""What the first key of an exported learner says."""

MARK = "_found_with"
"""Where a part of a run keeps what it was found with; a copy has it, so the part itself stays as it was made."""

Part = TypeVar("Part", bound=Any)


@dataclass(frozen=True, eq=False)
class Portable:
    """Credit assignment, rules and synapse models by key, and their `numbers` by the names of `Learner.all_params`.

    `network` is where it was found, or proven; `path` a run's folder, None for a row of the zoo; `document` what a file
    that it was read back from says of it: where it is `from`, its `provenance`.
    """

    name: str
    credit: CreditAssignment
    rules: Mapping[str, Rule]
    synapses: Mapping[str, SynapseModel]
    numbers: Mapping[str, float]
    network: Network
    source: str = ""
    summary: str = ""
    path: Path | None = None
    plugins: tuple[str, ...] = ()
    document: Mapping[str, Any] | None = None

    @property
    def portable(self) -> Portable:
        """Itself: it may stand where a run may."""
        return self

    @functools.cached_property
    def learner(self) -> Learner:
        """The learner on the network where it was found."""
        return self.on(self.network)

    def on(self, network: Network) -> Learner:
        """The learner on a network with the same numbers, none of them free.

        Raises ValueError where a part does not fit there, or needs a number that was never found.
        """
        bare = Learner(network, self.credit, self.rules, self.synapses)
        names = {param.name for param in bare.all_params}
        made = replace(bare, fixed={name: value for name, value in self.numbers.items() if name in names})
        if made.params:
            missing = ", ".join(param.name for param in made.params)
            raise ValueError(f"'{self.name}' has no value for {missing}, which this network needs")
        return made


class Taught(Protocol):
    """Anything that knows how it learns, as `mr.Run` does."""

    @property
    def portable(self) -> Portable:
        """Its parts and their numbers."""
        ...


def portable(known: str | Path | Taught) -> Portable:
    """A row of the zoo with its numbers, what a run found, or what was exported to a .json file.

    Raises ValueError where it is none of these.
    """
    if not isinstance(known, str | Path):
        if not hasattr(known, "portable"):
            raise ValueError(
                f"{known!r} is nothing that learns: give a row of the zoo, a run or its folder, or an exported .json"
            )
        return known.portable
    name = str(known)
    if name.endswith(".json"):
        return rebuilt(Path(name))
    if name not in ZOO:
        folder = folder_of(name)
        search, values = found_by(folder, resumed(folder, recorded(folder)))
        return taken(search, values, folder.path)
    row = ZOO[name]
    network = host_network(row, TRIALS["digits"])
    numbers = {param.name: param.start for param in row.searchable(network).params}
    return Portable(name, row.credit, row.rules, row.synapses, numbers, network, row.source, row.summary)


def taken(search: Search, values: Mapping[str, float], path: Path) -> Portable:
    """What a run found, from the search of this structure and the numbers of theta by name.

    Raises RunError where it found no rule.
    """
    if search.model is not None:
        raise RunError(f"{path} trained a [model] by descent and has no rule to take along")
    learner = search.learner
    numbers = {**learner.fixed, **values}
    return Portable(
        str(path), learner.credit, learner.rules, learner.synapses, numbers, learner.network, path=path,
        plugins=search.plugins,
    )  # fmt: skip


def carrying(part: Part, whole: Portable) -> Part:
    """A copy of a rule or a credit assignment that knows what it was found with; equal to the part in all else."""
    copied = copy.copy(part)
    object.__setattr__(copied, MARK, whole)
    return copied


def carried(part: object) -> Portable | None:
    """What a part was found with; None for one that was made by hand."""
    return vars(part).get(MARK)


def rebuilt(file: Path) -> Portable:
    """What `metarule export --to json` wrote; the files of Python that it names as its plug-ins are imported.

    Raises ValueError where a file is not that.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no JSON that could be read: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{file} is not a learner that metarule export --to json wrote (schema '{SCHEMA}')")
    try:
        return _read(found)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {error}); export it again") from error


def _read(found: dict[str, Any]) -> Portable:
    """The learner of a document."""
    for plugin in found["plugins"]:
        load_plugin(plugin)
    network = found["network"]
    shapes = [tuple(each["shape"]) if each["shape"] else None for each in network["projections"]]
    parts = {
        "populations": tuple(Population(**each) for each in network["populations"]),
        "projections": tuple(
            Projection(**{**each, "shape": shape}) for each, shape in zip(network["projections"], shapes, strict=True)
        ),
    }
    return Portable(
        found["name"],
        plug("credit", found["credit"]),
        {key: plug("rule", table, f"rules.{key}") for key, table in found["rules"].items()},
        {key: plug("synapse", table, f"synapses.{key}") for key, table in found["synapses"].items()},
        {name: float(value) for name, value in found["numbers"].items()},
        Network(**{**network, **parts}),
        found["source"],
        found["summary"],
        plugins=tuple(found["plugins"]),
        document={"from": [str(sentence) for sentence in found["from"]], "provenance": found["provenance"]},
    )
