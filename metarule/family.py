"""Family: learners of different structure in one population, so that structure itself can be searched."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule import tree
from metarule.collect import unknown
from metarule.fingerprint import fingerprint
from metarule.inner import Group, Inner, Outcome, Runs
from metarule.learner import Learner
from metarule.params import Param, starts
from metarule.signals import State
from metarule.tasks import Task

Structure = tuple[str, ...]
"""One choice per categorical parameter of the family."""


@dataclass(frozen=True, eq=False)
class Family:
    """One Learner per structure; a row of theta names its structure first and then fills the columns it has.

    `choices` are categorical parameters, `build` maps every combination of their choices to a learner. `params` are
    the choices and the union of all learners' parameters by name, each with `when` it counts; a name that two learners
    describe differently (another start, other bounds) becomes one column per choice that decides between them,
    'choice:name'. Without choices it is one learner, and its params are the learner's.
    Raises ValueError where a choice is not categorical or `build` does not have exactly these structures.
    """

    choices: tuple[Param, ...]
    build: Mapping[Structure, Learner]

    def __post_init__(self) -> None:
        for param in self.choices:
            if not param.choices:
                raise ValueError(f"parameter {param.name} of a family must be categorical; give its choices")
        wanted = set(self._structures)
        for structure in wanted ^ set(self.build):
            sentence = "has no learner" if structure in wanted else "is not a combination of the choices"
            raise ValueError(f"family: structure '{_label(structure)}' {sentence}")

    @functools.cached_property
    def _structures(self) -> tuple[Structure, ...]:
        found: list[Structure] = [()]
        for param in self.choices:
            found = [(*structure, choice) for structure in found for choice in param.choices]
        return tuple(found)

    @functools.cached_property
    def _columns(self) -> dict[Structure, dict[str, Param]]:
        """Structure -> column name -> its learner's parameter, in the order of the learner's own columns."""
        versions: dict[str, dict[Structure, Param]] = {}
        for structure in self._structures:
            for param in self.build[structure].params:
                versions.setdefault(param.name, {})[structure] = param
        deciding = {name: _deciding(found) for name, found in versions.items()}

        def column(structure: Structure, name: str) -> str:
            label = _label(tuple(structure[place] for place in deciding[name]))
            return f"{label}:{name}" if label else name

        found = {}
        for structure in self._structures:
            params = self.build[structure].params
            own = {param.name: column(structure, param.name) for param in params}
            found[structure] = {
                own[param.name]: replace(param, when=tuple((own.get(name, name), names) for name, names in param.when))
                for param in params
            }
        return found

    @functools.cached_property
    def params(self) -> tuple[Param, ...]:
        """What an outer loop sees: the choices, then every learner's columns."""
        having: dict[str, list[Structure]] = {}
        union: dict[str, Param] = {}
        for structure, columns in self._columns.items():
            for name, param in columns.items():
                having.setdefault(name, []).append(structure)
                union[name] = replace(param, name=name)
        return (
            *self.choices,
            *(replace(param, when=self._when(having[name]) + param.when) for name, param in union.items()),
        )

    def _when(self, structures: list[Structure]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The choices that a structure must have to be one of these."""
        allowed = [{structure[place] for structure in structures} for place in range(len(self.choices))]
        return tuple(
            (param.name, tuple(choice for choice in param.choices if choice in names))
            for param, names in zip(self.choices, allowed, strict=True)
            if len(names) < len(param.choices)
        )

    def structure(self, row: Float[Tensor, "P"]) -> Structure:
        """The structure that a row of theta names; raises ValueError where it names none."""
        structure = []
        for param, value in zip(self.choices, row.tolist(), strict=False):
            if value not in range(len(param.choices)):
                raise ValueError(f"{param.name} = {value} is not the index of one of {', '.join(param.choices)}")
            structure.append(param.choices[int(value)])
        return tuple(structure)

    def learner(self, row: Float[Tensor, "P"]) -> tuple[Learner, Float[Tensor, "p"]]:
        """The learner that a row of theta names, and the row as that learner reads it."""
        structure = self.structure(row)
        return self.build[structure], row[self._places(structure)]

    def row(self, structure: Structure, values: Mapping[str, float]) -> Float[Tensor, "P"]:
        """The row of theta that names a structure and gives its learner's parameters these values, others their start.

        Raises ValueError on a name that the structure's learner does not have.
        """
        row = starts(self.params)
        chosen = zip(self.choices, structure, strict=True)
        row[: len(self.choices)] = torch.tensor([float(param.choices.index(name)) for param, name in chosen])
        names = [param.name for param in self.build[structure].params]
        for name, value in values.items():
            if name not in names:
                raise ValueError(unknown("a parameter", name, names))
            row[self._places(structure)[names.index(name)]] = value
        return row

    def named(self, row: Float[Tensor, "P"]) -> dict[str, float | str]:
        """A row by the names of its learner's parameters, its structure first; choices by name."""
        structure = self.structure(row)
        found: dict[str, float | str] = dict(zip((param.name for param in self.choices), structure, strict=True))
        learner, own = self.learner(row)
        for param, value in zip(learner.params, own.tolist(), strict=True):
            found[param.name] = param.choices[int(value)] if param.choices else value
        return found

    def complexity(self, theta: Float[Tensor, "C P"]) -> Float[Tensor, "C"]:
        """Parts in use of every candidate's rules, by its own learner."""
        found = torch.zeros(len(theta), dtype=theta.dtype)
        for structure, places in self._members(theta).items():
            found[places] = self.build[structure].complexity(theta[places][:, self._places(structure)])
        return found

    def fingerprint(self, theta: Float[Tensor, "C P"]) -> Float[Tensor, "C F"]:
        """What every candidate's rules do, by its own learner: rows with equal ones are the same candidate."""
        found = torch.zeros(len(theta), self._print_width, dtype=torch.float64)
        for structure, places in self._members(theta).items():
            own = fingerprint(self.build[structure], theta[places][:, self._places(structure)])
            found[places, : own.shape[1]] = own
        return torch.cat((theta[:, : len(self.choices)].to(torch.float64), found), dim=1)

    @functools.cached_property
    def _print_width(self) -> int:
        """Numbers of the longest fingerprint; shorter ones are filled up, so that all can be compared."""
        learners = self.build.values()
        return max(fingerprint(learner, starts(learner.params)[None]).shape[1] for learner in learners)

    def evaluate(
        self,
        engine: Inner,
        theta: Float[Tensor, "C P"],
        task: Task,
        runs: Runs,
        steps: range,
        carry: State | None = None,
        **settings: Any,
    ) -> Outcome:
        """`engine.evaluate` of a mixed population, by structure: losses and gradients in theta's places.

        The gradient is 0 in columns that a candidate does not have. `carry` has one state per structure, each with
        all R runs first (0 where a run has another structure), so that rows of it are kept like any carry's.
        Raises ValueError on `record`: structures have different recordings; record the learner of one row.
        """
        if settings.get("record") is not None:
            raise ValueError("record was given for a family; structures differ in what they record: use learner(row)")
        episodes = torch.arange(len(runs.episodes))
        total = len(theta) * len(runs.episodes)
        members: list[tuple[Structure, Tensor, Tensor]] = []
        groups: list[Group] = []
        for structure, places in self._members(theta).items():
            rows = torch.tensor(places)
            own = runs._replace(candidates=tuple(runs.candidates[place] for place in places))
            slots = (rows[:, None] * len(runs.episodes) + episodes).flatten()
            state = None if carry is None else tree.selected(carry[_label(structure)], slots)
            groups.append(Group(self.build[structure], theta[rows][:, self._places(structure)], own, state))
            members.append((structure, rows, slots))
        outcomes = engine.evaluate_each(groups, task, steps, **settings)
        parts = [(*each, outcome) for each, outcome in zip(members, outcomes, strict=True)]
        first = outcomes[0]
        grad = None
        if first.grad is not None:
            grad = torch.zeros(len(theta), len(self.params), dtype=first.grad.dtype)
            for structure, rows, _, outcome in parts:
                assert outcome.grad is not None
                grad[rows[:, None], self._places(structure)] = outcome.grad
        return Outcome(
            loss=_scattered([(rows, outcome.loss) for _, rows, _, outcome in parts], len(theta)),
            scores={
                name: _scattered([(rows, outcome.scores[name]) for _, rows, _, outcome in parts], len(theta))
                for name in first.scores
            },
            steps=steps,
            grad=grad,
            carry={
                _label(structure): tree.mapped(outcome.carry, lambda leaf, at=slots: _scattered([(at, leaf)], total))
                for structure, _, slots, outcome in parts
                if outcome.carry is not None
            }
            or None,
            engine=", ".join(dict.fromkeys(outcome.engine for outcome in outcomes)),
        )

    def _members(self, theta: Float[Tensor, "C P"]) -> dict[Structure, list[int]]:
        """Structure -> the rows of theta that have it."""
        members: dict[Structure, list[int]] = {}
        for place, row in enumerate(theta):
            members.setdefault(self.structure(row), []).append(place)
        return members

    def _places(self, structure: Structure) -> Int[Tensor, "p"]:
        """The columns of theta that a structure's learner reads, in its own order."""
        place = {param.name: column for column, param in enumerate(self.params)}
        return torch.tensor([place[name] for name in self._columns[structure]], dtype=torch.int64)


def _deciding(versions: Mapping[Structure, Param]) -> tuple[int, ...]:
    """The fewest places of a structure that tell which of these descriptions it has; none where all agree."""
    size = len(next(iter(versions)))
    for count in range(size + 1):
        for places in itertools.combinations(range(size), count):
            told: dict[Structure, Param] = {}
            keyed = ((tuple(structure[place] for place in places), param) for structure, param in versions.items())
            if all(told.setdefault(key, param) == param for key, param in keyed):
                return places
    raise AssertionError("unreachable: the whole structure tells")


def _label(structure: Structure) -> str:
    return ", ".join(structure)


def _scattered(parts: list[tuple[Tensor, Tensor]], size: int) -> Tensor:
    whole = parts[0][1].new_zeros(size, *parts[0][1].shape[1:])
    for rows, values in parts:
        whole[rows] = values
    return whole
