"""Borrowed: a user's own nn.Sequential read as a Network, whose weights are taken from it and given back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from metarule.collect import unknown
from metarule.network import Network, Population, Projection
from metarule.nonlinearities import OUTPUTS
from metarule.positions import Averages, Pair, Patches, Reading, Whole
from metarule.sequential import ALLOWED, ANSWERS, Layer, flat, layers_of, window_of


@dataclass(frozen=True, eq=False)
class Borrowed:
    """A model's layers with the network that they are; `told` says whether its output is beyond doubt.

    A network with convolutions lacks its `readings` until it has met an image.
    """

    layers: tuple[Layer, ...]
    network: Network
    told: bool

    @property
    def convolves(self) -> bool:
        """Whether it reads images (events channels rows columns) instead of (events units)."""
        return any(layer.convolves for layer in self.layers)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Every weight and bias."""
        return [parameter for layer in self.layers for parameter in layer.module.parameters()]

    @property
    def pooled(self) -> frozenset[str]:
        """Projections that read averages over positions."""
        pairs = zip(self.layers, self.network.projections, strict=True)
        return frozenset(
            projection.name for layer, projection in pairs if any(isinstance(m, nn.AvgPool2d) for m in layer.before)
        )

    def at(self, images: Pair) -> Network:
        """The network where images have this many rows and columns; raises ValueError where they do not fit."""
        readings: dict[str, tuple[Reading, ...]] = {}
        size, channels = images, self.network.populations[0].size
        for layer, projection in zip(self.layers, self.network.projections, strict=True):
            steps: list[Reading] = []
            for module in layer.before:
                if isinstance(module, nn.Flatten):
                    steps += [Whole(math.prod(size))] if channels else []
                else:
                    window = window_of(layer.name, size, module)
                    steps.append(Averages(window))
                    size = window.places
            if layer.convolves:
                window = window_of(layer.name, size, layer.module)
                steps.append(Patches(window))
                size, channels = window.places, layer.matrix.shape[0]
            elif channels:
                if channels * math.prod(size) != layer.matrix.shape[1]:
                    raise ValueError(
                        f"'{layer.name}' takes {layer.matrix.shape[1]} units, and images of {images[0]} x {images[1]} "
                        f"make {channels} channels of {size[0]} x {size[1]} = {channels * math.prod(size)}; change its "
                        "in_features, or the images"
                    )
                channels = 0  # from here on units, not channels of an image
            readings[projection.name] = tuple(steps)
        return replace(self.network, readings=readings)

    def shared_by(self, network: Network) -> dict[str, int]:
        """Projection -> positions that share its weight; 1 where it is a matrix."""
        last = {name: steps[-1] for name, steps in network.readings.items() if steps}
        return {
            p.name: math.prod(step.window.places) if isinstance(step := last.get(p.name), Patches) else 1
            for p in self.network.projections
        }

    def weights(self) -> dict[str, Float[Tensor, "1 I J"]]:
        """Copies of the model's weights, a bias as the last column."""
        made = {}
        for layer, projection in zip(self.layers, self.network.projections, strict=True):
            bias = layer.bias
            parts = [layer.matrix] if bias is None else [layer.matrix, bias[:, None]]
            made[projection.name] = torch.cat(parts, dim=1).detach()[None]
        return made

    def give_back(self, weights: Mapping[str, Float[Tensor, "1 I J"]]) -> None:
        """Write weights into the model, in place; parameters that need no gradient stay as they are."""
        for layer, projection in zip(self.layers, self.network.projections, strict=True):
            new, kernel, bias = weights[projection.name][0], layer.module.weight, layer.bias
            assert isinstance(kernel, Tensor)
            if kernel.requires_grad:
                kernel.copy_((new if bias is None else new[:, :-1]).reshape(kernel.shape))
            if bias is not None and bias.requires_grad:
                bias.copy_(new[:, -1])

    def frozen(self) -> frozenset[str]:
        """Projections of which no parameter needs a gradient: torch's sign for what is not to learn."""
        pairs = zip(self.layers, self.network.projections, strict=True)
        return frozenset(
            projection.name
            for layer, projection in pairs
            if not any(p.requires_grad for p in layer.module.parameters())
        )

    def events(self, x: Tensor) -> Float[Tensor, "1 N J"]:
        """A batch as rates of the input: one event per sample, or one per position of an image.

        Raises ValueError where its shape, dtype or device is not the model's.
        """
        first = self.layers[0]
        weight = first.matrix
        if not x.numel():
            raise ValueError(f"x has shape {tuple(x.shape)}: a batch without a sample has nothing to learn from")
        if x.dtype != weight.dtype or x.device != weight.device:
            raise ValueError(
                f"x has dtype {x.dtype} on {x.device}, the model {weight.dtype} on {weight.device}; "
                "move the batch with x.to(model[0].weight)"
            )
        if self.convolves:
            channels = self.network.populations[0].size
            if x.ndim != 4 or x.shape[1] != channels:
                raise ValueError(
                    f"x has shape {tuple(x.shape)}; '{first.name}' reads (batch, {channels}, rows, columns)"
                )
            return x.flatten(2).transpose(1, 2).reshape(1, -1, channels)
        if any(isinstance(module, nn.Flatten) for module in first.before):
            x = x.flatten(1)
        if x.ndim != 2 or x.shape[1] != weight.shape[1]:
            raise ValueError(f"x has shape {tuple(x.shape)}; '{first.name}' reads (batch, {weight.shape[1]})")
        return x[None]

    def targets(self, y: Tensor, count: int) -> Float[Tensor, "1 B I"]:
        """Targets of a batch of `count` samples: classes (B), whole numbers, as one-hot; values (B I) as they are.

        Raises ValueError where they are neither, or not as many, or where nobody said which loss values go with.
        """
        like, width = self.layers[-1].matrix, self.layers[-1].matrix.shape[0]
        if not isinstance(y, Tensor):
            raise ValueError(f"y is a {type(y).__name__}; give a tensor, as in torch.as_tensor(y)")
        if y.shape[:1] != (count,):
            raise ValueError(f"y has shape {tuple(y.shape)}, and x is a batch of {count}; give one target per sample")
        if are_classes(y):
            if width == 1 or y.min() < 0 or y.max() >= width:
                takes = f"classes from 0 to {width - 1} or " if width > 1 else ""
                raise ValueError(
                    f"y holds whole numbers from {int(y.min())} to {int(y.max())}, read as classes; {width} outputs "
                    f"take {takes}numbers (batch, {width})"
                )
            return functional.one_hot(y.long(), width).to(like)[None]
        if y.shape[1:] != (width,):
            raise ValueError(
                f"y has shape {tuple(y.shape)} and dtype {y.dtype}; give classes (batch) as whole numbers or numbers "
                f"(batch, {width}) for the {width} outputs"
            )
        if not self.told:
            raise ValueError(
                "y holds numbers, and the model ends in a layer whose loss is not said: give output='linear' (half the "
                "squared error), 'sigmoid' (binary cross-entropy) or 'softmax' (cross-entropy) to LocalOptimizer"
            )
        return y.to(like)[None]


def are_classes(y: Tensor) -> bool:
    """Whether targets are classes, one whole number per event."""
    return y.ndim == 1 and not y.is_floating_point()


def borrowed(model: nn.Module, output: str | None = None) -> Borrowed:
    """A model read as a network; raises ValueError naming the module that does not fit, and what would.

    `output` says with which loss it learns: "softmax" (cross-entropy), "sigmoid" (binary cross-entropy) or "linear"
    (half the squared error). None: what its last module says; a layer that is last is taken to give logits of classes.
    """
    if output is not None and output not in OUTPUTS:
        raise ValueError(unknown("output", output, OUTPUTS))
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"the model is a {type(model).__name__}; {ALLOWED}: wrap its layers in nn.Sequential(...)")
    modules = list(flat(model))
    answer = ANSWERS.get(type(modules[-1][1])) if modules else None
    if answer is not None:
        if output not in (None, answer):
            raise ValueError(f"output = '{output}', but the model ends in {modules[-1][1]}, which makes it '{answer}'")
        modules.pop()
    layers, betas = layers_of(modules)
    network = _network(layers, answer or output or "softmax", betas)
    return Borrowed(layers, network, told=(answer or output) is not None)


def _network(layers: tuple[Layer, ...], output: str, betas: dict[str, float]) -> Network:
    if len(set(betas.values())) > 1:
        said = ", ".join(betas)
        raise ValueError(f"{said} differ in steepness (nn.Sigmoid has 1); a network has one beta: make them the same")
    first = layers[0].module
    inputs = first.in_channels if isinstance(first, nn.Conv2d) else layers[0].matrix.shape[1]
    names = ["input", *(f"hidden{place}" for place in range(1, len(layers))), "output"]
    sizes = [inputs, *(layer.matrix.shape[0] for layer in layers)]
    # the rates of the input are read as rates of the first hidden units, as in a chain
    activations = [layers[0].activation, *(layer.activation for layer in layers)]
    populations = tuple(map(Population, names, sizes, activations))
    projections = tuple(
        Projection(
            f"{source}->{target}", source, target, bias=layer.bias is not None,
            shape=None if layer.matrix.shape[1] == size else (layer.matrix.shape[0], layer.matrix.shape[1]),
        )
        for source, target, size, layer in zip(names[:-1], names[1:], sizes[:-1], layers, strict=True)
    )  # fmt: skip
    return Network(populations, projections, output, beta=next(iter(betas.values()), 1.0))
