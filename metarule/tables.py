"""The tables of a search file that have no kind: [network], [inner], [search], [battery], and the budget of [outer]."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.collect import unknown
from metarule.inner import ENGINES
from metarule.network import Network, Population, Projection
from metarule.tasks import Task
from metarule.unrolled import Unrolled


@dataclass(frozen=True)
class PopulationSpec:
    """A hidden population of a network; `activation` is the network's where it is left out."""

    name: str
    size: int
    activation: str | None = None


@dataclass(frozen=True)
class ProjectionSpec:
    """A projection of a network, named by its ends; `bias` is the network's where it is left out."""

    source: str
    target: str
    bias: bool | None = None


@dataclass(frozen=True)
class NetworkSpec:
    """The network a search trains; input and output sizes come from the task.

    A chain of `hidden` layers with optional `skips` [[from layer, to layer], ...], or any directed graph by
    `populations` [{ name, size, activation }] (hidden ones, in feedforward order) and `projections`
    [{ source, target, bias }] between them, "input" and "output". `output` is the task's where it is left out;
    `init` and `init_scale` are those of `Network.draw`.
    """

    hidden: tuple[int, ...] = (64, 32)
    activation: str = "tanh"
    softplus_beta: float = 10.0
    bias: bool = False
    skips: tuple[tuple[int, int], ...] = ()
    populations: tuple[PopulationSpec, ...] = ()
    projections: tuple[ProjectionSpec, ...] = ()
    output: str | None = None
    init: str = "glorot"
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.softplus_beta <= 0:
            raise ValueError(f"network.softplus_beta = {self.softplus_beta} must be positive")
        if self.projections and not self.populations:
            raise ValueError(
                "network.projections are given without network.populations; name the populations that they join, or "
                "use network.hidden and network.skips"
            )

    def build(self, task: Task) -> Network:
        """The network for a task; raises ValueError where the graph is not one."""
        beta = self.softplus_beta if self.activation == "softplus" else 1.0
        options = {"output": self.output or task.output, "beta": beta, "init": self.init, "init_scale": self.init_scale}
        if not self.populations:
            sizes = (task.inputs, *self.hidden, task.outputs)
            return Network.chain(sizes, self.activation, bias=self.bias, skips=self.skips, **options)
        hidden = [Population(each.name, each.size, each.activation or self.activation) for each in self.populations]
        ends = Population("input", task.inputs, self.activation), Population("output", task.outputs)
        projections = [
            Projection(
                f"{each.source}->{each.target}",
                each.source,
                each.target,
                bias=self.bias if each.bias is None else each.bias,
            )
            for each in self.projections
        ]
        return Network((ends[0], *hidden, ends[1]), tuple(projections), **options)


@dataclass(frozen=True)
class InnerSpec:
    """How one candidate is tried: `steps` inner steps (default the task's own pass) on `episodes` episodes.

    The loss is that at the end, or the mean of those after every `score_every` steps. Every generation sees fresh
    episodes, or always the same with `fixed_episodes`. `block_runs` runs are computed together and `segments` > 1
    trades time for memory in meta-gradients (left out: the root of the steps by autograd, what fits by the adjoint);
    both are part of the spec, so that results never depend on the number of workers.
    """

    steps: int | None = None
    batch: int = 1
    episodes: int = 4
    engine: str = "auto"
    precision: str = "float32"
    block_runs: int = 36
    segments: int | None = None
    score_every: int | None = None
    fixed_episodes: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "episodes", "block_runs", "segments", "steps", "score_every"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"inner.{name} = {number} must be at least 1")
        if self.precision not in ("float32", "float64"):
            raise ValueError(unknown("inner.precision", self.precision, ("float32", "float64")))
        engines = (*ENGINES, Unrolled.name)
        if self.engine not in engines:
            raise ValueError(unknown("inner.engine", self.engine, engines))


@dataclass(frozen=True)
class SearchSpec:
    """What counts as better, and for how long to look: `generations` of `candidates` rows of theta."""

    objective: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class BatterySpec:
    """The held-out battery at the end: `episodes` fresh paired episodes; 0 leaves it out. `baselines` "default" or
    "all"."""

    episodes: int = 200
    baselines: str = "default"

    def __post_init__(self) -> None:
        if self.episodes < 0:
            raise ValueError(f"battery.episodes = {self.episodes} must not be negative")
        if self.baselines not in ("default", "all"):
            raise ValueError(unknown("battery.baselines", self.baselines, ("default", "all")))


@dataclass(frozen=True)
class Budget:
    """How long an outer loop runs: the one thing about a finished search that may grow."""

    candidates: int = 12
    generations: int = 30

    def __post_init__(self) -> None:
        for name in ("candidates", "generations"):
            if getattr(self, name) < 1:
                raise ValueError(f"outer.{name} = {getattr(self, name)} must be at least 1")
