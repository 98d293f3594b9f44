"""The work that every bench measures: small networks that learn images by index, a whole population at a time.

Feedback alignment with {error_pre, error_pre_error, subspace_oja}; R runs are C candidates x E episodes, candidates
that are tried on an episode share its data, feedback and first weights. A run is T steps on B images each, then the
cross-entropy on `ASKED` held-out images.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.collect import unknown
from metarule.credit.feedback import feedback_name
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.inner import Inner, Outcome, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rng import Noise, noise_for
from metarule.rules.terms import Terms
from metarule.signals import Batch, State
from metarule.synapses.sgd import Sgd
from metarule.tasks import scores
from metarule.tasks.base import Asked, Episode, Rows, Task

POOL, HELD_OUT, ASKED = 512, 256, 64
"""Random images that all runs draw their batches from, others that are held out, and how many of these a run is asked.
"""

EPISODES = 8
"""E of a population; a smaller one has as many as it has runs."""

NETWORKS = {
    "digits": (64, 32, 10),
    "mlp784": (784, 128, 64, 10),
    "shervani": (784, 170, 130, 100, 70, 47),
}
"""Networks by name; the last is that of Shervani-Tabar and Rosenbaum (2023)."""

THETA = {"error_pre": 0.01, "error_pre_error": 0.01, "subspace_oja": 0.005}
"""Raw coefficients small enough that no run is chaotic, so that engines can be compared; candidates have less."""


class Cell(NamedTuple):
    """One line of a bench: a network, R runs, B images per step, T steps; `shared`: one theta for all runs."""

    sizes: tuple[int, ...]
    runs: int
    batch: int
    steps: int
    shared: bool = False

    @property
    def network(self) -> str:
        """Its name, or the sizes, as in 64-32-10."""
        named = (name for name, sizes in NETWORKS.items() if sizes == tuple(self.sizes))
        return next(named, "-".join(map(str, self.sizes)))

    @property
    def label(self) -> str:
        """The cell in a few letters, as digits R64 B16 T50."""
        return f"{self.network} R{self.runs} B{self.batch} T{self.steps}"

    @property
    def episodes(self) -> int:
        """E, a divisor of R."""
        if self.shared:
            return self.runs
        return max(count for count in range(1, min(EPISODES, self.runs) + 1) if self.runs % count == 0)

    @property
    def candidates(self) -> int:
        """C = R / E."""
        return self.runs // self.episodes

    @property
    def weights(self) -> int:
        """Weights of one run's network."""
        return sum(size_in * size_out for size_in, size_out in itertools.pairwise(self.sizes))

    @property
    def operations(self) -> int:
        """Floating-point operations of all runs at least, of W weights: T (10 B W + 2 W), and 2 W per image asked.

        Forward, feedback and reconstruction take 2 B W each, the update by 2 B factors 4 B W, reading it 2 W.
        """
        return self.runs * self.weights * (self.steps * (10 * self.batch + 2) + 2 * ASKED)

    @property
    def bytes(self) -> int:
        """Bytes of weights that all runs read or write at least in float32: 5 x 4 W a step, first and last 2 x 4 W.

        A step reads forward weights, feedback weights and the former again for the reconstruction, and its update
        reads and writes them; before and after, a run reads its first weights and its last ones.
        """
        return self.runs * self.weights * 4 * (5 * self.steps + 2)


def cell(network: str, runs: int, batch: int, steps: int, shared: bool = False) -> Cell:
    """A cell of a named network."""
    return Cell(NETWORKS[network], runs, batch, steps, shared)


CELLS = (
    cell("digits", 64, 1, 100),
    cell("digits", 64, 4, 200),
    cell("digits", 64, 16, 100),
    cell("digits", 1024, 16, 50),
    cell("digits", 64, 64, 50),
    cell("mlp784", 64, 1, 20),
    cell("mlp784", 16, 1, 100),
    cell("mlp784", 64, 16, 20),
    cell("mlp784", 16, 64, 10),
    cell("shervani", 16, 1, 100),
)
"""Populations on one core."""

ON_TWO_CORES = tuple(each for each in CELLS if each.runs == 64 and each.batch in (1, 16))
"""Populations on two cores."""

GRADIENT_CELLS = (
    cell("digits", 32, 4, 100, shared=True),
    cell("shervani", 8, 1, 10, shared=True),
    cell("mlp784", 8, 16, 50, shared=True),
)
"""Gradients in one theta that all runs share."""


def chosen(cells: Sequence[Cell], parts: Sequence[str]) -> tuple[Cell, ...]:
    """The cells whose label begins with one of `parts`, all without any; ValueError where a part fits none."""
    for part in parts:
        if not any(each.label.startswith(part) for each in cells):
            raise ValueError(unknown("--cells", part, [each.label for each in cells]))
    return tuple(each for each in cells if not parts or any(each.label.startswith(part) for part in parts))


class Data(NamedTuple):
    """Images and one-hot labels, shown and held out, and which of them the runs of each episode meet when."""

    images: Float[Tensor, "images J"]
    targets: Float[Tensor, "images I"]
    order: Int[Tensor, "E T B"]
    held_out: Float[Tensor, "held_out J"]
    answers: Int[Tensor, "held_out"]
    asked: Int[Tensor, "E asked"]
    keys: Int[Tensor, "E"]


def drawn(of: Cell, noise: Noise) -> Data:
    """The cell's data; `noise` has a run per episode, the images are the same for all."""
    one = noise_for([("bench", 0)], noise.dtype)
    inputs, classes = of.sizes[0], of.sizes[-1]
    return Data(
        one.at("images").uniform(POOL, inputs)[0],
        torch.eye(classes, dtype=noise.dtype)[one.at("labels").integers(classes, POOL)[0]],
        noise.at("order").integers(POOL, of.steps, of.batch),
        one.at("held_out").uniform(HELD_OUT, inputs)[0],
        one.at("answers").integers(classes, HELD_OUT)[0],
        noise.at("asked").rows(ASKED, HELD_OUT),
        noise.keys,
    )


@dataclass(frozen=True, eq=False)
class Workload(Task):
    """Random images and labels by index, drawn beforehand: what is measured is the engine, not the data."""

    kind = "bench"
    source = "this module"
    metrics = scores.CLASSIFICATION

    cell: Cell
    data: Data

    @property
    def inputs(self) -> int:
        return self.cell.sizes[0]

    @property
    def outputs(self) -> int:
        return self.cell.sizes[-1]

    def sample(self, noise: Noise, batch: int) -> Episode:
        places = (noise.keys[:, None] == self.data.keys).int().argmax(1).index_select(0, noise.index)
        return _Episode(self.data, self.data.order.index_select(0, places), self.data.asked.index_select(0, places))

    def held_out(self) -> Task:
        return self


@dataclass(frozen=True, eq=False)
class _Episode(Episode):
    data: Data
    order: Int[Tensor, "R T B"]
    questions: Int[Tensor, "R asked"]

    def train(self, step):
        rows = self.order[:, step]
        return Batch(self.data.images[rows], self.data.targets[rows])

    def rows(self, steps):
        shown = self.order[:, steps.start : steps.stop]
        return Rows(self.data.images, shown, self.data.targets, shown)

    def asked(self):
        return Asked(self.data.held_out, self.questions, self.data.answers[self.questions])

    def score(self, respond, weights):
        return scores.answered(respond, self.asked())


class Setting(NamedTuple):
    """What everybody starts from: the learner, a theta per candidate, data and first weights, candidate-major."""

    cell: Cell
    learner: Learner
    theta: Float[Tensor, "C P"]
    data: Data
    state: State

    @property
    def weights(self) -> list[Float[Tensor, "R I J"]]:
        """First weights, by layer."""
        return [self.state["weights"][p.name] for p in self.learner.network.projections]

    @property
    def feedback(self) -> list[Float[Tensor, "R J I"]]:
        """Feedback weights, by layer."""
        return [self.state["weights"][feedback_name(p)] for p in self.learner.network.projections]

    def evaluated(self, engine: Inner, wants: frozenset[str] = frozenset({"loss"})) -> Outcome:
        """The population by one of metarule's engines."""
        of = self.cell
        return engine.evaluate(
            self.learner,
            self.theta,
            Workload(of, self.data),
            Runs(tuple(range(len(self.theta))), tuple(range(of.episodes))),
            range(of.steps),
            of.batch,
            wants,
            carry=self.state,
        )


def setting(of: Cell, dtype: torch.dtype = torch.float32) -> Setting:
    """A cell's learner, theta, data and weights, the same for all engines."""
    network = Network.chain(of.sizes, "tanh")
    rule = Terms(tuple(THETA), normalise=False, start=THETA)
    learner = Learner(network, FeedbackAlignment(), {"forward": rule}, {ANY: Sgd()})
    noise = noise_for([(0, "episode", episode) for episode in range(of.episodes)], dtype)
    runs = noise_for([(0, "episode", run % of.episodes) for run in range(of.runs)], dtype)
    theta = torch.tensor([list(THETA.values())], dtype=dtype) * torch.linspace(1, 0.5, of.candidates)[:, None]
    state = learner.init(learner.columns(theta.repeat_interleave(of.episodes, 0)), runs)
    return Setting(of, learner, theta, drawn(of, noise), state)
