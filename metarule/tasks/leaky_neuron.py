"""A leaky neuron that is to follow another one: both hear the same spikes, and the potential of the other is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task
from metarule.tasks.poisson import counts

TYPICAL = 500.0
"""Rate in Hz at which a filtered input is 1 on average."""

TEST = 200
"""Bins on which a run is scored."""


@dataclass(frozen=True, eq=False)
class LeakyNeuronEpisode(Episode):
    """One teacher per run; `traces` and `test` are its inputs after the membrane, bin by bin."""

    teacher: Float[Tensor, "R 1 J"]
    traces: Float[Tensor, "R T J"]
    test: Float[Tensor, "R T J"]
    batch: int

    def train(self, step):
        x = self.traces[:, step * self.batch : (step + 1) * self.batch]
        return Batch(x, self._potential(x))

    def score(self, respond, weights):
        target = self._potential(self.test)
        nmse = scores.regression(respond, self.test, target, centre=target.mean(dim=1, keepdim=True))
        return {name: value.sqrt() for name, value in nmse.items()}

    def _potential(self, x: Float[Tensor, "R B J"]) -> Float[Tensor, "R B 1"]:
        return torch.bmm(x, self.teacher.transpose(1, 2))


@dataclass(frozen=True)
class LeakyNeuron(Task):
    """`inputs` Poisson trains of rates within `rates` Hz for `duration` s; each spike leaves exp(-t / tau) on the
    membrane, and the target is the potential of a teacher with weights uniform in shift +- 1.

    The input of the network is a presynaptic train after the membrane, 1 at 500 Hz on average, in bins of `bin` ms, so
    that a linear output without hidden layers is a leaky neuron; the batch is that many bins in a row, one online pass.
    The loss is the root mean squared difference of the potentials on new trains, in standard deviations of the
    teacher's. Held out are other teachers. Of the published simulation this keeps inputs, rates, the teacher's bias
    (0.75, in units of its spread), the membrane and the duration; it leaves out the synaptic filter of 2 ms, output
    spikes, which follow from the potential and teach nobody, and updates between bins.
    """

    inputs: int = 5  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    duration: float = 10.0
    bin: float = 5.0
    tau: float = 10.0
    rates: tuple[float, float] = (150.0, 850.0)
    shift: float = 0.75
    split: str = "search"

    kind = "leaky_neuron"
    source = "Urbanczik and Senn 2014; Jordan, Schmidt, Senn and Petrovici 2021"
    metrics = scores.REGRESSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates))
        if self.inputs < 1:
            raise ValueError(f"task.inputs = {self.inputs} must be at least 1")
        for name in ("duration", "bin", "tau"):
            if getattr(self, name) <= 0:
                raise ValueError(f"task.{name} = {getattr(self, name)} must be positive")
        if len(self.rates) != 2 or not 0 < self.rates[0] <= self.rates[1]:
            raise ValueError(f"task.rates = {list(self.rates)} must be two rates in Hz, the lower one first")
        if self.split not in scores.SPLITS:
            raise ValueError(unknown("task.split", self.split, scores.SPLITS))

    @property
    def outputs(self):
        return 1

    @property
    def output(self):
        return "linear"

    def steps(self, batch):
        return self._bins // batch

    @property
    def _bins(self) -> int:
        return math.floor(1000 * self.duration / self.bin)

    def sample(self, noise, batch):
        episodes = noise.at(self.split)
        noise = replace(episodes, index=torch.arange(len(episodes.keys), device=episodes.index.device))
        teacher = noise.at("teacher").uniform(1, self.inputs, low=self.shift - 1, high=self.shift + 1)
        rates = noise.at("rates").uniform(self.inputs, low=self.rates[0], high=self.rates[1])
        traces = self._traces(rates, self._bins, noise.at("spikes"))
        test = self._traces(rates, TEST, noise.at("test"))
        teacher, traces, test = (part[episodes.index] for part in (teacher, traces, test))
        return LeakyNeuronEpisode(teacher, traces, test, batch)

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        return f"fresh random teachers ({self.split} branch of the addresses)"

    def _traces(self, rates: Float[Tensor, "R J"], bins: int, noise: Noise) -> Float[Tensor, "R T J"]:
        """Filtered trains; before they begin, spikes come as they do on average."""
        mean = (rates * self.bin / 1000)[:, None]
        spikes = counts(noise, mean.expand(-1, bins, -1), self.rates[1] * self.bin / 1000)
        memory = math.ceil(18 * self.tau / self.bin)  # what is older weighs less than 1e-7
        keep = math.exp(-self.bin / self.tau)
        kernel = keep ** torch.arange(memory, -1, -1, dtype=rates.dtype, device=rates.device)
        padded = torch.cat((mean.expand(-1, memory, -1), spikes), dim=1).transpose(1, 2).flatten(0, 1)
        traces = functional.conv1d(padded[:, None], kernel[None, None])[:, 0]
        scale = (1 - keep) / (TYPICAL * self.bin / 1000)
        return scale * traces.reshape(len(rates), -1, bins).transpose(1, 2)
