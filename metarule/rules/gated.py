"""Gated: terms remembered over several time constants at once, and a scalar that turns the memories into a change."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.params import Param
from metarule.rules.base import Rule
from metarule.rules.traces import check_term, happened, left_over
from metarule.signals import Change
from metarule.terms import FACTORS, TERMS

UNGATED = "none"
"""The gate that is always open."""

GATES = (UNGATED, *(name for name, factor in FACTORS.items() if factor.side == "event"))


@dataclass(frozen=True)
class Gated(Rule):
    """dW = gate sum_{k,n} theta_{k,n} e_{k,n}; e_{k,n} <- exp(-1 / tau_n) e_{k,n} + term_k, tau_n in events.

    `gate` is "none" (1, a rule of several time scales), the reward (three factors) or another scalar per event. With
    `normalise` a theta means the same at every width and time constant: it is multiplied by the term's scale and by
    1 - exp(-1 / tau_n). Parameters are "post_pre_tau0" and so on; where `search_taus`, also "tau0", ..., from `taus`
    on, on a log scale. One event at a time, as `eligibility`, which is one term with one time constant.
    State: K x N weight-sized memories. Raises ValueError on an unknown, repeated or missing term, on one that reads the
    reward, on a gate that is no scalar per event, and on time constants below 0.1.
    """

    kind = "gated"
    source = "Frémaux and Gerstner 2016; Gerstner et al. 2018"

    terms: tuple[str, ...] = ("post_change_pre", "post_pre")
    taus: tuple[float, ...] = (2.0, 20.0)
    gate: str = "reward"
    search_taus: bool = False
    normalise: bool = True
    start: dict[str, float] = field(default_factory=dict, hash=False)
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, given in (("terms", self.terms), ("taus", self.taus)):
            if not given:
                raise ValueError(f"rule.{name} is empty; give at least one")
            if len(set(given)) < len(given):
                raise ValueError(f"rule.{name} = {list(given)} has one twice")
        for name in self.terms:
            check_term("rule.terms", name)
        for tau in self.taus:
            if not 0.1 <= tau < math.inf:
                raise ValueError(f"rule.taus = {list(self.taus)}: a time constant is at least 0.1 events")
        if self.gate not in GATES:
            raise ValueError(unknown("rule.gate", self.gate, GATES))
        for name in self.start:
            if name not in self._coefficients:
                raise ValueError(unknown("rule.start", name, self._coefficients))

    @property
    def _coefficients(self) -> tuple[str, ...]:
        return tuple(f"{name}_tau{place}" for name in self.terms for place in range(len(self.taus)))

    @property
    def params(self):
        coefficients = (Param(name, self.start.get(name, 0.0), self.scale) for name in self._coefficients)
        taus = enumerate(self.taus) if self.search_taus else ()
        return (*coefficients, *(Param(f"tau{place}", tau, low=0.1, log=True) for place, tau in taus))

    @property
    def reads(self):
        gate = () if self.gate == UNGATED else FACTORS[self.gate].reads
        return frozenset(gate).union(*(TERMS[name].reads for name in self.terms))

    @property
    def local(self):
        return all(TERMS[name].local for name in self.terms) and (self.gate == UNGATED or FACTORS[self.gate].local)

    @property
    def per_synapse(self):
        return 2 * len(self.terms) * len(self.taus)  # the memories before and after

    def fitted(self, given):
        kept = tuple(name for name in self.terms if TERMS[name].reads <= given)
        if not kept:
            raise ValueError(f"rule.terms = {list(self.terms)} read none of the signals {', '.join(sorted(given))}")
        starts = {name: value for name, value in self.start.items() if name.rpartition("_tau")[0] in kept}
        return replace(self, terms=kept, start=starts)

    def complexity(self, theta):
        return super().complexity(theta[:, : len(self._coefficients)])

    def units(self, shape):
        size = float(shape[0]) ** -(self.gate != UNGATED and FACTORS[self.gate].summed)
        shares = [1.0 if self.search_taus else -math.expm1(-1 / tau) for tau in self.taus]
        sizes = [TERMS[name].scale(*shape) * size * share for name in self.terms for share in shares]
        return (*sizes, *([1.0] * (len(self.params) - len(sizes))))

    def scales(self, shape):
        return self.units(shape) if self.normalise else (1.0,) * len(self.params)

    def init(self, theta, weight):
        runs, *shape = weight.shape
        return {"eligibility": weight.new_zeros(runs, len(self.terms), len(self.taus), *shape)}

    def delta(self, theta, signals, state, noise):
        coefficients, keep = self._apart(theta, tuple(signals.weight.shape[1:]))
        new = torch.stack([happened(self.kind, name, signals) for name in self.terms], dim=1)  # R K I J
        eligibility = state["eligibility"] * keep[:, None, :, None, None] + new[:, :, None]
        full = torch.einsum("rkn,rknij->rij", coefficients, eligibility)
        if self.gate != UNGATED:
            full = full * FACTORS[self.gate].value(signals)
        return Change(full=full), {"eligibility": eligibility}

    def _apart(self, theta: Float[Tensor, "R P"], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Raw coefficients (R K N), and what each time constant keeps of a memory from event to event (R N)."""
        count = len(self.terms) * len(self.taus)
        raw = (theta * theta.new_tensor(self.scales((shape[0], shape[1]))))[:, :count]
        raw = raw.unflatten(1, (len(self.terms), len(self.taus)))
        if not self.search_taus:
            return raw, left_over(theta.new_tensor(self.taus)).expand(len(theta), -1)
        keep = left_over(theta[:, count:])
        return raw * (1 - keep[:, None]) if self.normalise else raw, keep
