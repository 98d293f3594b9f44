"""Optuna: any of its samplers as an outer loop; the tree-structured Parzen estimator unless another is named."""

from __future__ import annotations

import contextlib
import inspect
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import Trial, create_trial
from torch import Tensor

from metarule.collect import unknown
from metarule.outer.base import OuterLoop
from metarule.params import Param, starts
from metarule.rng import seed_number

ALIASES = {
    "tpe": "TPESampler",
    "cma_es": "CmaEsSampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
    "qmc": "QMCSampler",
}

_STORAGE = "study.db"


@dataclass
class OptunaSearch(OuterLoop):
    """z in [-span, span] per real parameter, names per categorical one, proposed by `sampler` (an alias or a class).

    The first trial is the start itself, so that the search never ends below it; a failed candidate is told as +inf,
    which every sampler ranks last. The rule handed over is the best trial's. Raises ValueError on an unknown sampler.

    The sampler is made anew from an address before every trial, so that a study is rebuilt by asking and telling again
    with the rows held to what they were: bit for bit the same, counters and populations included, for the price of
    sampling once more. What samplers note on trials is not saved: Optuna's CMA-ES notes a pickle, and a checkpoint must
    not run code. `publish` brings study.db, a view for other tools in the units of theta, up to date.
    """

    kind = "optuna"
    source = "Akiba et al. 2019; Watanabe 2023 (TPE)"
    accepts = frozenset({"real", "categorical", "objectives"})

    sampler: str = "tpe"
    span: float = 3.0

    def __post_init__(self) -> None:
        if self.span <= 0:
            raise ValueError(f"outer.span = {self.span} must be positive")
        if self.sampler not in ALIASES and self.sampler not in _samplers():
            raise ValueError(unknown("outer.sampler", self.sampler, [*ALIASES, *_samplers()]))

    def start(self, params, objectives=1):
        self.params = params
        self.distributions = {param.name: _distribution(param, self.span) for param in params}
        self.objectives = objectives
        self.z = torch.zeros(0, len(params), dtype=torch.float64)  # "N P"; of a choice, its index
        self.losses = torch.zeros(0, objectives, dtype=torch.float64)  # "N M"
        self.seeds: list[int] = []  # one for each generation, as are the counts
        self.counts: list[int] = []
        self._replay()

    def ask(self, candidates, noise):
        if self.pending:
            self._replay()  # proposals that nobody answered leave no trace
        self.seed = int(noise.at("optuna").integers(2**31)[0])
        first = [] if len(self.z) else [_start(self.params)]
        self.pending = self._asked(self.seed, len(self.z), first + [None] * (candidates - len(first)))
        return self._theta(self._rows(self.pending))

    def tell(self, theta, loss, grad=None):
        losses = torch.where(loss.isnan(), math.inf, loss)
        self._hear(self.pending, losses)
        self.z = torch.cat((self.z, self._rows(self.pending)))
        self.losses = torch.cat((self.losses, losses))
        self.seeds.append(self.seed)
        self.counts.append(len(losses))
        self.pending = []

    @property
    def best(self):
        if not len(self.z):
            return starts(self.params)
        return self._theta(self.z[self.losses[:, 0].argmin()][None])[0]

    @property
    def front(self) -> Tensor:
        """Rows of theta that no other trial beats in one objective without losing in another; no failures (N P)."""
        kept = [
            bool(row.isfinite().all()) and not ((self.losses <= row).all(1) & (self.losses < row).any(1)).any()
            for row in self.losses
        ]
        return self._theta(self.z[torch.tensor(kept, dtype=torch.bool)])

    def state_dict(self):
        return {"z": self.z, "losses": self.losses, "seeds": list(self.seeds), "counts": list(self.counts)}

    def load_state_dict(self, state: dict[str, Any]):
        self.z, self.losses = state["z"], state["losses"]
        self.seeds, self.counts = list(state["seeds"]), list(state["counts"])
        self._replay()

    def publish(self, folder: Path):
        rows = [_named(self.params, row) for row in self._theta(self.z)]
        told = list(zip(rows, self.losses.tolist(), strict=True))
        scales: dict[str, BaseDistribution] = {
            param.name: _shown(param, self.distributions[param.name]) for param in self.params
        }
        with _quiet():
            storage = optuna.storages.RDBStorage(f"sqlite:///{folder / _STORAGE}")
            directions = [StudyDirection.MINIMIZE] * self.objectives
            study = optuna.create_study(
                study_name=folder.name, storage=storage, directions=directions, load_if_exists=True
            )
            there = [(trial.params, trial.values) for trial in study.get_trials(deepcopy=False)]
            if there != told[: len(there)]:  # from another search
                optuna.delete_study(study_name=folder.name, storage=storage)
                study = optuna.create_study(study_name=folder.name, storage=storage, directions=directions)
                there = []
            for params, values in told[len(there) :]:
                study.add_trial(create_trial(params=params, distributions=scales, values=values))
            storage.remove_session()

    def _replay(self) -> None:
        with _quiet():
            self.study = optuna.create_study(
                directions=[StudyDirection.MINIMIZE] * self.objectives, sampler=optuna.samplers.RandomSampler(0)
            )
        number = 0
        for seed, count in zip(self.seeds, self.counts, strict=True):
            rows = slice(number, number + count)
            self._hear(self._asked(seed, number, list(self.z[rows])), self.losses[rows])
            number += count
        self.pending: list[Trial] = []

    def _asked(self, seed: int, number: int, rows: list[Tensor | None]) -> list[Trial]:
        """Trials from `number` on, where a row is given held to it."""
        trials = []
        with _quiet():
            for trial, row in enumerate(rows, start=number):
                kind = getattr(optuna.samplers, ALIASES.get(self.sampler, self.sampler))
                self.study.sampler = kind(seed=seed_number(seed, "sampler", trial))
                if row is not None:
                    self.study.enqueue_trial(_named(self.params, row))
                trials.append(self._suggested(self.study.ask()))
        return trials

    def _suggested(self, trial: Trial) -> Trial:
        _ = trial.relative_params  # reading it is what moves the sampler's counters on, also where the row is given
        for name, searched in self.distributions.items():
            if isinstance(searched, CategoricalDistribution):
                trial.suggest_categorical(name, searched.choices)
            else:
                trial.suggest_float(name, searched.low, searched.high)
        return trial

    def _hear(self, trials: list[Trial], losses: Tensor) -> None:
        with _quiet():
            for trial, values in zip(trials, losses.tolist(), strict=True):
                self.study.tell(trial, values)

    def _rows(self, trials: list[Trial]) -> Tensor:
        rows = [trial.params for trial in trials]
        return torch.tensor(
            [[_number(param, row[param.name]) for param in self.params] for row in rows], dtype=torch.float64
        )

    def _theta(self, z: Tensor) -> Tensor:
        rows = [
            [value if param.choices else param.decode(value) for param, value in zip(self.params, row, strict=True)]
            for row in z.tolist()
        ]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(z), len(self.params))


def _samplers() -> list[str]:
    """The samplers that need nothing but a seed, less brute force: at its end it stops a loop that nobody runs."""
    return [
        name
        for name, kind in vars(optuna.samplers).items()
        if inspect.isclass(kind)
        and not inspect.isabstract(kind)
        and kind is not optuna.samplers.BruteForceSampler
        and "seed" in (settings := inspect.signature(kind).parameters)
        and all(setting.default is not inspect.Parameter.empty for setting in settings.values())
    ]


def _distribution(param: Param, span: float) -> FloatDistribution | CategoricalDistribution:
    if param.choices:
        return CategoricalDistribution(param.choices)
    low, high = param.reach
    return FloatDistribution(max(low, -span), min(high, span))


def _shown(
    param: Param, searched: FloatDistribution | CategoricalDistribution
) -> FloatDistribution | CategoricalDistribution:
    """The range in the units of theta."""
    if isinstance(searched, CategoricalDistribution):
        return searched
    return FloatDistribution(param.decode(searched.low), param.decode(searched.high), log=param.log)


def _start(params: tuple[Param, ...]) -> Tensor:
    return torch.tensor([param.start if param.choices else 0.0 for param in params], dtype=torch.float64)


def _named(params: tuple[Param, ...], row: Tensor) -> dict[str, Any]:
    """A row as Optuna has it: numbers, and choices by name."""
    return {
        param.name: param.choices[int(value)] if param.choices else value
        for param, value in zip(params, row.tolist(), strict=True)
    }


def _number(param: Param, value: Any) -> float:
    return float(param.choices.index(value)) if param.choices else value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither a line for each trial nor a warning that a sampler is experimental; both as before afterwards."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
