"""Optuna: its samplers as an outer loop, the tree-structured Parzen estimator unless another is named; its pruners."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState
from torch import Tensor

from metarule.collect import unknown
from metarule.outer.base import OuterLoop
from metarule.outer.optuna_trials import Told, distribution, finite_or_worst, named, numbered, publish, quiet, resolved
from metarule.params import starts
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

PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}

_STUDY = "metarule"  # Hyperband hashes a study's name


@dataclass
class OptunaSearch(OuterLoop):
    """z in [-span, span] per real parameter, names per categorical one, proposed by `sampler` (an alias or a class).

    The first trial is the start itself, so that the search never ends below it, then come known rules; a failed
    candidate is told as +inf, which every sampler ranks last. A parameter that does not count where its `when` does
    not hold is not suggested there. The rule handed over is the best trial's; with several objectives the best in the
    first, beside a `front`. With a `pruner`, set up by `pruning`, candidates may end after the fractions `prune_at` of
    their steps: Optuna takes them as pruned, at the last loss they had. It prunes by one objective only.
    Raises ValueError on an unknown sampler or pruner.

    The sampler is made anew from an address before every trial, so that a study is rebuilt by asking and telling again
    with the rows held to what they were: bit for bit the same, counters, populations and a pruner's brackets included,
    for the price of sampling once more. What samplers note on trials is not saved: Optuna's CMA-ES notes a pickle, and
    a checkpoint must not run code. `publish` brings study.db, a view for other tools in the units of theta, up to date.
    """

    kind = "optuna"
    source = "Akiba et al. 2019; Watanabe 2023 (TPE)"
    accepts = frozenset({"real", "categorical", "objectives"})

    sampler: str = "tpe"
    span: float = 3.0
    pruner: str | None = None
    pruning: dict[str, int | float] = field(default_factory=dict)
    prune_at: tuple[float, ...] = (0.25, 0.5)

    def __post_init__(self) -> None:
        if self.span <= 0:
            raise ValueError(f"outer.span = {self.span} must be positive")
        if self.sampler not in ALIASES and self.sampler not in _samplers():
            raise ValueError(unknown("outer.sampler", self.sampler, [*ALIASES, *_samplers()]))
        if not all(0 < fraction < 1 for fraction in self.prune_at):
            raise ValueError(f"outer.prune_at = {list(self.prune_at)} must be fractions of the steps, between 0 and 1")
        if self.pruner is None and self.pruning:
            raise ValueError("outer.pruning is given without an outer.pruner to set up")
        self._pruner()

    def start(self, params, objectives=1):
        if self.pruner and objectives > 1:
            raise ValueError(
                f"outer.pruner = '{self.pruner}' judges by one objective, and {objectives} are given: leave the pruner "
                "out, or keep one"
            )
        self.params = params
        self.objectives = objectives
        self.known = torch.zeros(1, len(params), dtype=torch.float64)  # "N P", what the first trials are held to
        self.known[0] = torch.tensor(numbered(params, {}))
        self.z = torch.zeros(0, len(params), dtype=torch.float64)  # "N P"; of a choice, its index
        self.losses = torch.zeros(0, objectives, dtype=torch.float64)  # "N M"
        self.reports = torch.zeros(0, len(self.prune_at), dtype=torch.float64)  # "N K", in the order of `marks`
        self.rungs_met = torch.zeros(0, dtype=torch.int64)  # "N", how many of a row's reports were made
        self.pruned = torch.zeros(0, dtype=torch.bool)  # "N"
        self.marks: list[int] = []  # inner steps after which the columns of `reports` were made
        self.seeds: list[int] = []  # one for each generation, as are the counts
        self.counts: list[int] = []
        self._replay()

    def warm(self, rows):
        z = []
        for place, row in enumerate(rows.tolist()):
            z.append([v if p.choices else p.encode(v) for p, v in zip(self.params, row, strict=True)])
            for param, value, inside in zip(self.params, row, z[-1], strict=True):
                if not param.choices and not abs(inside) <= self.span:
                    raise ValueError(
                        f"known rule {place}: {param.name} = {value:.4g} lies {abs(inside):.3g} scales from its start, "
                        f"outside outer.span = {self.span}; widen the span"
                    )
        self.known = torch.cat((self.known[:1], torch.tensor(z, dtype=torch.float64)))

    def ask(self, candidates, noise):
        if self.pending:
            self._replay()  # proposals that nobody answered leave no trace
        self.seed = int(noise.at("optuna").integers(2**31)[0])
        number = len(self.z)
        held: list[Tensor | None] = [*self.known[number : number + candidates]]
        self.pending = self._asked(self.seed, number, held + [None] * (candidates - len(held)))
        self.heard = torch.zeros(candidates, len(self.prune_at), dtype=torch.float64)
        self.met = torch.zeros(candidates, dtype=torch.int64)
        self.dropped = torch.zeros(candidates, dtype=torch.bool)
        return self._theta(self._rows(self.pending))

    def rungs(self, steps):
        if self.pruner is None:
            return ()
        return tuple(sorted({min(max(round(fraction * steps), 1), steps) for fraction in self.prune_at} - {steps}))

    def keep(self, theta, loss, step):
        if step not in self.marks:
            self.marks.append(step)
        running = (~self.dropped).nonzero()[:, 0]
        self.heard[running, self.marks.index(step)] = finite_or_worst(loss[:, 0].to(torch.float64))
        self.met[running] += 1
        stops = self._judged(self.pending, self.heard, self.met, step)
        self.dropped |= stops
        return ~stops[running]

    def tell(self, theta, loss, grad=None):
        losses = finite_or_worst(loss)
        self._hear(self.pending, losses, self.dropped)
        self.z = torch.cat((self.z, self._rows(self.pending)))
        self.losses = torch.cat((self.losses, losses))
        self.reports = torch.cat((self.reports, self.heard))
        self.rungs_met = torch.cat((self.rungs_met, self.met))
        self.pruned = torch.cat((self.pruned, self.dropped))
        self.seeds.append(self.seed)
        self.counts.append(len(losses))
        self.pending = []

    @property
    def best(self):
        if not len(self.z):
            return starts(self.params)
        return self._theta(self.z[self.losses[:, 0].argmin()][None])[0]

    @property
    def front(self):
        """Rows of theta that no other trial beats in one objective without losing in another; no failures (N P)."""
        return self._theta(self.z[self._leading])

    @property
    def front_losses(self):
        return self.losses[self._leading]

    @property
    def report(self):
        return {"pruned": float(self.dropped.sum())} if self.pruner else {}

    @property
    def _leading(self) -> Tensor:
        """Numbers of the trials on the front, the best in the first objective first; of equals the first."""
        kept: dict[tuple[float, ...], int] = {}
        for number, row in enumerate(self.losses):
            beaten = ((self.losses <= row).all(1) & (self.losses < row).any(1)).any()
            if row.isfinite().all() and not beaten:
                kept.setdefault(tuple(row.tolist()), number)
        return torch.tensor([kept[losses] for losses in sorted(kept)], dtype=torch.int64)

    def state_dict(self):
        return {
            "z": self.z,
            "losses": self.losses,
            "reports": self.reports,
            "rungs_met": self.rungs_met,
            "pruned": self.pruned,
            "marks": list(self.marks),
            "seeds": list(self.seeds),
            "counts": list(self.counts),
        }

    def load_state_dict(self, state: dict[str, Any]):
        self.z, self.losses = state["z"], state["losses"]
        self.reports, self.rungs_met, self.pruned = state["reports"], state["rungs_met"], state["pruned"]
        self.marks, self.seeds, self.counts = list(state["marks"]), list(state["seeds"]), list(state["counts"])
        self._replay()

    def publish(self, folder: Path):
        told = []
        for number, row in enumerate(self._theta(self.z)):
            met = int(self.rungs_met[number])
            intermediate = dict(zip(self.marks[:met], self.reports[number].tolist(), strict=False))
            told.append(Told(row, None if self.pruned[number] else self.losses[number].tolist(), intermediate))
        publish(folder, self.params, self.span, self.objectives, told)

    def _replay(self) -> None:
        with quiet():
            self.study = optuna.create_study(
                study_name=_STUDY,
                directions=[StudyDirection.MINIMIZE] * self.objectives,
                sampler=optuna.samplers.RandomSampler(0),
                pruner=self._pruner(),
            )
        number = 0
        for seed, count in zip(self.seeds, self.counts, strict=True):
            rows = slice(number, number + count)
            trials = self._asked(seed, number, list(self.z[rows]))
            for mark in self.marks:
                self._judged(trials, self.reports[rows], self.rungs_met[rows], mark)
            self._hear(trials, self.losses[rows], self.pruned[rows])
            number += count
        self.pending: list[Trial] = []

    def _asked(self, seed: int, number: int, rows: list[Tensor | None]) -> list[Trial]:
        """Trials from `number` on, where a row is given held to it."""
        trials = []
        with quiet():
            for trial, row in enumerate(rows, start=number):
                kind = getattr(optuna.samplers, ALIASES.get(self.sampler, self.sampler))
                self.study.sampler = kind(seed=seed_number(seed, "sampler", trial))
                if row is not None:
                    self.study.enqueue_trial(named(self.params, row))
                trials.append(self._suggested(self.study.ask()))
        return trials

    def _suggested(self, trial: Trial) -> Trial:
        _ = trial.relative_params  # reading it is what moves the sampler's counters on, also where the row is given
        for param in resolved(self.params):
            if not param.counts(trial.params):
                continue
            searched = distribution(param, self.span)
            if isinstance(searched, CategoricalDistribution):
                trial.suggest_categorical(param.name, searched.choices)
            else:
                trial.suggest_float(param.name, searched.low, searched.high)
        return trial

    def _judged(self, trials: list[Trial], reports: Tensor, met: Tensor, step: int) -> Tensor:
        """Which trials the pruner ends after `step` steps, all those that got there being heard first."""
        column = self.marks.index(step)
        losses = reports[:, column].tolist()
        running = [(place, trial) for place, trial in enumerate(trials) if met[place] > column]
        stops = torch.zeros(len(trials), dtype=torch.bool)
        with quiet():
            for place, trial in running:
                trial.report(losses[place], step)
            for place, trial in running:
                stops[place] = bool(trial.should_prune())
        return stops

    def _hear(self, trials: list[Trial], losses: Tensor, pruned: Tensor) -> None:
        with quiet():
            for trial, values, ended in zip(trials, losses.tolist(), pruned.tolist(), strict=True):
                if ended:
                    self.study.tell(trial, state=TrialState.PRUNED)
                else:
                    self.study.tell(trial, values)

    def _pruner(self) -> BasePruner:
        if self.pruner is None:
            return optuna.pruners.NopPruner()
        if self.pruner not in PRUNERS:
            raise ValueError(unknown("outer.pruner", self.pruner, PRUNERS))
        kind = getattr(optuna.pruners, PRUNERS[self.pruner])
        allowed = inspect.signature(kind).parameters
        for name in self.pruning:
            if name not in allowed:
                raise ValueError(unknown("outer.pruning", name, allowed))
        needed = [name for name, each in allowed.items() if each.default is inspect.Parameter.empty]
        for name in needed:
            if name not in self.pruning:
                raise ValueError(f"outer.pruner = '{self.pruner}' needs outer.pruning = {{ {name} = ... }}")
        with quiet():
            return kind(**self.pruning)

    def _rows(self, trials: list[Trial]) -> Tensor:
        rows = [numbered(self.params, trial.params) for trial in trials]
        return torch.tensor(rows, dtype=torch.float64)

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
