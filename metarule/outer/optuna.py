"""Optuna: any of its samplers as an outer loop; the tree-structured Parzen estimator unless another is named."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import Trial, TrialState, create_trial
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

_STORAGE = "study.db"
_NAME = "metarule"


@dataclass
class OptunaSearch(OuterLoop):
    """z in [-span, span] per real parameter, names per categorical one, proposed by `sampler` (an alias or a class).

    Before every ask the sampler is made anew from (seed, trial number), and the study is rebuilt from its told trials:
    a resumed search proposes what it would have proposed. `publish` writes the study to study.db, a view for other
    tools. The rule handed over is the best trial's. Raises ValueError on an unknown sampler.
    """

    kind = "optuna"
    source = "Akiba et al. 2019; Watanabe 2023 (TPE)"
    accepts = frozenset({"real", "categorical", "objectives"})

    sampler: str = "tpe"
    span: float = 3.0

    def __post_init__(self) -> None:
        if self.span <= 0:
            raise ValueError(f"outer.span = {self.span} must be positive")
        if ALIASES.get(self.sampler, self.sampler) not in dir(optuna.samplers):
            raise ValueError(unknown("outer.sampler", self.sampler, ALIASES))

    def start(self, params, objectives=1):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.params = params
        self.distributions = {param.name: _distribution(param, self.span) for param in params}
        self.told: list[dict[str, Any]] = []
        self.study: optuna.Study | None = None
        self.seed: int | None = None
        self.objectives = objectives
        self.pending: list[Trial] = []

    def ask(self, candidates, noise):
        if self.seed is None:
            self.seed = int(noise.at("optuna").integers(2**31).item())
        study = self.study or self._rebuilt()
        self.pending = []
        for _ in range(candidates):
            study.sampler = self._sampler(len(study.trials))
            with _quiet():
                self.pending.append(study.ask(self.distributions))
        return torch.stack([self._row(trial.params) for trial in self.pending])

    def tell(self, theta, loss, grad=None):
        finite = torch.nan_to_num(loss, nan=PENALTY, posinf=PENALTY, neginf=-PENALTY)
        study = self.study
        assert study is not None
        for trial, values in zip(self.pending, finite.tolist(), strict=True):
            study.sampler = self._sampler(trial.number)
            with _quiet():
                study.tell(trial, values)
            frozen = study.trials[trial.number]
            self.told.append(
                {
                    "params": frozen.params,
                    "values": frozen.values,
                    "system_attrs": _plain(frozen.system_attrs),
                }
            )
        self.pending = []

    @property
    def best(self):
        if not self.told:
            return starts(self.params)
        return self._row(min(self.told, key=lambda trial: trial["values"][0])["params"])

    @property
    def front(self) -> Tensor:
        """Rows of theta that no other trial beats in every objective (N P)."""
        assert self.study is not None
        return torch.stack([self._row(trial.params) for trial in self.study.best_trials])

    def state_dict(self):
        return {"told": self.told, "seed": self.seed, "attributes": self._attributes()}

    def load_state_dict(self, state: dict[str, Any]):
        self.told, self.seed = list(state["told"]), state["seed"]
        self.study = self._rebuilt(state["attributes"])

    def publish(self, folder: Path):
        (folder / _STORAGE).unlink(missing_ok=True)
        study = optuna.create_study(
            study_name=folder.name,
            storage=f"sqlite:///{folder / _STORAGE}",
            directions=["minimize"] * self.objectives,
        )
        study.add_trials([self._frozen(trial) for trial in self.told])

    def _rebuilt(self, attributes: dict[str, Any] | None = None) -> optuna.Study:
        """A study in memory that knows every told trial and what samplers noted on the study itself."""
        self.storage = InMemoryStorage()
        self.study = optuna.create_study(
            study_name=_NAME, storage=self.storage, directions=["minimize"] * self.objectives
        )
        for trial in self.told:
            self.study.add_trial(self._frozen(trial))
        for key, value in (attributes or {}).items():
            self.storage.set_study_system_attr(self.storage.get_study_id_from_name(_NAME), key, value)
        return self.study

    def _attributes(self) -> dict[str, Any]:
        """Where samplers that keep their place on the study (QMC) stand."""
        if self.study is None:
            return {}
        return dict(self.storage.get_study_system_attrs(self.storage.get_study_id_from_name(_NAME)))

    def _frozen(self, trial: dict[str, Any]) -> optuna.trial.FrozenTrial:
        return create_trial(
            params=trial["params"],
            distributions=self.distributions,
            values=trial["values"],
            system_attrs=trial["system_attrs"],
            state=TrialState.COMPLETE,
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
