"""Borrowed: a user's own nn.Sequential read as a Network, whose weights are taken from it and given back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from metarule.collect import unknown
from metarule.network import Network, Population, Projection
from metarule.nonlinearities import OUTPUTS
from metarule.positions import Averages, Pair, Patches, Reading, Whole, Window

ACTIVATIONS: dict[type[nn.Module], Callable[[Any], tuple[str, float | None]]] = {
    nn.Tanh: lambda module: ("tanh", None),
    nn.ReLU: lambda module: ("relu", None),
    nn.Sigmoid: lambda module: ("sigmoid", 1.0),
    nn.Softplus: lambda module: ("softplus", float(module.beta)),
}
"""Module -> the nonlinearity that it is, and its steepness where it has one."""

ANSWERS: dict[type[nn.Module], str] = {nn.Softmax: "softmax", nn.LogSoftmax: "softmax", nn.Sigmoid: "sigmoid"}
"""What may stand last, and the output that it says the model has."""

LAYERS = (nn.Linear, nn.Conv2d)
BETWEEN = (nn.Flatten, nn.AvgPool2d)

ALLOWED = (
    "a local rule trains an nn.Sequential of nn.Linear and nn.Conv2d, after each one of "
    + ", ".join(f"nn.{kind.__name__}" for kind in ACTIVATIONS)
    + " or nothing, with nn.Flatten, nn.AvgPool2d and nn.Identity between them"
)


class Layer(NamedTuple):
    """A layer of the model: what stands `before` it since the last one, and the nonlinearity that follows."""

    name: str
    module: nn.Module
    before: tuple[nn.Module, ...]
    activation: str

    @property
    def convolves(self) -> bool:
        """Whether positions share its weight."""
        return isinstance(self.module, nn.Conv2d)

    @property
    def matrix(self) -> Float[Tensor, "I J"]:
        """Its weights, the always-on unit left out; a kernel as one row per channel."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight.flatten(1)

    @property
    def bias(self) -> Tensor | None:
        """Its bias (I)."""
        bias = self.module.bias
        return bias if isinstance(bias, Tensor) else None


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
                    window = _window(layer.name, size, module)
                    steps.append(Averages(window))
                    size = window.places
            if layer.convolves:
                window = _window(layer.name, size, layer.module)
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

    def targets(self, y: Tensor) -> Float[Tensor, "1 B I"]:
        """Targets of a batch: classes (B), whole numbers, as one-hot; values (B I) as they are.

        Raises ValueError where they are neither, or where nobody said which loss values go with.
        """
        like, width = self.layers[-1].matrix, self.layers[-1].matrix.shape[0]
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
    modules = list(_flat(model))
    answer = ANSWERS.get(type(modules[-1][1])) if modules else None
    if answer is not None:
        if output not in (None, answer):
            raise ValueError(f"output = '{output}', but the model ends in {modules[-1][1]}, which makes it '{answer}'")
        modules.pop()
    layers, betas = _layers(modules)
    network = _network(layers, answer or output or "softmax", betas)
    return Borrowed(layers, network, told=(answer or output) is not None)


def _flat(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module in the order in which they act, nested ones taken apart, those that do nothing left out."""
    # named_children passes over a module that is used twice, as one nn.Tanh() may be
    for name, module in model._modules.items():
        if isinstance(module, nn.Sequential):
            yield from _flat(module, f"{prefix}{name}.")
        elif not (isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and module.p == 0)):
            yield f"{prefix}{name}", module


def _layers(modules: list[tuple[str, nn.Module]]) -> tuple[tuple[Layer, ...], dict[str, float]]:
    """The layers, and where each steepness was found."""
    layers: list[Layer] = []
    betas: dict[str, float] = {}
    before: list[nn.Module] = []
    bent = True  # whether a nonlinearity would have no layer of its own
    for name, module in modules:
        kind = type(module)
        if kind in LAYERS:
            layers.append(_checked(Layer(name, module, tuple(before), "linear"), layers))
            before, bent = [], False
        elif kind in BETWEEN:
            before.append(module)
            bent = True
        elif kind in ACTIVATIONS and not bent:
            activation, beta = ACTIVATIONS[kind](module)
            layers[-1] = layers[-1]._replace(activation=activation)
            betas |= {} if beta is None else {f"'{name}' {module}": beta}
            bent = True
        elif kind in ACTIVATIONS:
            raise ValueError(f"'{name}' {module} does not follow a layer; {ALLOWED}")
        else:
            advice = {nn.MaxPool2d: "; take nn.AvgPool2d, or a stride", nn.Dropout: "; set p=0"}.get(kind, "")
            raise ValueError(f"'{name}' is a {module}; {ALLOWED}{advice}")
    if not layers:
        raise ValueError(f"the model has no layer; {ALLOWED}")
    if before or layers[-1].activation != "linear" or layers[-1].convolves:
        raise ValueError(
            f"the model ends in '{modules[-1][0]}' {modules[-1][1]}; let it end in an nn.Linear, whose logits or "
            "values are the output, or in nn.Softmax, nn.LogSoftmax or nn.Sigmoid after it"
        )
    return tuple(layers), betas


def _checked(layer: Layer, earlier: list[Layer]) -> Layer:
    """The layer; raises ValueError where it cannot follow the earlier ones."""
    module, size = layer.module, layer.matrix.shape[1]
    if any(module is other.module for other in earlier):
        raise ValueError(
            f"'{layer.name}' is the very layer that '{earlier[0].name}' or another one is; give it its own"
        )
    flattened = any(isinstance(part, nn.Flatten) for part in layer.before)
    for part in layer.before:
        if isinstance(part, nn.Flatten) and (part.start_dim, part.end_dim) != (1, -1):
            raise ValueError(f"before '{layer.name}' stands {part}; leave out its settings: all but the batch")
        if isinstance(part, nn.AvgPool2d) and (part.ceil_mode or part.divisor_override or not part.count_include_pad):
            raise ValueError(f"before '{layer.name}' stands {part}; leave its settings at kernel, stride and padding")
    if isinstance(module, nn.Conv2d):
        if module.groups != 1 or module.padding_mode != "zeros":
            raise ValueError(f"'{layer.name}' {module} needs groups=1 and padding_mode='zeros'")
        if flattened or any(not other.convolves for other in earlier):
            raise ValueError(f"'{layer.name}' is an nn.Conv2d behind layers that have no positions any more; {ALLOWED}")
        known = module.in_channels
        given = earlier[-1].matrix.shape[0] if earlier else known
    else:
        images = bool(earlier) and earlier[-1].convolves
        if images and not flattened:
            raise ValueError(f"'{layer.name}' is an nn.Linear behind an image; put an nn.Flatten() before it")
        if not images and any(isinstance(part, nn.AvgPool2d) for part in layer.before):
            raise ValueError(f"before '{layer.name}' stands a pooling without an nn.Conv2d; {ALLOWED}")
        known = given = size if images or not earlier else earlier[-1].matrix.shape[0]
        known = size
    if known != given:
        raise ValueError(f"'{layer.name}' takes {known} units, and what stands before it gives {given}")
    return layer


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


def _window(name: str, size: Pair, module: nn.Module) -> Window:
    """How a convolution or a pooling slides over images of `size`; raises ValueError where these are too small."""
    kernel, stride, padding, dilation = (
        _pair(getattr(module, key, 1)) for key in ("kernel_size", "stride", "padding", "dilation")
    )
    if isinstance(module.padding, str):
        around = [spread * (side - 1) for spread, side in zip(dilation, kernel, strict=True)]
        if module.padding == "same" and any(rest % 2 for rest in around):
            raise ValueError(
                f"'{name}' {module}: padding='same' of an even kernel is lopsided; give padding as a number"
            )
        padding = (around[0] // 2, around[1] // 2) if module.padding == "same" else (0, 0)
    window = Window(size, kernel, stride, padding, dilation)
    if min(window.places) < 1:
        raise ValueError(f"'{name}' {module} finds no place on an image of {size[0]} x {size[1]}")
    return window


def _pair(value: Any) -> Pair:
    """A setting of an image module as rows and columns."""
    return (int(value), int(value)) if isinstance(value, int) else (value[0], value[1])
