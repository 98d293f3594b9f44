"""What several test files build: addressed noise, random signals, fitting learners, and tasks small enough to check."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.credit import CreditAssignment
from metarule.inner import Inner, Outcome, Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import Param, starts
from metarule.rng import Noise, noise_for
from metarule.rules import Rule
from metarule.rules.textbook import Contrastive, Delta, Difference, Hebb, NodePerturbation, Oja, WeightPerturbation
from metarule.signals import Batch, Signals, State
from metarule.synapses import SynapseModel
from metarule.synapses.sgd import Sgd
from metarule.tasks import Task
from metarule.tasks.base import Episode
from metarule.zoo import ZOO

EXACT = Reference(dtype=torch.float64)
"""The reference engine in float64, what most tests compare with."""

PRE_SIDE = ("pre", "pre_ref", "pre_error")
POST_SIDE = ("post", "post_ref", "feedback", "error", "gain")
SYNAPSE_SIDE = ("weight", "weight_noise", "eligibility")
EVENT_SIDE = ("reward",)


def make(kind: type[Any], *arguments: Any, **settings: Any) -> Any:
    """An instance of a collected member: the dicts are typed by their abstract base."""
    return kind(*arguments, **settings)


def address(*labels: str | int, runs: int = 1, dtype: torch.dtype = torch.float64) -> Noise:
    """One stream per run, run r at (labels, r)."""
    return noise_for([(*labels, run) for run in range(runs)], dtype)


def signal_shapes(size_out: int, size_in: int, events: int) -> dict[str, tuple[int, int]]:
    """The shape of every signal at an I x J projection, the run axis apart."""
    shapes: dict[str, tuple[int, int]] = {}
    shapes |= dict.fromkeys(PRE_SIDE, (events, size_in)) | dict.fromkeys(POST_SIDE, (events, size_out))
    return shapes | dict.fromkeys(SYNAPSE_SIDE, (size_out, size_in)) | dict.fromkeys(EVENT_SIDE, (events, 1))


def random_signals(
    noise: Noise, size_out: int, size_in: int, events: int, names: frozenset[str] | None = None
) -> Signals:
    """Standard normal signals at one projection, only those called `names` (default all) and the weight."""
    shapes = signal_shapes(size_out, size_in, events)
    wanted = shapes if names is None else names | {"weight"}
    return Signals(**{name: noise.at(name).normal(*shapes[name]) for name in shapes if name in wanted})


def given_signals(signals: Signals) -> dict[str, Tensor]:
    """The signals that are there, by name."""
    values = {name: getattr(signals, name) for name in Signals.__dataclass_fields__}
    return {name: value for name, value in values.items() if value is not None}


def random_theta(params: tuple[Param, ...], noise: Noise) -> Float[Tensor, "R P"]:
    """Rows inside the parameters' bounds, half a unit about their starts; categorical ones are drawn."""
    rows = noise.at("theta").normal(max(len(params), 1))
    values = [
        [
            float(int(abs(z) * 1000) % len(param.choices)) if param.choices else param.decode(0.5 * z)
            for param, z in zip(params, row, strict=False)
        ]
        for row in rows.tolist()
    ]
    return torch.tensor(values, dtype=noise.dtype).reshape(noise.runs, len(params))


def start_row(learner: Learner, **values: float) -> Float[Tensor, "1 P"]:
    """The learner's starting theta with some values set, by the last part of their names."""
    row = starts(learner.params)
    for name, value in values.items():
        places = [place for place, param in enumerate(learner.params) if param.name.rpartition(".")[2] == name]
        assert places, f"no parameter called {name}"
        row[places] = value
    return row[None]


def fitting_rule(credit: CreditAssignment, gives: frozenset[str]) -> Rule:
    """The textbook rule that reads most of what `credit` gives."""
    for rule in (Delta(), Contrastive(), Difference(), NodePerturbation(), WeightPerturbation(), Oja(), Hebb()):
        if rule.reads <= gives:
            return rule
    raise AssertionError(f"no textbook rule reads what credit '{credit.kind}' gives: {sorted(gives)}")


def fitting_learner(
    credit: CreditAssignment,
    sizes: tuple[int, ...] = (6, 5, 4, 3),
    synapse: SynapseModel | None = None,
    rule: Rule | None = None,
    **settings: Any,
) -> Learner:
    """A learner for any kind of credit: a chain that satisfies it, with the rules and numbers of the zoo's first row.

    A kind without a row gets the textbook rules that read what it gives.
    """
    row = next((row for row in ZOO.values() if row.credit == credit), None)
    network = Network.chain(
        sizes,
        activation=credit.requires.get("activation", ("tanh",))[0],
        output=settings.pop("output", credit.requires.get("output", ("softmax",))[0]),
        bias=settings.pop("bias", True),
    )
    rules = {**row.rules} if row else {"forward": fitting_rule(credit, credit.gives)}
    if rule:
        rules["forward"] = rule
    if row and "start" not in settings:
        settings["start"] = {name: value for name, value in row.values.items() if name.startswith(("credit.", "rule."))}
    for projection in credit.projections(network):
        if projection.role in credit.plastic_roles and projection.role not in rules:
            rules[projection.role] = fitting_rule(credit, credit.gives_at(network, projection))
    # a rule with coefficients carries the step size: it shares no synapse model with one that has none
    apart = len(rules) > 1 and any(made.params for made in rules.values())
    keys = (ANY, *rules) if apart else (ANY,)
    synapses = dict.fromkeys(keys, synapse or Sgd())
    return Learner(network, credit, rules, synapses, **settings)


@dataclass(frozen=True)
class Imitation(Task):
    """Targets of a random linear teacher with a softmax; standard normal inputs: the smallest supervised task.

    Scored by the squared distance of the output rates to the targets, and by its negative.
    """

    inputs: int = 6  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    outputs: int = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    kind = "imitation"
    source = "made for the tests"
    metrics = {"distance": "min", "closeness": "max"}  # noqa: RUF012

    def sample(self, noise, batch):
        return ImitationEpisode(noise, noise.at("teacher").normal(self.outputs, self.inputs), batch)

    def held_out(self):
        return self


@dataclass(eq=False)
class ImitationEpisode(Episode):
    """One teacher per run."""

    noise: Noise
    teacher: Float[Tensor, "R I J"]
    batch: int

    def train(self, step):
        x, y = self._pair(self.noise.at("train", step), self.batch)
        return Batch(x, y, reward=lambda action: -(action - y).square().sum(-1, keepdim=True))

    def score(self, respond, weights):
        x, y = self._pair(self.noise.at("test"), 8)
        rates = respond(x).rates
        distance = (rates[next(reversed(rates))] - y).square().sum(-1).mean(1)
        return {"distance": distance, "closeness": -distance}

    def _pair(self, noise: Noise, events: int) -> tuple[Tensor, Tensor]:
        x = noise.normal(events, self.teacher.shape[2])
        return x, torch.softmax(torch.bmm(x, self.teacher.transpose(1, 2)), dim=-1)


def train(
    learner: Learner,
    theta: Float[Tensor, "C P"],
    steps: int | range = 10,
    task: Task | None = None,
    engine: Inner = EXACT,
    runs: Runs | None = None,
    **settings: Any,
) -> Outcome:
    """Evaluate candidates on one episode each unless told otherwise, three events a step, carry included."""
    sizes = learner.network.sizes
    task = task or Imitation(sizes[learner.network.input_name], sizes[learner.network.output_name])
    runs = runs or Runs(tuple(range(len(theta))), (0,))
    span = range(steps) if isinstance(steps, int) else steps
    settings = {"batch": 3, "wants": frozenset({"loss", "carry"})} | settings
    return engine.evaluate(learner, theta, task, runs, span, **settings)


def flat(state: State, path: str = "") -> dict[str, Tensor]:
    """Every tensor of a state by its path."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        found |= flat(value, f"{path}/{name}") if isinstance(value, dict) else {f"{path}/{name}": value}
    return found


def assert_states_close(state: State, other: State, tolerance: float) -> None:
    """Two states have the same tensors, element by element; tolerance 0 means the same bits."""
    first, second = flat(state), flat(other)
    assert first.keys() == second.keys()
    for name in first:
        if tolerance:
            torch.testing.assert_close(first[name], second[name], rtol=tolerance, atol=tolerance, msg=name)
        else:
            assert torch.equal(first[name], second[name]), name


def central_differences(
    function: Callable[[Tensor], Tensor], at: Float[Tensor, "R P"], width: float = 1e-6
) -> Float[Tensor, "R P"]:
    """d function / d at, where row r of `at` moves element r of the result only."""
    columns = []
    for column in range(at.shape[1]):
        step = torch.zeros_like(at)
        step[:, column] = width
        columns.append((function(at + step) - function(at - step)) / (2 * width))
    return torch.stack(columns, dim=1)


class Job(NamedTuple):
    """A number to double, in a process that may be told to die: `once` by the first of its tries, else by each."""

    number: int
    flag: Path | None = None
    once: bool = True


def doubled(job: Job) -> int:
    if job.flag is not None and not (job.once and job.flag.exists()):
        with job.flag.open("a") as handle:
            handle.write("died\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * job.number
