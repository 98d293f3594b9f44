"""Spikes in time: a batch is a stream whose events are time steps, one stage each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.credit import CreditAssignment
from metarule.params import Param
from metarule.rng import Noise
from metarule.signals import Batch, Signals
from metarule.tasks import Task
from metarule.tasks.base import Episode


@dataclass(frozen=True)
class SpikeStream(CreditAssignment):
    """x and y are spike trains (R T J, R T I); post spikes where y says. `pre_ref`, `post_ref` are decaying traces.

    A trace holds the spikes before this time step: trace <- (trace + spike) exp(-1 / tau) once the step is over.
    """

    kind = "spike_stream"
    source = "Song, Miller and Abbott 2000"
    gives = frozenset({"pre", "post", "pre_ref", "post_ref"})

    @property
    def params(self):
        return (Param("tau_pre", start=8.0, log=True), Param("tau_post", start=12.0, log=True))

    def init(self, theta, network, weights, noise):
        sizes, runs = network.sizes, theta.shape[0]
        return {
            "pre": theta.new_zeros(runs, 1, sizes[network.input_name]),
            "post": theta.new_zeros(runs, 1, sizes[network.output_name]),
        }

    def stages(self, network, batch):
        return batch.x.shape[1]

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        assert batch.y is not None
        pre, post = batch.x[:, k : k + 1], batch.y[:, k : k + 1]
        (projection,) = network.projections
        seen = Signals(weights[projection.name], pre, post, pre_ref=state["pre"], post_ref=state["post"])
        decay = torch.exp(-1 / theta)[:, :, None]
        after = {"pre": (state["pre"] + pre) * decay[:, :1], "post": (state["post"] + post) * decay[:, 1:]}
        return {projection.name: seen} if projection.name in wanted else {}, after


@dataclass(frozen=True)
class SpikePairs(Task):
    """One pre spike in the middle of a stream of 2 `reach` + 1 time steps; post unit i spikes at time step i.

    A batch shows the next `batch` time steps. There is nothing to be good at: the score is the size of the weights.
    """

    reach: int = 20
    kind = "spike_pairs"
    source = "Bi and Poo 1998"
    metrics = {"size": "min"}  # noqa: RUF012

    @property
    def inputs(self):
        return 1

    @property
    def outputs(self):
        return 2 * self.reach + 1

    def sample(self, noise, batch):
        return SpikePairsEpisode(noise, self.reach, batch)

    def held_out(self):
        return self


@dataclass(frozen=True, eq=False)
class SpikePairsEpisode(Episode):
    """The same spikes in every run."""

    noise: Noise
    reach: int
    batch: int

    def train(self, step):
        length = 2 * self.reach + 1
        post: Float[Tensor, "T I"] = torch.eye(length, dtype=self.noise.dtype)
        now = slice(step * self.batch, (step + 1) * self.batch)
        runs = self.noise.runs
        return Batch(post[now, self.reach, None].expand(runs, -1, -1), post[now].expand(runs, -1, -1))

    def score(self, respond, weights):
        (weight,) = weights.values()
        return {"size": weight.square().mean((1, 2))}
