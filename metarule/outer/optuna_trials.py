"""Rows of theta as Optuna has them: trials, their distributions, and a study on disk for other tools to look at."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from torch import Tensor

from metarule.params import Param

Distribution = FloatDistribution | CategoricalDistribution

STORAGE = "study.db"
"""The study's file in a run folder."""


class Told(NamedTuple):
    """What a study hears of one row: losses, or None where it was pruned, and losses after numbers of inner steps."""

    row: Tensor
    losses: list[float] | None
    intermediate: dict[int, float]


def distribution(param: Param, span: float) -> Distribution:
    """The range of a parameter in internal coordinates, its bounds inside [-span, span]; of a choice, its names."""
    if param.choices:
        return CategoricalDistribution(param.choices)
    low, high = param.reach
    return FloatDistribution(max(low, -span), min(high, span))


def resolved(params: tuple[Param, ...]) -> tuple[Param, ...]:
    """The parameters in an order in which every `when` is known before it is asked about."""
    order: list[Param] = []
    left = list(params)
    while left:
        names = {param.name for param in left}
        ready = [param for param in left if not any(name in names for name, _ in param.when)]
        if not ready:
            raise ValueError(f"parameters {', '.join(sorted(names))} are conditions of one another")
        order += ready
        left = [param for param in left if param not in ready]
    return tuple(order)


def named(params: tuple[Param, ...], row: Tensor) -> dict[str, Any]:
    """A row as Optuna has it: numbers, and choices by name; without what does not count in this row."""
    values = dict(zip((param.name for param in params), row.tolist(), strict=True))
    found: dict[str, Any] = {}
    for param in resolved(params):
        if param.counts(found):
            value = values[param.name]
            found[param.name] = param.choices[int(value)] if param.choices else value
    return found


def numbered(params: tuple[Param, ...], found: dict[str, Any]) -> list[float]:
    """A row in internal coordinates from what a trial has; what does not count in it is at its start."""
    return [
        (float(param.choices.index(found[param.name])) if param.choices else found[param.name])
        if param.name in found
        else (param.start if param.choices else 0.0)
        for param in params
    ]


def publish(folder: Path, params: tuple[Param, ...], span: float, objectives: int, told: list[Told]) -> None:
    """Bring the study in a folder up to date, in the units of theta: add what is new, replace another search's."""
    scales = {param.name: _shown(param, distribution(param, span)) for param in params}
    trials = [_frozen(scales, params, each) for each in told]
    with quiet():
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder / STORAGE}")
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA synchronous = OFF")  # waiting for the disk takes 0.1 s a trial
        directions = [StudyDirection.MINIMIZE] * objectives
        study = optuna.create_study(study_name=folder.name, storage=storage, directions=directions, load_if_exists=True)
        there = [_seen(trial) for trial in study.get_trials(deepcopy=False)]
        if there != [_seen(trial) for trial in trials[: len(there)]]:  # from another search
            optuna.delete_study(study_name=folder.name, storage=storage)
            study = optuna.create_study(study_name=folder.name, storage=storage, directions=directions)
            there = []
        study.add_trials(trials[len(there) :])
        storage.remove_session()


def _frozen(scales: dict[str, Distribution], params: tuple[Param, ...], told: Told) -> FrozenTrial:
    found = named(params, told.row)
    return create_trial(
        state=TrialState.COMPLETE if told.losses is not None else TrialState.PRUNED,
        values=told.losses if told.losses is not None else [told.intermediate[max(told.intermediate)]],
        params=found,
        distributions={name: scales[name] for name in found},
        intermediate_values=told.intermediate,
    )


def _seen(trial: FrozenTrial) -> tuple[Any, ...]:
    """All of a trial but when it was written."""
    return trial.state, trial.params, trial.values, trial.intermediate_values


def _shown(param: Param, searched: Distribution) -> Distribution:
    """The range in the units of theta."""
    if isinstance(searched, CategoricalDistribution):
        return searched
    return FloatDistribution(param.decode(searched.low), param.decode(searched.high), log=param.log)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neither a line for each trial nor warnings of experimental samplers and lost trials; all as before afterwards."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "The intermediate values of the current trial")  # that one diverged
            yield
    finally:
        optuna.logging.set_verbosity(level)


def finite_or_worst(values: Tensor) -> Tensor:
    """+inf for nan: a failed candidate is the worst one, and Optuna takes no nan."""
    return torch.where(values.isnan(), math.inf, values)
