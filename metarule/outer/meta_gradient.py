"""Meta-gradient: any optimizer of torch.optim on the slope of the loss in the rule, exact or estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from metarule.collect import unknown
from metarule.outer.base import OuterLoop, Window
from metarule.outer.descent import Descent, Options
from metarule.outer.estimators import Differences, Estimator, Exact, Smoothed
from metarule.params import Param

ESTIMATORS = ("reverse", "forward", "differences", "es", "pes")

ENDLESS = 10.0
"""A gradient that promises, for the step just taken, this many times the largest loss is not one to walk along."""

CHAOTIC = (
    "the gradient promises changes of the loss, for the steps taken, of more than ten times the loss itself: the inner "
    "run is chaotic, or outer.rate far too large; lower outer.rate, shorten the unroll (outer.curriculum, "
    "outer.truncation), or smooth the loss (outer.estimator = 'es' or 'pes')"
)


@dataclass
class MetaGradient(OuterLoop):
    """z <- optimizer(z, dL/dz) in units of `Param.scale`, then soft thresholding of theta / scale by rate l1.

    `estimator` of dL/dz: "reverse", backwards through the unrolled run; "forward", step by step, with memory that does
    not grow with the steps and time that grows with P; "differences", central ones with relative step `difference`, 2 P
    or 2 P + 1 candidates; "es", antithetic pairs at a distance `sigma`; "pes", the same, persistent. All but the first
    two need losses only.

    `truncation` cuts an unroll into windows of so many steps, a generation each; the rule moves between them. Then
    "reverse", "forward" and "es" follow the gradient within a window, which is biased (Wu et al. 2018); "pes" (Vicol
    et al. 2021) and "differences" follow that of the whole. `curriculum` holds lengths of the unroll, each for
    `curriculum_every` generations and the last one on; `l1_path` holds penalties in place of `l1`, each for `l1_every`.

    `clip` bounds the gradient's norm; give it with "es" and "pes", where a pair that all but diverged outweighs all
    others. Where a run diverged the step is left out and counted in `skipped`; after three in a row the rule goes half
    the way back to where the gradient was finite. Warns where the gradient promises more than the loss can hold: the
    inner run is chaotic (Metz et al. 2021).
    """

    kind = "meta_gradient"
    source = "Andrychowicz et al. 2016; Metz et al. 2021; Vicol et al. 2021"
    accepts = frozenset({"real"})

    optimizer: str = "Adam"
    rate: float = 1e-2
    options: Options = field(default_factory=dict)
    clip: float | None = None
    l1: float = 0.0
    l1_path: tuple[float, ...] = ()
    l1_every: int = 50
    estimator: str = "reverse"
    difference: float = 1e-2
    sigma: float = 1e-2
    truncation: int | None = None
    curriculum: tuple[int, ...] = ()
    curriculum_every: int = 50

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(unknown("outer.estimator", self.estimator, ESTIMATORS))
        if self.l1 and self.l1_path:
            raise ValueError(f"outer.l1 = {self.l1} is given beside outer.l1_path; leave one out")
        for name, values in (("l1", (self.l1,)), ("l1_path", self.l1_path)):
            if any(value < 0 for value in values):
                raise ValueError(f"outer.{name} = {getattr(self, name)} must not be negative")
        for name in ("difference", "sigma"):
            if getattr(self, name) <= 0:
                raise ValueError(f"outer.{name} = {getattr(self, name)} must be positive")
        counts = {"truncation": (self.truncation,), "curriculum": self.curriculum}
        counts |= {name: (getattr(self, name),) for name in ("curriculum_every", "l1_every")}
        for name, values in counts.items():
            if any(value is not None and value < 1 for value in values):
                raise ValueError(f"outer.{name} = {getattr(self, name)} must be at least 1")
        self._centre((Param("probe"),))

    def _centre(self, params: tuple[Param, ...]) -> Descent:
        return Descent(params, self.optimizer, self.rate, self.options, self.clip)

    def _estimator(self) -> Estimator:
        if self.estimator == "differences":
            return Differences(self.difference)
        if self.estimator in ("es", "pes"):
            return Smoothed(self.sigma, persistent=self.estimator == "pes")
        return Exact(self.estimator)

    @property
    def wants(self):
        return self._estimator().wants

    def start(self, params, objectives=1):
        self.params = params
        self.centre = self._centre(params)
        self.source_of_slope = self._estimator()
        self.told = 0
        self.penalty = self._penalty(0)
        self.largest = 0.0
        self.promised = 0.0
        self.covered = Window(0, range(1))

    def window(self, generation, steps):
        lengths = [min(length, steps) for length in self.curriculum] or [steps]
        stage = min(generation // self.curriculum_every, len(lengths) - 1)
        windows = [math.ceil(length / (self.truncation or length)) for length in lengths]
        # an unroll that a longer one interrupts is not taken up again
        before = sum(math.ceil(self.curriculum_every / count) for count in windows[:stage])
        unroll, part = divmod(generation - stage * self.curriculum_every, windows[stage])
        span = self.truncation or steps
        return Window(before + unroll, range(part * span, min((part + 1) * span, lengths[stage])))

    def prepare(self, window):
        self.covered = window

    def ask(self, candidates, noise):
        fresh = self.covered.steps.start == 0
        return self.centre.decoded(self.source_of_slope.rows(self.centre, candidates, noise, fresh))

    def tell(self, theta, loss, grad=None):
        leading = loss[:, 0].to(torch.float64)
        slope = self.source_of_slope.slope(self.centre, leading, grad)
        self.penalty = self._penalty(self.told)
        before = self.centre.z.detach().clone()
        self.centre.step(slope, self.penalty)
        self.promised = float((slope * (self.centre.z.detach() - before)).sum().abs())
        finite = leading[leading.isfinite()].abs()
        self.largest = max(self.largest, float(finite.max()) if len(finite) else 0.0)
        self.told += 1

    def _penalty(self, generation: int) -> float:
        path = self.l1_path or (self.l1,)
        return path[min(generation // self.l1_every, len(path) - 1)]

    @property
    def best(self):
        return self.centre.theta

    @property
    def report(self):
        return {
            "gradient_norm": self.centre.norm,
            "skipped": self.centre.skipped,
            "penalty": self.penalty,
            "nonzero": self.centre.nonzero,
            "until_step": self.covered.steps.stop,
        }

    @property
    def warnings(self):
        chaotic = not self.source_of_slope.smooths and self.promised > ENDLESS * self.largest
        return (CHAOTIC,) if chaotic else ()

    def state_dict(self):
        return {
            "centre": self.centre.state_dict(),
            "estimator": self.source_of_slope.state_dict(),
            "told": self.told,
            "largest": self.largest,
        }

    def load_state_dict(self, state: dict[str, Any]):
        self.centre.load_state_dict(state["centre"])
        self.source_of_slope.load_state_dict(state["estimator"])
        self.told, self.largest = state["told"], state["largest"]
