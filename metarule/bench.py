"""Throughput of the population engine, interleaved with how it would be written otherwise, as ratios.

The work is the same everywhere: feedback alignment with {error_pre, error_pre_error, subspace_oja}, combined in
activation space, data read by index, weights given. `naive` trains one network at a time; `vmap` maps a one-network
step over runs with torch.func; `reference` and `fused` are metarule's engines, the latter where it has a kernel. Final
weights are compared before anything is timed.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.credit.feedback import feedback_name
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.inner import Fused, Inner, Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rng import Noise, noise_for
from metarule.rules.terms import Terms
from metarule.signals import Batch, State
from metarule.synapses.sgd import Sgd
from metarule.tasks.base import Episode, Rows, Task

POOL = 512
"""Random images that every run draws its batches from."""


class Cell(NamedTuple):
    """One line of the benchmark: a network, R runs, B images per step, T steps."""

    sizes: tuple[int, ...]
    runs: int
    batch: int
    steps: int

    @property
    def network(self) -> str:
        """The sizes, as in 64-32-10."""
        return "-".join(map(str, self.sizes))

    @property
    def operations(self) -> int:
        """Floating-point operations that a step of one run takes at least, of W weights: 10 B W + 2 W.

        Forward, feedback and reconstruction take 2 B W each, the update by 2 B factors 4 B W, reading it 2 W.
        """
        weights = sum(size_in * size_out for size_in, size_out in itertools.pairwise(self.sizes))
        return (10 * self.batch + 2) * weights


CELLS = (
    Cell((64, 32, 10), 64, 16, 50),
    Cell((64, 32, 10), 64, 1, 50),
    Cell((784, 128, 64, 10), 64, 1, 50),
    Cell((784, 128, 64, 10), 64, 16, 30),
)

THETA = {"error_pre": 0.01, "error_pre_error": 0.01, "subspace_oja": 0.005}
"""Raw coefficients small enough that no run is chaotic: engines can be compared weight by weight."""


@dataclass(frozen=True)
class Workload(Task):
    """Random images and labels by index; what is measured is the engine, not the data."""

    kind = "bench"
    source = "this module"
    metrics = {"held_out_loss": "min"}  # noqa: RUF012

    cell: Cell
    data: Data

    @property
    def inputs(self) -> int:
        return self.cell.sizes[0]

    @property
    def outputs(self) -> int:
        return self.cell.sizes[-1]

    def sample(self, noise: Noise, batch: int) -> Episode:
        return _Episode(self.data.images, self.data.targets, order(self.cell, noise))

    def held_out(self) -> Task:
        return self


class Data(NamedTuple):
    """A pool of images, their one-hot labels, and which of them each run sees when."""

    images: Float[Tensor, "images J"]
    targets: Float[Tensor, "images I"]
    order: Int[Tensor, "R T B"]


def drawn(cell: Cell, noise: Noise) -> Data:
    """The cell's data; the pool is one for all runs."""
    one = noise_for([("bench", 0)], noise.dtype)
    images = one.at("images").uniform(POOL, cell.sizes[0])[0]
    targets = torch.eye(cell.sizes[-1], dtype=noise.dtype)[one.at("labels").integers(cell.sizes[-1], POOL)[0]]
    return Data(images, targets, order(cell, noise))


def order(cell: Cell, noise: Noise) -> Int[Tensor, "R T B"]:
    """Which images each run sees at each step."""
    return noise.at("order").integers(POOL, cell.steps, cell.batch)


@dataclass(frozen=True, eq=False)
class _Episode(Episode):
    images: Tensor
    targets: Tensor
    order: Tensor

    def train(self, step):
        rows = self.order[:, step]
        return Batch(self.images[rows], self.targets[rows])

    def rows(self, steps):
        shown = self.order[:, steps.start : steps.stop]
        return Rows(self.images, shown, self.targets, shown)

    def score(self, respond, weights):
        return {"held_out_loss": next(iter(weights.values())).mean((1, 2))}


class Setting(NamedTuple):
    """What every engine starts from: the learner, its data and its initial weights."""

    cell: Cell
    learner: Learner
    data: Data
    state: State

    @property
    def weights(self) -> dict[str, Tensor]:
        """Initial weights by projection."""
        return self.state["weights"]


def setting(cell: Cell) -> Setting:
    """A cell's learner, data and weights, the same for all engines."""
    network = Network.chain(cell.sizes, "tanh")
    rule = Terms(tuple(THETA), normalise=False)
    learner = Learner(network, FeedbackAlignment(), {"forward": rule}, {ANY: Sgd()})
    noise = noise_for([(0, "episode", run) for run in range(cell.runs)], torch.float32)
    state = learner.init(learner.columns(torch.zeros(cell.runs, len(THETA))), noise)
    return Setting(cell, learner, drawn(cell, noise.at("data")), state)


def reference(world: Setting) -> dict[str, Tensor]:
    """All runs in lockstep."""
    return _evaluated(Reference(), world)


def fused(world: Setting) -> dict[str, Tensor]:
    """One run at a time in compiled code."""
    return _evaluated(Fused(), world)


def _evaluated(engine: Inner, world: Setting) -> dict[str, Tensor]:
    cell = world.cell
    outcome = engine.evaluate(
        world.learner,
        torch.tensor([list(THETA.values())]),
        Workload(cell, world.data),
        Runs((0,), tuple(range(cell.runs))),
        range(cell.steps),
        cell.batch,
        wants=frozenset({"carry"}),
        carry=world.state,
    )
    assert outcome.carry is not None
    return outcome.carry["weights"]


def naive(world: Setting) -> dict[str, Tensor]:
    """One network at a time, in place, with the same factored arithmetic and no autograd."""
    cell, names = world.cell, _names(world)
    error_pre, error_pre_error, oja = (value / cell.batch for value in THETA.values())
    finished: dict[str, list[Tensor]] = {name: [] for name, _ in names}
    with torch.no_grad():
        for run in range(cell.runs):
            forward = [world.weights[name][run].clone() for name, _ in names]
            feedback = [world.weights[back][run] for _, back in names]
            for step in range(cell.steps):
                rows = world.data.order[run, step]
                rates = [world.data.images[rows]]
                for weight in forward[:-1]:
                    rates.append(torch.tanh(rates[-1] @ weight.t()))
                rates.append(torch.softmax(rates[-1] @ forward[-1].t(), dim=1))
                error = world.data.targets[rows] - rates[-1]
                for layer in range(len(forward) - 1, -1, -1):
                    pre, post, weight = rates[layer], rates[layer + 1], forward[layer]
                    pre_error = (error @ feedback[layer].t()) * (1 - pre * pre)
                    left = torch.cat((error, post))
                    taught = torch.add(pre * error_pre, pre_error, alpha=error_pre_error)
                    kept = torch.addmm(pre * oja, post, weight, alpha=-oja)
                    weight.addmm_(left.t(), torch.cat((taught, kept)))
                    error = pre_error
            for (name, _), weight in zip(names, forward, strict=True):
                finished[name].append(weight)
    return {name: torch.stack(weights) for name, weights in finished.items()}


def vmap(world: Setting) -> dict[str, Tensor]:
    """A one-network step mapped over runs by torch.func.vmap: the shortest way to write a population."""
    cell, names = world.cell, _names(world)

    error_pre, error_pre_error, oja = (value / cell.batch for value in THETA.values())

    def step(forward: list[Tensor], feedback: list[Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
        rates = [x]
        for weight in forward[:-1]:
            rates.append(torch.tanh(rates[-1] @ weight.t()))
        rates.append(torch.softmax(rates[-1] @ forward[-1].t(), dim=1))
        error = y - rates[-1]
        updated = list(forward)
        for layer in range(len(forward) - 1, -1, -1):
            pre, post, weight = rates[layer], rates[layer + 1], forward[layer]
            pre_error = (error @ feedback[layer].t()) * (1 - pre * pre)
            taught = error_pre * pre + error_pre_error * pre_error
            kept = oja * (pre - post @ weight)
            updated[layer] = weight + torch.cat((error, post)).t() @ torch.cat((taught, kept))
            error = pre_error
        return updated

    mapped = torch.func.vmap(step)
    forward = [world.weights[name] for name, _ in names]
    feedback = [world.weights[back] for _, back in names]
    with torch.no_grad():
        for number in range(cell.steps):
            rows = world.data.order[:, number]
            forward = mapped(forward, feedback, world.data.images[rows], world.data.targets[rows])
    return {name: weight for (name, _), weight in zip(names, forward, strict=True)}


Engine = Callable[[Setting], dict[str, Tensor]]
ENGINES: dict[str, Engine] = {"naive": naive, "vmap": vmap, "reference": reference}


def engines(world: Setting) -> dict[str, Engine]:
    """Those that can do the work on this machine."""
    return ENGINES if Fused().can(world.learner) else {**ENGINES, "fused": fused}


def _names(world: Setting) -> list[tuple[str, str]]:
    return [(p.name, feedback_name(p)) for p in world.learner.network.projections]


def agreement(world: Setting) -> float:
    """Largest difference of any final weight between the engines, relative to the largest weight."""
    results = [engine(world) for engine in engines(world).values()]
    last = results[-1]
    largest = max(float(last[name].abs().max()) for name, _ in _names(world))
    return max(
        float((result[name] - last[name]).abs().max()) / largest for result in results for name, _ in _names(world)
    )


def _sgemm(size: int = 1024) -> float:
    """Operations per second of torch's product of two large matrices: what a step could reach at most."""
    left, right = torch.rand(2, size, size)
    began = time.perf_counter()
    torch.mm(left, right)
    return 2 * size**3 / (time.perf_counter() - began)


def measure(repeats: int = 5, cells: tuple[Cell, ...] = CELLS) -> list[dict[str, Any]]:
    """Run-steps per second of every engine on every cell, medians over interleaved repeats; one thread.

    `fraction_of_sgemm` is the share of a large matrix product's speed at which the step's least operations are done.
    Raises RuntimeError where two engines do not compute the same weights to 1e-4.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for cell in cells:
            world = setting(cell)
            apart = agreement(world)  # also the warm-up
            if apart > 1e-4:
                raise RuntimeError(f"bench: engines differ by {apart:.1e} on {cell}")
            running = engines(world)
            seconds: dict[str, list[float]] = {name: [] for name in running}
            peak = []
            for _ in range(repeats):
                peak.append(_sgemm())
                for name, engine in running.items():
                    began = time.perf_counter()
                    engine(world)
                    seconds[name].append(time.perf_counter() - began)
            for name, times in seconds.items():
                ratios = {
                    f"ratio_to_{other}": [slow / fast for slow, fast in zip(seconds[other], times, strict=True)]
                    for other in ("naive", "reference")
                }
                speed = cell.runs * cell.steps / statistics.median(times)
                rows.append(
                    {
                        "network": cell.network,
                        "runs": cell.runs,
                        "batch": cell.batch,
                        "steps": cell.steps,
                        "engine": name,
                        "run_steps_per_second": round(speed, 1),
                        **{key: round(statistics.median(values), 2) for key, values in ratios.items()},
                        "fraction_of_sgemm": round(speed * cell.operations / statistics.median(peak), 3),
                    }
                )
    finally:
        torch.set_num_threads(threads)
    return rows
