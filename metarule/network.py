"""Network: populations joined by projections, a directed graph that exists R times at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.mean_field import critical_gain
from metarule.nonlinearities import LOSSES, NONLINEARITIES, OUTPUTS
from metarule.positions import Reading
from metarule.rng import Noise
from metarule.terms import glorot

INITS = ("glorot", "gaussian", "orthogonal", "critical")
"""Initial weights: see `Network.draw`."""


class Population(NamedTuple):
    """A group of `size` units that share a nonlinearity.

    The output's rates follow `Network.output` instead; the input's nonlinearity is what its given rates are taken to
    have come from, where feedback reaches it.
    """

    name: str
    size: int
    activation: str = "linear"


class Projection(NamedTuple):
    """All connections from one population to another; fixed or plastic, its weights live in `weights`.

    `bias` adds an always-on unit as the last pre unit. `std` is the standard deviation of the initial weights;
    None means the network's own. `shape` (I, J) is for a projection one of whose ends is no population of the network,
    or that reads several units at a time; elsewhere the populations' sizes say it.
    """

    name: str
    source: str
    target: str
    role: str = "forward"
    bias: bool = False
    std: float | None = None
    shape: tuple[int, int] | None = None


class Activity(NamedTuple):
    """What every population does: its drive before the nonlinearity and its rate after it, (R B units) each."""

    drives: dict[str, Float[Tensor, "R B I"]]
    rates: dict[str, Float[Tensor, "R B I"]]


@dataclass(frozen=True)
class Network:
    """Populations in feedforward order, the first one the input, the last one the output.

    `readings` say how a projection sees its source that does not see all units of one event: patches of an image, say,
    each an event; by projection, one after another.
    Raises ValueError where a projection names no population, runs backwards, or a population receives nothing.
    """

    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    output: str = "softmax"
    beta: float = 1.0
    init: str = "glorot"
    init_scale: float = 1.0
    readings: Mapping[str, tuple[Reading, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise ValueError(unknown("network.init", self.init, INITS))
        if not 0 < self.init_scale < math.inf:
            raise ValueError(f"network.init_scale = {self.init_scale} must be positive and finite")
        order = {population.name: rank for rank, population in enumerate(self.populations)}
        if len(order) < len(self.populations):
            raise ValueError("network: two populations have the same name")
        if len({projection.name for projection in self.projections}) < len(self.projections):
            raise ValueError("network: two projections have the same name")
        for population in self.populations:
            if population.size < 1:
                raise ValueError(f"network: population '{population.name}' has size {population.size}; at least 1")
            if population.activation not in NONLINEARITIES:
                raise ValueError(unknown("network.activation", population.activation, NONLINEARITIES))
        if self.output not in OUTPUTS:
            raise ValueError(unknown("network.output", self.output, OUTPUTS))
        for projection in self.projections:
            for end in (projection.source, projection.target):
                if end not in order:
                    raise ValueError(unknown(f"network: an end of '{projection.name}'", end, order))
            if order[projection.source] >= order[projection.target]:
                raise ValueError(
                    f"network: '{projection.name}' runs backwards; forward projections follow the order of populations"
                )
        for population in self.populations[1:]:
            if not self.into(population.name):
                raise ValueError(f"network: population '{population.name}' receives no projection")
        for population in self.populations[:-1]:
            if not self.out_of(population.name):
                raise ValueError(f"network: population '{population.name}' projects to nothing")

    @classmethod
    def chain(
        cls,
        sizes: tuple[int, ...],
        activation: str = "tanh",
        output: str = "softmax",
        beta: float = 1.0,
        bias: bool = False,
        skips: tuple[tuple[int, int], ...] = (),
        init: str = "glorot",
        init_scale: float = 1.0,
    ) -> Network:
        """Layers one after another; `skips` adds projections (from layer, to layer), counted from the input, 0."""
        if len(sizes) < 2:
            raise ValueError(f"network: {len(sizes)} layers given; input and output are the least")
        names = ["input", *(f"hidden{layer}" for layer in range(1, len(sizes) - 1)), "output"]
        populations = tuple(
            Population(name, size, activation if layer < len(sizes) - 1 else "linear")
            for layer, (name, size) in enumerate(zip(names, sizes, strict=True))
        )
        for source, target in skips:
            if not (0 <= source < target < len(sizes)) or target - source < 2:
                raise ValueError(
                    f"network.skips: [{source}, {target}] must skip a layer forwards, between 0 and {len(sizes) - 1}"
                )
        edges = [(layer, layer + 1, bias) for layer in range(len(sizes) - 1)]
        edges += [(source, target, False) for source, target in skips]
        projections = tuple(
            Projection(f"{names[source]}->{names[target]}", names[source], names[target], bias=has_bias)
            for source, target, has_bias in sorted(edges)
        )
        return cls(populations, projections, output, beta, init, init_scale)

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        """Units per population."""
        return {population.name: population.size for population in self.populations}

    @functools.cached_property
    def activations(self) -> dict[str, str]:
        """Nonlinearity per population."""
        return {population.name: population.activation for population in self.populations}

    @property
    def input_name(self) -> str:
        """Name of the input population."""
        return self.populations[0].name

    @property
    def output_name(self) -> str:
        """Name of the output population."""
        return self.populations[-1].name

    def into(self, population: str) -> tuple[Projection, ...]:
        """Forward projections that end at `population`."""
        return self._into[population]

    def out_of(self, population: str) -> tuple[Projection, ...]:
        """Forward projections that start at `population`."""
        return self._out_of[population]

    @functools.cached_property
    def _into(self) -> dict[str, tuple[Projection, ...]]:
        return {name: tuple(p for p in self.projections if p.target == name) for name in self.sizes}

    @functools.cached_property
    def _out_of(self) -> dict[str, tuple[Projection, ...]]:
        return {name: tuple(p for p in self.projections if p.source == name) for name in self.sizes}

    def shape(self, projection: Projection) -> tuple[int, int]:
        """(I, J) of a projection, the always-on unit included."""
        size_out, size_in = self._ends(projection)
        return size_out, size_in + projection.bias

    def _ends(self, projection: Projection) -> tuple[int, int]:
        return projection.shape or (self.sizes[projection.target], self.sizes[projection.source])

    def draw(self, projection: Projection, noise: Noise) -> Float[Tensor, "R I J"]:
        """Initial weights, biases 0; a projection with a `std` of its own is uniform whatever `init` says.

        "glorot": uniform with std sqrt(2 / (I + J)) (Glorot and Bengio, 2010). "gaussian": normal with std
        1 / sqrt(J). "orthogonal": orthonormal rows or columns, whichever are fewer (Saxe et al., 2013). "critical":
        gaussian, times the gain at which the nonlinearity of the target neither shrinks nor grows differences (Poole
        et al., 2016). All times `init_scale`.
        """
        size_out, size_in = self._ends(projection)
        noise = noise.at("weights", projection.name)
        if projection.std is not None or self.init == "glorot":
            std = glorot(size_out, size_in) * self.init_scale if projection.std is None else projection.std
            half_width = math.sqrt(3.0) * std
            weight = noise.uniform(size_out, size_in, low=-half_width, high=half_width)
        elif self.init == "orthogonal":
            weight = noise.orthonormal(size_out, size_in) * self.init_scale
        else:
            scale = self.init_scale / math.sqrt(size_in)
            if self.init == "critical":
                scale *= critical_gain(self.activations.get(projection.target, "linear"), self.beta)
            weight = noise.normal(size_out, size_in) * scale
        return functional.pad(weight, (0, 1)) if projection.bias else weight

    def forward(
        self,
        weights: Mapping[str, Tensor],
        x: Float[Tensor, "R B J"],
        rate: Callable[[str, Tensor], Tensor] | None = None,
    ) -> Activity:
        """The feedforward pass: drive = sum of W pre over the incoming projections, rate = f(drive).

        `rate` (population, drive) -> rate replaces f, for units that are noisy or spike.
        """
        rate = rate or self.rate
        drives: dict[str, Tensor] = {self.input_name: x}
        rates: dict[str, Tensor] = {self.input_name: x}
        for population in self.populations[1:]:
            drive: Tensor | None = None
            for projection in self._into[population.name]:
                pre = self.pre(projection, rates)
                transposed = weights[projection.name].transpose(1, 2)
                drive = torch.bmm(pre, transposed) if drive is None else torch.baddbmm(drive, pre, transposed)
            assert drive is not None
            drives[population.name] = drive
            rates[population.name] = rate(population.name, drive)
        return Activity(drives, rates)

    def rate(self, population: str, drive: Tensor) -> Tensor:
        """f(drive) of a population."""
        if population == self.output_name:
            return OUTPUTS[self.output](drive)
        return NONLINEARITIES[self.activations[population]].rate(drive, self.beta)

    def loss(self, drive: Float[Tensor, "R B I"], y: Float[Tensor, "R B I"]) -> Float[Tensor, "R B 1"]:
        """The loss per event that matches the output: minus its gradient in the drive is y - rate."""
        return LOSSES[self.output](drive, y)

    def gain(self, population: str, rates: Mapping[str, Tensor]) -> Tensor:
        """Slope of a population's nonlinearity; 1 at the matched output.

        Input rates were not made by this network: they are read as rates of its nonlinearity, held inside its range
        (softplus: 1 - exp(-beta x), as in Shervani-Tabar and Rosenbaum, 2023).
        """
        rate = rates[population]
        if population == self.output_name:
            return torch.ones_like(rate)
        nonlinearity = NONLINEARITIES[self.activations[population]]
        if population == self.input_name:
            rate = rate.clamp(nonlinearity.low, nonlinearity.high)
        return nonlinearity.slope(rate, self.beta)

    def pre(self, projection: Projection, rates: Mapping[str, Tensor]) -> Float[Tensor, "R B J"]:
        """The pre activity at a projection, with the always-on unit where it has a bias."""
        rate = self.gather(projection, rates[projection.source])
        return functional.pad(rate, (0, 1), value=1.0) if projection.bias else rate

    def gather(self, projection: Projection, values: Tensor) -> Float[Tensor, "R B J"]:
        """What a projection reads of `values` at the units of its source, the always-on unit left out."""
        for reading in self.readings.get(projection.name, ()):
            values = reading.gather(values)
        return values

    def back(self, projection: Projection, sent: Float[Tensor, "R B J"]) -> Tensor:
        """What was sent against a projection, at the units of its source: the transpose of `gather`."""
        for reading in reversed(self.readings.get(projection.name, ())):
            sent = reading.back(sent)
        return sent
