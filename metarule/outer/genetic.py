"""Genetic: a few rules live, children differ from them by a few genes, and a rule that was met before costs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.outer.base import Fingerprint, OuterLoop
from metarule.outer.breeding import Flock, Genes, genes, nobody, unbeaten
from metarule.outer.cma_es import FEWEST, CmaEs
from metarule.outer.seen import Seen, keys_of
from metarule.params import starts
from metarule.rng import Noise

COUNTS = ("bred", "recognised", "evaluated", "dropped", "tuned")
"""What `report` counts since the search began."""


class Brood(NamedTuple):
    """What `ask` came to, kept apart from the search until `tell`: an ask that nobody answers leaves no trace."""

    rows: Float[Tensor, "C P"]
    keys: list[int]
    flock: Flock
    waiting: Float[Tensor, "N P"]
    bred: int
    recognised: int


class Tuning(NamedTuple):
    """The constants of one rule on their way: its row, the best one so far, and who moves them."""

    row: Float[Tensor, "P"]
    best: Float[Tensor, "P"]
    loss: float
    left: int
    inner: CmaEs


@dataclass
class Genetic(OuterLoop):
    """Rows of choices and real numbers by mutation and selection; the rule handed over is the best one ever met.

    `scheme` "cartesian": (parents + C) evolution, C children of random parents, ranked with them; among equals the
    younger stay, so that what does nothing yet may drift. "regularised": a `population` that ages, a child of the best
    of `tournament` drawn joins it and the oldest leaves. "random": children of nobody, what evolution is measured by.
    A child has every gene mutated with chance `mutation`, one at least: another choice, or a step of `sigma` scales.

    With `cache` a child that does the same as a rule met before takes over its loss and lives on, and breeding goes on
    until all candidates are new, or `tries` children were bred. Two losses of one rule are equal only with
    inner.fixed_episodes = true; with fresh episodes the first one stands, lucky or not, as it does for whoever lives.

    `hurdles` are fractions of the inner run: a row goes on where it is not worse there than the `quantile` of the
    living were. `tune` = "cma_es" spends `tune_generations` after every `tune_every` on the real numbers of the best
    rule, its choices held, and keeps what is better.
    Raises ValueError on settings that make no sense, and for fewer candidates than "cma_es" needs.
    """

    kind = "genetic"
    source = "Miller and Thomson 2000; Real et al. 2019 and 2020; Jordan, Schmidt, Senn and Petrovici 2021"
    accepts = frozenset({"real", "categorical"})

    scheme: str = "cartesian"
    parents: int = 4
    population: int = 100
    tournament: int = 10
    mutation: float = 0.045
    sigma: float = 0.3
    cache: bool = True
    tries: int = 1000
    hurdles: tuple[float, ...] = ()
    quantile: float = 0.75
    tune: str = "none"
    tune_every: int = 50
    tune_generations: int = 10

    def __post_init__(self) -> None:
        self.hurdles = tuple(sorted(self.hurdles))
        if self.scheme not in SCHEMES:
            raise ValueError(unknown("outer.scheme", self.scheme, SCHEMES))
        if self.tune not in ("none", "cma_es"):
            raise ValueError(unknown("outer.tune", self.tune, ("none", "cma_es")))
        for name in ("parents", "population", "tournament", "tries", "tune_every", "tune_generations"):
            if getattr(self, name) < 1:
                raise ValueError(f"outer.{name} = {getattr(self, name)} must be at least 1")
        for name in ("mutation", "quantile"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"outer.{name} = {getattr(self, name)} must lie in (0, 1]")
        if self.sigma <= 0:
            raise ValueError(f"outer.sigma = {self.sigma} must be positive")
        if not all(0 < hurdle < 1 for hurdle in self.hurdles):
            raise ValueError(f"outer.hurdles = {list(self.hurdles)} must be fractions of the inner run, in (0, 1)")

    def start(self, params, objectives=1):
        self.params = params
        self.genes: Genes = genes(params)
        self.fingerprint: Fingerprint = lambda theta: theta
        self.flock = nobody(len(params), len(self.hurdles))
        self.waiting = starts(params)[None]
        self.champion, self.champion_loss = starts(params), math.inf
        self.seen = Seen()
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self.since = 0
        self.tuning: Tuning | None = None

    def warm(self, rows):
        self.waiting = torch.cat((rows.to(torch.float64), self.waiting))

    def recognise(self, fingerprint):
        self.fingerprint = fingerprint

    def ask(self, candidates, noise):
        if self.tune != "none" and candidates < FEWEST:
            raise ValueError(
                f"outer.candidates = {candidates} is too few for outer.tune = '{self.tune}'; at least {FEWEST}"
            )
        if self.tuning:
            numbers = self.tuning.inner.ask(candidates, noise.at("tune"))
            rows = self.tuning.row.repeat(candidates, 1)
            rows[:, self._real] = numbers
            self.brood = Brood(rows, self._keys(rows), self.flock, self.waiting, candidates, 0)
        else:
            self.brood = self._bred(candidates, noise)
        self.racing = torch.ones(len(self.brood.rows), dtype=torch.bool)
        self.short: list[Tensor] = []
        return self.brood.rows.clone()

    def tell(self, theta, loss, grad=None):
        brood, tuning = self.brood, self.tuning
        losses = torch.where(loss[:, 0].isnan(), math.inf, loss[:, 0].to(torch.float64))
        missing = [torch.full_like(losses, math.inf)] * (len(self.hurdles) - len(self.short))
        columns = [*self.short, *missing]
        short = torch.stack(columns, dim=1) if columns else losses.new_zeros(len(losses), 0)
        if self.cache:
            self.seen.remember(brood.keys, losses, short)
        self.counts["bred"] += brood.bred
        self.counts["recognised"] += brood.recognised
        self.counts["evaluated"] += len(losses)
        self.counts["dropped"] += len(losses) - int(self.racing.sum())
        self.waiting = brood.waiting
        if tuning:
            self.tuning = self._tuned(tuning, brood.rows, losses)
            return
        self.flock = self._settled(brood.flock, Flock(brood.rows, losses, short))
        place = int(losses.argmin())
        if losses[place] < self.champion_loss:
            self.champion, self.champion_loss = brood.rows[place].clone(), float(losses[place])
        self.since += 1
        if self.tune != "none" and self.since >= self.tune_every and bool(self._real.any()):
            self._begin_tuning()

    @property
    def best(self):
        return self.champion.clone()

    @property
    def report(self):
        return {name: float(number) for name, number in self.counts.items()}

    def rungs(self, steps):
        return tuple(sorted({min(max(round(hurdle * steps), 1), steps - 1) for hurdle in self.hurdles} - {0}))

    def keep(self, theta, loss, step):
        passed = loss[:, 0].to(torch.float64)
        column = torch.full((len(self.racing),), math.inf, dtype=torch.float64)
        column[self.racing] = torch.where(passed.isnan(), math.inf, passed)
        place = len(self.short)
        self.short.append(column)
        full = len(self.flock.loss) >= SCHEMES[self.scheme].size(self)
        limit = unbeaten(self.flock.short[:, place], self.quantile) if full and not self.tuning else math.inf
        kept = passed.isfinite() & (passed <= limit)
        self.racing[self.racing.clone()] = kept
        return kept

    def state_dict(self):
        tuning = self.tuning
        return {
            "flock": {name: part.clone() for name, part in self.flock._asdict().items()},
            "waiting": self.waiting.clone(),
            "champion": self.champion.clone(),
            "champion_loss": torch.tensor(self.champion_loss, dtype=torch.float64),
            "seen": self.seen.state_dict(),
            "counts": dict(self.counts),
            "since": self.since,
            "tuning": {}
            if tuning is None
            else {
                "row": tuning.row.clone(),
                "best": tuning.best.clone(),
                "loss": torch.tensor(tuning.loss, dtype=torch.float64),
                "left": tuning.left,
                "inner": tuning.inner.state_dict(),
            },
        }

    def load_state_dict(self, state: dict[str, Any]):
        self.flock = Flock(**{name: part.clone() for name, part in state["flock"].items()})
        self.waiting, self.champion = state["waiting"].clone(), state["champion"].clone()
        self.champion_loss, self.since = float(state["champion_loss"]), state["since"]
        self.counts = dict(state["counts"])
        self.seen.load_state_dict(state["seen"])
        saved = state["tuning"]
        self.tuning = None
        if saved:
            inner = self._tuner(saved["row"])
            inner.load_state_dict(saved["inner"])
            row, best = saved["row"].clone(), saved["best"].clone()
            self.tuning = Tuning(row, best, float(saved["loss"]), saved["left"], inner)

    @property
    def _real(self) -> Tensor:
        return self.genes.choices == 0

    def _keys(self, rows: Tensor, first: int = 0) -> list[int]:
        """A key per row, equal where the rules are; without the cache no two are."""
        return keys_of(self.fingerprint(rows)) if self.cache else list(range(first, first + len(rows)))

    def _settled(self, flock: Flock, new: Flock) -> Flock:
        return SCHEMES[self.scheme].settle(self, flock, new)

    def _bred(self, candidates: int, noise: Noise) -> Brood:
        """Children until `candidates` of them are new; those that are not settle at once, for nothing."""
        flock, waiting = self.flock, self.waiting
        new: dict[int, Tensor] = {}
        keys, children = [0], waiting[:0]
        bred = recognised = 0
        while len(new) < candidates and bred < max(self.tries, candidates):
            missing = candidates - len(new)
            children, waiting = waiting[:missing], waiting[missing:]
            if len(children) < candidates:
                more = self._children(flock, candidates - len(children), noise.at("bred", bred))
                children = torch.cat((children, more))
            keys = self._keys(children, bred)
            met = [place for place, key in enumerate(keys) if key in self.seen.fates]
            if met:
                flock = self._settled(flock, self.seen.flock(children[met], [keys[place] for place in met]))
            for child, key in zip(children, keys, strict=True):
                if key not in self.seen.fates and len(new) < candidates:
                    new.setdefault(key, child)
            bred += len(children)
            recognised += len(met)
        if not new:  # all that is within reach is known: one of them once more
            new = {keys[0]: children[0]}
        return Brood(torch.stack(list(new.values())), list(new), flock, waiting, bred, recognised)

    def _children(self, flock: Flock, count: int, noise: Noise) -> Tensor:
        scheme = SCHEMES[self.scheme]
        if len(flock.loss) < scheme.size(self):
            return self.genes.random(count, noise)
        return scheme.children(self, flock, count, noise)

    def _begin_tuning(self) -> None:
        self.since = 0
        if math.isfinite(self.champion_loss):
            row = self.champion.clone()
            self.tuning = Tuning(row, row, self.champion_loss, self.tune_generations, self._tuner(row))

    def _tuner(self, row: Tensor) -> CmaEs:
        inner = CmaEs(self.sigma)
        real = [(param, value) for param, value in zip(self.params, row.tolist(), strict=True) if not param.choices]
        inner.start(tuple(replace(param, start=value) for param, value in real))
        return inner

    def _tuned(self, tuning: Tuning, rows: Tensor, losses: Tensor) -> Tuning | None:
        tuning.inner.tell(rows[:, self._real], losses[:, None])
        place = int(losses.argmin())
        if losses[place] < tuning.loss:
            tuning = tuning._replace(best=rows[place].clone(), loss=float(losses[place]))
        if tuning.left > 1:
            return tuning._replace(left=tuning.left - 1)
        if tuning.loss < self.champion_loss:
            self.counts["tuned"] += 1
            same = (self.flock.rows == tuning.row).all(1)
            self.flock.rows[same], self.flock.loss[same] = tuning.best, tuning.loss
            self.champion, self.champion_loss = tuning.best, tuning.loss
        return None


class Scheme(NamedTuple):
    """How many live, who has children, and who lives on once others join."""

    size: Callable[[Genetic], int]
    children: Callable[[Genetic, Flock, int, Noise], Tensor]
    settle: Callable[[Genetic, Flock, Flock], Flock]


def _of_anyone(loop: Genetic, flock: Flock, count: int, noise: Noise) -> Tensor:
    parents = noise.at("parents").integers(len(flock.loss), count)[0]
    return loop.genes.mutated(flock.rows[parents], loop.mutation, loop.sigma, noise)


def _of_winners(loop: Genetic, flock: Flock, count: int, noise: Noise) -> Tensor:
    drawn = noise.at("tournament").integers(len(flock.loss), count, loop.tournament)[0]
    winners = drawn.gather(1, flock.loss[drawn].argmin(1, keepdim=True))[:, 0]
    return loop.genes.mutated(flock.rows[winners], loop.mutation, loop.sigma, noise)


def _of_nobody(loop: Genetic, flock: Flock, count: int, noise: Noise) -> Tensor:
    return loop.genes.random(count, noise)


SCHEMES = {
    "cartesian": Scheme(
        lambda loop: loop.parents, _of_anyone, lambda loop, flock, new: new.joined(flock).fittest(loop.parents)
    ),
    "regularised": Scheme(
        lambda loop: loop.population,
        _of_winners,
        lambda loop, flock, new: flock.joined(new).taken(slice(-loop.population, None)),
    ),
    "random": Scheme(lambda loop: 1, _of_nobody, lambda loop, flock, new: new.joined(flock).fittest(1)),
}
"""The schemes by name."""
