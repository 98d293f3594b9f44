"""Optuna: any of its samplers as an outer loop; the tree-structured Parzen estimator unless another is named."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState
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

PENALTY = 1e6
"""What a sampler is told of a candidate that diverged: samplers model values, and +inf is none."""

STUDY = "study.db"
"""The view of a search that Optuna's own tools read."""


@dataclass
class OptunaSearch(OuterLoop):
    """z in [-span, span] per real parameter, names per categorical one, proposed by `sampler` (an alias or a class).

    Before every ask the sampler is made anew from (seed, trial number). What is saved is what was asked and told;
    asking and telling it again rebuilds study and sampler bit for bit, with no attribute or pickle of the library's
    read from a file. `publish` writes the study to study.db, a view for other tools. The rule handed over is the best
    trial's. Raises ValueError on an unknown sampler, and on a saved search that this version of Optuna would not have
    made.
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
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.params = params
        self.distributions: dict[str, BaseDistribution] = {p.name: _distribution(p, self.span) for p in params}
        self.objectives = objectives
        self.study = self._empty()
        self.seed: int | None = None
        self.told: list[dict[str, list[Any]]] = []  # one entry per generation: params and values of its trials
        self.pending: list[Trial] = []

    def ask(self, candidates, noise):
        if self.seed is None:
            self.seed = int(noise.at("optuna").integers(2**31).item())
        self._propose(candidates)
        return torch.stack([self._row(trial.params) for trial in self.pending])

    def tell(self, theta, loss, grad=None):
        finite = torch.nan_to_num(loss, nan=PENALTY, posinf=PENALTY, neginf=-PENALTY)
        self._hear(finite.tolist())

    def _propose(self, candidates: int) -> None:
        self.pending = []
        for _ in range(candidates):
            self.study.sampler = self._sampler(len(self.study.trials))
            with _quiet():
                self.pending.append(self.study.ask(self.distributions))

    def _hear(self, values: list[list[float]]) -> None:
        self.told.append({"params": [trial.params for trial in self.pending], "values": values})
        for trial, value in zip(self.pending, values, strict=True):
            self.study.sampler = self._sampler(trial.number)
            with _quiet():
                self.study.tell(trial, value)
        self.pending = []

    @property
    def best(self):
        trials = [pair for told in self.told for pair in zip(told["params"], told["values"], strict=True)]
        return self._row(min(trials, key=lambda pair: pair[1][0])[0]) if trials else starts(self.params)

    @property
    def front(self) -> Tensor:
        """Rows of theta that no other trial beats in every objective (N P)."""
        return torch.stack([self._row(trial.params) for trial in self.study.best_trials])

    def state_dict(self):
        return {"told": self.told, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]):
        self.seed = state["seed"]
        for told in state["told"]:
            self._propose(len(told["params"]))
            if [trial.params for trial in self.pending] != told["params"]:
                raise ValueError(
                    f"outer.sampler = '{self.sampler}' does not propose what it proposed when this search was saved; "
                    f"most likely optuna was another version then (it is {optuna.__version__} now)"
                )
            self._hear(told["values"])

    def publish(self, folder: Path):
        (folder / STUDY).unlink(missing_ok=True)
        view = self._empty(f"sqlite:///{folder / STUDY}", folder.name)
        view.add_trials(self.study.get_trials(states=[TrialState.COMPLETE]))

    def _empty(self, storage: str | None = None, name: str | None = None) -> optuna.Study:
        return optuna.create_study(
            study_name=name, storage=storage, directions=[StudyDirection.MINIMIZE] * self.objectives
        )

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        kind = getattr(optuna.samplers, ALIASES.get(self.sampler, self.sampler))
        with _quiet():
            return kind(seed=seed_number(self.seed or 0, "sampler", number))

    def _row(self, values: dict[str, Any]) -> Tensor:
        row = [
            float(param.choices.index(values[param.name])) if param.choices else param.decode(values[param.name])
            for param in self.params
        ]
        return torch.tensor(row, dtype=torch.float64)


def _samplers() -> list[str]:
    """Names of the samplers that need nothing but a seed."""
    return [
        name
        for name, kind in vars(optuna.samplers).items()
        if inspect.isclass(kind)
        and not inspect.isabstract(kind)
        and "seed" in (settings := inspect.signature(kind).parameters)
        and all(setting.default is not inspect.Parameter.empty for setting in settings.values())
    ]


def _distribution(param: Param, span: float) -> FloatDistribution | CategoricalDistribution:
    if param.choices:
        return CategoricalDistribution(param.choices)
    low, high = param.reach
    return FloatDistribution(max(low, -span), min(high, span))


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in attributes.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
