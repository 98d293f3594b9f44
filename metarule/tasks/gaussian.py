"""Principal components of Gaussian inputs: no targets, no loss to descend, the weights alone are scored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.rng import Noise
from metarule.signals import Batch
from metarule.tasks import scores
from metarule.tasks.base import Episode, Task


@dataclass(frozen=True, eq=False)
class GaussianEpisode(Episode):
    """One covariance per run, C = axes diag(spectrum) axes^T; the columns of `axes` are its eigenvectors."""

    axes: Float[Tensor, "R J J"]
    spectrum: Float[Tensor, "J"]
    noise: Noise
    outputs: int
    batch: int

    def train(self, step):
        normal = self.noise.at("x", step).normal(self.batch, len(self.spectrum))
        return Batch(torch.bmm(normal * self.spectrum.sqrt(), self.axes.transpose(1, 2)))

    def score(self, respond, weights):
        weight = self._weight(weights)
        leading = self.axes[:, :, : self.outputs]
        squares = weight.square().sum(dim=2)  # R I
        inside = torch.bmm(weight, leading).square().sum(dim=2)
        # a weight of 0 has cosine 0
        squared_cosine = (inside / squares.clamp(min=torch.finfo(squares.dtype).tiny)).mean(dim=1)
        norms = weight.norm(dim=2)
        gram = torch.bmm(weight, weight.transpose(1, 2))  # R I I
        overlap = (gram - torch.diag_embed(squares)).square().sum(dim=(1, 2)) / self.outputs
        return {
            "held_out_loss": 1 - squared_cosine + (norms - 1).square().mean(dim=1) + overlap,
            "cosine": squared_cosine.sqrt(),
            "norm_error": (norms - 1).abs().mean(dim=1),
        }

    def _weight(self, weights) -> Float[Tensor, "R I J"]:
        shape = (self.outputs, len(self.spectrum))
        for weight in weights.values():
            if weight.shape[1:] == shape:
                return weight
        raise ValueError(
            f"task gaussian scores a projection of shape {shape} from input to output, but the network has none; "
            "leave out network.hidden and network.bias"
        )


@dataclass(frozen=True)
class Gaussian(Task):
    """x ~ N(0, C) with eigenvalues gap^0, gap^1, ... and random eigenvectors; the `outputs` k leading ones are wanted.

    Loss = 1 - cos^2(w, PC1) + (|w| - 1)^2 for k = 1; in general
    mean_i [1 - cos^2(w_i, span of PC1..PCk) + (|w_i| - 1)^2] + sum_{i != j} (w_i w_j)^2 / k, which is 0 for every
    orthonormal basis of the leading subspace. "cosine" is the root of the mean cos^2, "norm_error" the mean of
    ||w_i| - 1|. Held out are other covariances. Raises ValueError where no projection leads from input to output.
    """

    inputs: int = 10  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    outputs: int = 1  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    gap: float = 0.5
    split: str = "search"

    kind = "gaussian"
    source = "Oja, 1982"
    metrics = {"held_out_loss": "min", "cosine": "max", "norm_error": "min"}  # noqa: RUF012

    baselines = ("oja", "subspace_oja")

    def __post_init__(self) -> None:
        if not 1 <= self.outputs < self.inputs:
            raise ValueError(f"task.outputs = {self.outputs} must lie between 1 and inputs - 1 = {self.inputs - 1}")
        if not 0 < self.gap < 1:
            raise ValueError(f"task.gap = {self.gap} must lie between 0 and 1: it is the ratio of eigenvalues")
        if self.split not in scores.SPLITS:
            raise ValueError(unknown("task.split", self.split, scores.SPLITS))

    @property
    def output(self):
        return "linear"

    def sample(self, noise, batch):
        noise = noise.at(self.split)
        axes = noise.at("axes").orthonormal(self.inputs, self.inputs)
        spectrum = self.gap ** torch.arange(self.inputs, dtype=noise.dtype, device=noise.index.device)
        return GaussianEpisode(axes, spectrum, noise, self.outputs, batch)

    @property
    def headline(self):
        return "held_out_loss"  # a direction without a length is not enough

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        return f"fresh random covariances ({self.split} branch of the addresses)"
