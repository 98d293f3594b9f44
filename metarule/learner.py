"""Learner: credit assignment x rules x synapse models, and the columns of theta that belong to each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.credit import CREDIT, CreditAssignment
from metarule.network import Network, Projection
from metarule.params import Param
from metarule.rng import Noise
from metarule.rules import Rule
from metarule.signals import Batch, State
from metarule.synapses import SynapseModel

ANY = "any"
"""The key of a rule or synapse model that serves every plastic projection without one of its own."""

READOUT = "readout"
"""The key of a rule or synapse model that serves the forward projections into the output."""


def always_one(step: int) -> Mapping[str, float]:
    """The schedule that leaves every rate as it is."""
    return {}


class Columns(NamedTuple):
    """Rows of theta taken apart, (R, p) each: the credit assignment's, and one per rule and synapse key."""

    credit: Tensor
    rules: dict[str, Tensor]
    synapses: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Learner:
    """A network and how it learns.

    `rules` and `synapses` are keyed by projection name, by `READOUT`, by role, or by `ANY`; the first that fits, in
    this order, serves a projection, and one key is one set of parameters. A projection without a rule stays as it was
    drawn. `schedule(step)` multiplies rates by projection name or role (0: not stepped). `fixed` keeps numbers out of
    theta, `start` says where those in theta start, by name, in place of `Param.start`.
    Raises ValueError where parts do not fit together, naming kinds of credit that would.
    """

    network: Network
    credit: CreditAssignment
    rules: Mapping[str, Rule]
    synapses: Mapping[str, SynapseModel]
    schedule: Callable[[int], Mapping[str, float]] = always_one
    fixed: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_keys()
        self._check_signals()
        for role in self.credit.plastic_roles:
            if not any(p.role == role and self.rule_key(p) for p in self.projections):
                raise ValueError(
                    f"credit.kind = '{self.credit.kind}' makes its {role} projections plastic, "
                    f"but no rule serves them; add [rules.{role}]"
                )
        for wanted, allowed in self.credit.requires.items():
            hidden = {population.activation for population in self.network.populations[1:-1]}
            given = {"output": {self.network.output}, "activation": hidden}[wanted]
            if not given <= set(allowed):
                raise ValueError(
                    f"credit.kind = '{self.credit.kind}' needs network.{wanted} to be one of {', '.join(allowed)}; "
                    f"it is {', '.join(sorted(given))}"
                )
        names = {param.name for param in self.all_params}
        for owner, given in (("fixed", self.fixed), ("start", self.start)):
            for name in given:
                if name not in names:
                    raise ValueError(unknown(owner, name, names))

    def _check_keys(self) -> None:
        names = {p.name for p in self.projections} | {p.role for p in self.projections} | {READOUT, ANY}
        for owner, keys in (("rules", self.rules), ("synapses", self.synapses)):
            for key in keys:
                if key not in names and key in self.credit.plastic_roles:
                    raise ValueError(
                        f"credit.kind = '{self.credit.kind}' has no {key} projections in this network; it needs at "
                        "least one hidden layer"
                    )
                if key not in names:
                    raise ValueError(unknown(owner, key, names))
        if not self.plastic:
            raise ValueError("no projection has a rule: nothing would learn")
        for projection in self.plastic:
            if not self.synapse_key(projection):
                raise ValueError(f"projection '{projection.name}' has a rule but no synapse model; add [synapse]")

    def _check_signals(self) -> None:
        for projection in self.plastic:
            rule = self.rules[self.rule_key(projection) or ANY]
            missing = rule.reads - self.credit.gives_at(self.network, projection)
            if missing:
                fits = sorted(k for k, credit in CREDIT.items() if rule.reads <= self._given(credit, projection))
                raise ValueError(
                    f"rule '{rule.kind}' reads {', '.join(sorted(missing))} at '{projection.name}', which "
                    f"credit.kind = '{self.credit.kind}' does not give; "
                    f"kinds of credit that fit: {', '.join(fits) or 'none known'}"
                )

    def _given(self, credit: type[CreditAssignment], projection: Projection) -> frozenset[str]:
        """The signals that a kind of credit with its default settings gives at a projection."""
        try:
            return credit().gives_at(self.network, projection)
        except (TypeError, ValueError):  # a kind without defaults, or one that refuses this network
            return frozenset()

    @functools.cached_property
    def projections(self) -> tuple[Projection, ...]:
        """All projections, the network's and those of the credit assignment."""
        return self.network.projections + self.credit.projections(self.network)

    @functools.cached_property
    def plastic(self) -> tuple[Projection, ...]:
        """The projections that a rule serves."""
        return tuple(projection for projection in self.projections if self.rule_key(projection))

    def rule_key(self, projection: Projection) -> str | None:
        """The key of the rule that serves a projection; None where it is fixed."""
        return self._first(self.rules, projection)

    def synapse_key(self, projection: Projection) -> str | None:
        """The key of the synapse model that serves a projection."""
        return self._first(self.synapses, projection)

    def _first(self, parts: Mapping[str, object], projection: Projection) -> str | None:
        reads_out = projection.role == "forward" and projection.target == self.network.output_name
        keys = (projection.name, *((READOUT,) if reads_out else ()), projection.role, ANY)
        return next((key for key in keys if key in parts), None)

    @functools.cached_property
    def wanted(self) -> dict[str, frozenset[str]]:
        """Plastic projection -> signals that its rule reads."""
        return {p.name: self.rules[self.rule_key(p) or ANY].reads for p in self.plastic}

    @functools.cached_property
    def _serving(self) -> dict[str, SynapseModel]:
        """The synapse models that serve a plastic projection; others have no numbers to search over."""
        used = {self.synapse_key(projection) for projection in self.plastic}
        return {key: synapse for key, synapse in self.synapses.items() if key in used}

    @functools.cached_property
    def all_params(self) -> tuple[Param, ...]:
        """All parts' parameters, fixed ones included."""
        params = [param.renamed("credit") for param in self.credit.params]
        for key, rule in sorted(self.rules.items()):  # theta's columns do not depend on how a table was written
            params += [param.renamed(owner_of("rule", key)) for param in rule.params]
        for key, synapse in sorted(self._serving.items()):
            params += [param.renamed(owner_of("synapse", key)) for param in synapse.params]
        return tuple(replace(param, start=self.start.get(param.name, param.start)) for param in params)

    @functools.cached_property
    def _values(self) -> dict[str, float]:
        """Everything that is not in theta: what the user fixed, and rates that coefficients already carry."""
        values = dict(self.fixed)
        for key, synapse in self._serving.items():
            served = [self.rules[self.rule_key(p) or ANY] for p in self.plastic if self.synapse_key(p) == key]
            name = f"{owner_of('synapse', key)}.rate"
            if synapse.owns_scale or name in values or not any(rule.params for rule in served):
                continue
            if not all(rule.params for rule in served):
                raise ValueError(
                    f"synapse model '{key}' serves a rule whose coefficients carry the step size and one that has "
                    "none; give the latter a synapse model of its own, [synapses.NAME]"
                )
            values[name] = 1.0
        return values

    @functools.cached_property
    def params(self) -> tuple[Param, ...]:
        """What an outer loop sees: all parts' parameters that are not fixed, in the order of theta's columns."""
        held = self._values
        return tuple(
            replace(param, when=tuple(each for each in param.when if each[0] not in held))
            for param in self.all_params
            if param.name not in held
        )

    def columns(self, theta: Float[Tensor, "R P"]) -> Columns:
        """Each part's own full-width rows; raises ValueError where theta has another width than `params`."""
        if theta.shape[1] != len(self.params):
            raise ValueError(f"theta has {theta.shape[1]} columns; this learner has {len(self.params)} parameters")
        columns, count = theta.unbind(1), theta.shape[0]

        def rows(names: tuple[str, ...]) -> Tensor:
            parts = [
                columns[self._places[name]] if name in self._places else theta.new_full((count,), self._values[name])
                for name in names
            ]
            return torch.stack(parts, dim=1) if parts else theta.new_zeros(count, 0)

        credit, rules, synapses = self._names
        return Columns(
            rows(credit),
            {key: rows(names) for key, names in rules.items()},
            {key: rows(names) for key, names in synapses.items()},
        )

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        """Parameter -> its column of theta."""
        return {param.name: column for column, param in enumerate(self.params)}

    @functools.cached_property
    def _names(self) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        """The parameters of each part, fixed ones included: the credit assignment's, and by rule and synapse key."""

        def named(owner: str, params: tuple[Param, ...]) -> tuple[str, ...]:
            return tuple(f"{owner}.{param.name}" for param in params)

        return (
            named("credit", self.credit.params),
            {key: named(owner_of("rule", key), rule.params) for key, rule in self.rules.items()},
            {key: named(owner_of("synapse", key), synapse.params) for key, synapse in self._serving.items()},
        )

    def init(self, columns: Columns, noise: Noise, given: Mapping[str, Tensor] | None = None) -> State:
        """Everything a run carries from step to step, at its start.

        Weights (R I J) are `given` by projection name or come from the episode's noise.
        """
        drawn = {p.name: self.network.draw(p, noise) for p in self.projections} | dict(given or {})
        weights = dict(self.credit.tied(self.network, drawn))
        rules = {
            p.name: self.rules[key].init(columns.rules[key], weights[p.name])
            for p in self.plastic
            if (key := self.rule_key(p))
        }
        synapses = {
            p.name: self.synapses[key].init(columns.synapses[key], weights[p.name])
            for p in self.plastic
            if (key := self.synapse_key(p))
        }
        credit = self.credit.init(columns.credit, self.network, weights, noise)
        return {"weights": weights, "credit": credit, "rules": rules, "synapses": synapses}

    @property
    def weights_per_run(self) -> int:
        """Numbers that one run holds as weights, feedback included."""
        return sum(math.prod(self.network.shape(p)) for p in self.projections)

    @property
    def rule_numbers_per_run(self) -> int:
        """Numbers that rules with much to compute at every synapse take in a step of one run."""
        served = [(self.rules[self.rule_key(p) or ANY], math.prod(self.network.shape(p))) for p in self.plastic]
        return sum(rule.per_synapse * size for rule, size in served)

    @property
    def units(self) -> tuple[int, ...]:
        """The sizes of its populations."""
        return tuple(self.network.sizes.values())

    def complexity(self, theta: Float[Tensor, "R P"]) -> Float[Tensor, "R"]:
        """The parts in use of all rules, see `Rule.complexity`."""
        columns = self.columns(theta).rules
        return sum((rule.complexity(columns[key]) for key, rule in self.rules.items()), theta.new_zeros(len(theta)))

    def induced(
        self, columns: Columns, state: State, batch: Batch, step: int, noise: Noise
    ) -> dict[str, Float[Tensor, "R I J"]]:
        """Plastic projection -> the change that a batch induces, before any synapse model; nothing is applied.

        The sum over the stages of the batch, all of them from the weights as they are.
        """
        credit_state, rule_states = state["credit"], dict(state["rules"])
        changes = {p.name: torch.zeros_like(state["weights"][p.name]) for p in self.plastic}
        for k in range(self.credit.stages(self.network, batch)):
            signals, credit_state = self.credit.stage(
                k, columns.credit, self.network, state["weights"], credit_state, batch, step, noise.at("credit", k),
                self.wanted,
            )  # fmt: skip
            for projection in self.plastic:
                name, key = projection.name, self.rule_key(projection) or ANY
                if name in signals:
                    change, rule_states[name] = self.rules[key].delta(
                        columns.rules[key], signals[name], rule_states[name], noise.at("rule", name, k)
                    )
                    changes[name] = changes[name] + change.tensor(state["weights"][name])
        return changes

    def rates(self, step: int, frozen: frozenset[str] = frozenset()) -> dict[str, float]:
        """Plastic projection -> the schedule's multiplier of its rate at `step`; 0 where the task forbids learning."""
        scheduled = self.schedule(step)
        return {
            p.name: 0.0 if p.name in frozen else float(scheduled.get(p.name, scheduled.get(p.role, 1.0)))
            for p in self.plastic
        }


def owner_of(part: str, key: str) -> str:
    """How the parameters of a rule or synapse model begin: "rule.forward", or "synapse" where it serves any."""
    return part if key == ANY else f"{part}.{key}"
