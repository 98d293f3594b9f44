"""Time of a meta-step: the published loop structure against the population engine, on the same work.

The network and episode are those of `feedback_alignment_terms` (784-170-130-100-70-47, softplus, 250 images shown one
at a time, 50 queries) with images of random pixels; what is measured is the gradient of the queries' cross-entropy in
the three coefficients, averaged over the same tasks. `published` has the structure of the released code (Shervani-Tabar
and Rosenbaum, 2023): one task at a time, a torch.nn.Module called with the weights of the step, every term a matrix of
the weights' size, autograd through all steps. The others are metarule's engines. The gradients are compared first.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarule.bench_process import threads
from metarule.credit.feedback import feedback_name
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.inner import Adjoint, Fused, InBlocks, Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rng import Noise, noise_for
from metarule.rules.terms import Terms
from metarule.signals import Batch, State
from metarule.synapses.sgd import Sgd
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task

SIZES = (784, 170, 130, 100, 70, 47)
BETA = 10.0
GRADIENT = frozenset({"loss", "grad"})
WAYS, SHOTS, QUERIES = 5, 50, 10
THETA = (1e-3, -1e-3, 1e-3)
"""Coefficients of error_pre, error_pre_error and subspace_oja where no run is chaotic."""


class Images(NamedTuple):
    """What every run is shown and asked: one image per step, then the queries."""

    shown: Float[Tensor, "R T J"]
    labels: Int[Tensor, "R T"]
    queries: Float[Tensor, "R Q J"]
    answers: Int[Tensor, "R Q"]


POOL = 512
"""Random images that every run draws its own from."""


@dataclass(frozen=True)
class Pass(Task):
    """Random images of five classes, told by where they are bright; each step shows one."""

    kind = "bench_pass"
    source = "this module"
    metrics = scores.CLASSIFICATION

    length: int = WAYS * SHOTS

    @property
    def inputs(self) -> int:
        return SIZES[0]

    @property
    def outputs(self) -> int:
        return SIZES[-1]

    def sample(self, noise: Noise, batch: int) -> Episode:
        return _Episode(self.images(noise))

    def held_out(self) -> Task:
        return self

    def images(self, noise: Noise) -> Images:
        """The images of every run."""
        pool, labels = _pool(noise.dtype)
        rows = noise.at("rows").integers(POOL, self.length + WAYS * QUERIES)
        shown, asked = rows[:, : self.length], rows[:, self.length :]
        return Images(pool[shown], labels[shown], pool[asked], labels[asked])


@functools.lru_cache(maxsize=2)
def _pool(dtype: torch.dtype) -> tuple[Float[Tensor, "images J"], Int[Tensor, "images"]]:
    noise = noise_for([("bench_meta",)], dtype)
    labels = noise.at("labels").integers(WAYS, POOL)[0]
    return noise.at("classes").uniform(WAYS, SIZES[0])[0][labels] * noise.at("blur").uniform(POOL, SIZES[0])[0], labels


@dataclass(frozen=True, eq=False)
class _Episode(Episode):
    images: Images

    def train(self, step):
        target = functional.one_hot(self.images.labels[:, step, None], SIZES[-1]).to(self.images.shown.dtype)
        return Batch(self.images.shown[:, step, None], target)

    def score(self, respond, weights):
        return scores.classification(respond, self.images.queries, self.images.answers)


class Setting(NamedTuple):
    """What both start from: the learner, its task, the tasks' images and initial weights."""

    learner: Learner
    task: Pass
    images: Images
    state: State
    runs: int
    dtype: torch.dtype


def setting(runs: int, length: int = WAYS * SHOTS, dtype: torch.dtype = torch.float32) -> Setting:
    """`runs` tasks of `length` steps."""
    network = Network.chain(SIZES, "softplus", beta=BETA)
    learner = Learner(network, FeedbackAlignment(), {"forward": Terms(normalise=False)}, {ANY: Sgd()})
    noise = noise_for([(0, "episode", run) for run in range(runs)], dtype)
    task = Pass(length)
    state = learner.init(learner.columns(torch.zeros(runs, len(THETA), dtype=dtype)), noise)
    return Setting(learner, task, task.images(noise.at("data")), state, runs, dtype)


class PublishedNetwork(torch.nn.Module):
    """The network as a module: five linear layers without biases, softplus between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(size_in, size_out, bias=False) for size_in, size_out in itertools.pairwise(SIZES)
        )

    def forward(self, x: Float[Tensor, "B J"]) -> list[Float[Tensor, "B I"]]:
        """The rates of all layers, the input first and the drive of the output last."""
        rates = [x]
        for layer in self.layers[:-1]:
            rates.append(functional.softplus(layer(rates[-1]), beta=BETA, threshold=40.0))
        return [*rates, self.layers[-1](rates[-1])]


def published(world: Setting) -> Float[Tensor, "P"]:
    """The meta-gradient by the published loop: task after task, and an update per term, layer and step."""
    theta = torch.tensor(THETA, dtype=world.dtype, requires_grad=True)
    model = PublishedNetwork().to(world.dtype)
    names = [name for name, _ in model.named_parameters()]
    drawn = [world.state["weights"][p.name] for p in world.learner.network.projections]
    returning = [world.state["weights"][feedback_name(p)] for p in world.learner.network.projections]
    total = torch.zeros_like(theta)
    for run in range(world.runs):
        weights = {name: weight[run] for name, weight in zip(names, drawn, strict=True)}
        feedback = [weight[run] for weight in returning]
        for image, label in zip(world.images.shown[run], world.images.labels[run], strict=True):
            rates = torch.func.functional_call(model, weights, (image[None],))
            weights = _updated(weights, feedback, rates, label[None], theta)
        answer = torch.func.functional_call(model, weights, (world.images.queries[run],))[-1]
        loss = functional.cross_entropy(answer, world.images.answers[run])
        total += torch.autograd.grad(loss, theta)[0]
    return total / world.runs


def _updated(
    weights: dict[str, Tensor],
    feedback: list[Float[Tensor, "J I"]],
    rates: list[Float[Tensor, "B I"]],
    label: Int[Tensor, "B"],
    theta: Float[Tensor, "P"],
) -> dict[str, Float[Tensor, "I J"]]:
    output = torch.softmax(rates[-1], dim=1)
    errors = [functional.one_hot(label, SIZES[-1]) - output]
    for rate, back in zip(reversed(rates[:-1]), reversed(feedback), strict=True):
        errors.insert(0, (errors[0] @ back.t()) * (1 - torch.exp(-BETA * rate)))
    activity = [*rates[:-1], output]
    changed = {}
    for layer, (name, weight) in enumerate(weights.items()):
        pre, post, pre_error, error = activity[layer], activity[layer + 1], errors[layer], errors[layer + 1]
        changed[name] = (
            weight
            + theta[0] * (error.t() @ pre)
            + theta[1] * (error.t() @ pre_error)
            + theta[2] * (post.t() @ pre - (post.t() @ post) @ weight)
        )
    return changed


def by(engine: InBlocks, world: Setting) -> Float[Tensor, "P"]:
    """The meta-gradient by one of metarule's engines: all tasks in one call."""
    outcome = engine.evaluate(
        world.learner,
        torch.tensor([THETA], dtype=world.dtype),
        world.task,
        Runs((0,), tuple(range(world.runs))),
        range(world.task.length),
        wants=GRADIENT,
        carry=world.state,
    )
    assert outcome.grad is not None
    return outcome.grad[0]


def steps(world: Setting) -> dict[str, Callable[[Setting], Float[Tensor, "P"]]]:
    """The published loop, and those engines that can do the same on this machine."""
    engines = [Reference(dtype=world.dtype), Adjoint(dtype=world.dtype), Fused(dtype=world.dtype)]
    able = [engine for engine in engines if engine.can(world.learner, GRADIENT) is None]
    return {"published": published} | {engine.name: functools.partial(by, engine) for engine in able}


def measure(repeats: int = 3, runs: int = 32, length: int = WAYS * SHOTS) -> list[dict[str, Any]]:
    """Seconds per meta-step of `runs` tasks, medians over interleaved repeats; one thread.

    Raises RuntimeError where a gradient differs from the published loop's by more than 1e-3.
    """
    with threads(1):
        world = setting(runs, length)
        ways = steps(world)
        first, *others = (step(world) for step in ways.values())  # also the warm-up
        apart = max(float((other - first).norm() / first.norm()) for other in others)
        if apart > 1e-3:
            raise RuntimeError(f"bench: the meta-gradients differ by {apart:.1e}")
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, step in ways.items():
                began = time.perf_counter()
                step(world)
                seconds[name].append(time.perf_counter() - began)
    return [
        {
            "meta_step": name,
            "tasks": runs,
            "steps": length,
            "seconds": round(statistics.median(times), 3),
            "ratio_to_published": round(
                statistics.median(slow / fast for slow, fast in zip(seconds["published"], times, strict=True)), 2
            ),
        }
        for name, times in seconds.items()
    ]
