"""What an nn.Sequential is made of, module by module: the layers that a local rule can train, and what is between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from metarule.positions import Pair, Window

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


def flat(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module in the order in which they act, nested ones taken apart, those that do nothing left out."""
    # named_children passes over a module that is used twice, as one nn.Tanh() may be
    for name, module in model._modules.items():
        if isinstance(module, nn.Sequential):
            yield from flat(module, f"{prefix}{name}.")
        elif not (isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and module.p == 0)):
            yield f"{prefix}{name}", module


def layers_of(modules: list[tuple[str, nn.Module]]) -> tuple[tuple[Layer, ...], dict[str, float]]:
    """The layers, and where each steepness was found; raises ValueError naming the module that does not fit."""
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
            if getattr(module, "threshold", 20) != 20:
                raise ValueError(f"'{name}' {module} is a line from its threshold on; leave threshold at 20")
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
    if not isinstance(module.weight, nn.Parameter):
        raise ValueError(
            f"'{layer.name}' {module} computes its weight from other parameters; give it a weight of its own"
        )
    if any(module.weight is other.module.weight for other in earlier):
        raise ValueError(f"'{layer.name}' {module} shares its weight with an earlier layer; give it its own")
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


def window_of(name: str, size: Pair, module: nn.Module) -> Window:
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
