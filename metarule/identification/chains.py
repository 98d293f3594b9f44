"""A user's own PyTorch model read as a chain of linear layers with one nonlinearity, without touching it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarule.identification.problems import RecordingError
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS

ONLY = "a Recorder follows a chain of nn.Linear with one of " + ", ".join(NONLINEARITIES) + " between them"

# the order decides where two are the same on all drives that were seen: a relu of positive drives is linear
CANDIDATES = ("tanh", "sigmoid", "softplus", "relu", "linear")

TOLERANCE = 1e-4
"""Rates of order 1 that differ by less are the same: float32 rounds at 1e-7, a wrong nonlinearity is 1e-1 off."""

STIMULI = 32
"""Stimuli that are shown to find a model's nonlinearity: enough for drives of both signs."""


class Flow(NamedTuple):
    """One forward pass: what went into and out of each linear layer (S, units), and what the model answered."""

    inputs: dict[str, Tensor]
    drives: dict[str, Tensor]
    answer: Tensor


@dataclass(frozen=True)
class Chain:
    """Linear layers by their names in the model, in the order in which they act, and what stands between them.

    `answers` is what the model makes of its last drive: "linear" (it returns logits), "softmax" or "sigmoid".
    """

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    nonlinearity: str
    beta: float
    answers: str

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of the populations, the input first: input, hidden1, ..., output."""
        return ("input", *(f"hidden{place}" for place in range(1, len(self.layers))), "output")


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of everything that a model holds, by name."""
    return {name: value.detach().clone() for name, value in model.state_dict(keep_vars=True).items()}


def flow(model: nn.Module, values: Mapping[str, Tensor], x: Tensor) -> Flow:
    """A forward pass with `values` for the model's parameters and buffers; the model and all randomness stay as were.

    Raises RecordingError where a layer acts twice or on anything but (S, units).
    """
    inputs: dict[str, Tensor] = {}
    drives: dict[str, Tensor] = {}

    def seen(name: str, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        if name in inputs or made.ndim != 2:
            said = "acts twice" if name in inputs else f"makes {tuple(made.shape)}, not (samples, units)"
            raise RecordingError(f"the layer '{name}' {said}; {ONLY}")
        inputs[name], drives[name] = given[0], made

    hooks = [
        module.register_forward_hook(functools.partial(seen, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    learned = {name for name, _ in model.named_parameters()}
    # what writes into its buffers as it acts gets copies
    copies = {name: value if name in learned else value.clone() for name, value in values.items()}
    try:
        with torch.no_grad(), _randomness_kept(x):
            answer = torch.func.functional_call(model, copies, (x,))
    finally:
        for hook in hooks:
            hook.remove()
    return Flow(inputs, drives, answer)


@contextmanager
def _randomness_kept(x: Tensor) -> Iterator[None]:
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        yield


def chain_of(model: nn.Module, x: Tensor) -> Chain:
    """The chain that a model is, found by a forward pass with random weights on stimuli shaped like `x`.

    Raises RecordingError naming the layer that does not fit.
    """
    _refuse_other_layers(model)
    generator = torch.Generator().manual_seed(0)
    # biases of order 1 and drives of order 1: every nonlinearity shows its bends
    values = parameters_of(model)
    # buffers stay: a variance that was drawn might be negative
    values |= {name: _drawn(values[name], generator) for name, _ in model.named_parameters()}
    stimuli = torch.randn((STIMULI, *x.shape[1:]), generator=generator)
    shown = flow(model, values, stimuli.to(next(model.parameters(), stimuli)))
    layers = tuple(shown.inputs)
    unused = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name not in shown.inputs]
    if not layers or unused:
        said = f"the layers {', '.join(unused)} are never called" if unused else "the model has no nn.Linear"
        raise RecordingError(f"{said}; {ONLY}")
    softness = {1.0, *(float(part.beta) for part in model.modules() if isinstance(part, nn.Softplus))}
    found = {("tanh", 1.0)}
    for place, (below, above) in enumerate(itertools.pairwise(layers)):
        fitting = _between(shown.drives[below], shown.inputs[above], softness)
        found = fitting if place == 0 else found & fitting
        if not found:
            said = "a nonlinearity that is unknown or differs from that of earlier layers"
            raise RecordingError(f"between '{below}' and '{above}' stands {said}; {ONLY}, the same everywhere")
    nonlinearity, beta = min(found, key=lambda pair: (CANDIDATES.index(pair[0]), pair[1]))
    sizes = (shown.inputs[layers[0]].shape[1], *(shown.drives[name].shape[1] for name in layers))
    return Chain(layers, sizes, nonlinearity, beta, _answers(shown.drives[layers[-1]], shown.answer))


def _refuse_other_layers(model: nn.Module) -> None:
    linear = {
        f"{name}.{part}".lstrip(".")
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear)
        for part in ("weight", "bias")
    }
    other = [name for name, value in model.named_parameters() if value.requires_grad and name not in linear]
    if other:
        raise RecordingError(f"{', '.join(other)} are learned but belong to no nn.Linear; {ONLY}")
    dropped = [
        name for name, part in model.named_modules() if isinstance(part, nn.modules.dropout._DropoutNd) and part.p
    ]
    if dropped:
        raise RecordingError(f"{', '.join(dropped)} drops units at random, which is not recorded; set p = 0. {ONLY}")


def _drawn(value: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers shaped like `value`; of a weight (I, J) with variance 1 / J."""
    drawn = torch.randn(value.shape, generator=generator)
    return (drawn / (value.shape[-1] ** 0.5 if value.ndim > 1 else 1.0)).to(value)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() < TOLERANCE)


def _between(drive: Tensor, rate: Tensor, softness: set[float]) -> set[tuple[str, float]]:
    """Every nonlinearity with its steepness that makes `rate` (S, units) of `drive`."""
    tried = [(name, beta) for name in CANDIDATES for beta in (softness if name == "softplus" else {1.0})]
    return {(name, beta) for name, beta in tried if _same(NONLINEARITIES[name].rate(drive, beta), rate)}


def _answers(drive: Tensor, answer: object) -> str:
    if isinstance(answer, Tensor):
        made: dict[str, Callable[[Tensor], Tensor]] = {**OUTPUTS, "log_softmax": lambda d: torch.log_softmax(d, dim=-1)}
        flat = answer.reshape(len(answer), -1) if answer.ndim else answer
        for name in ("linear", "softmax", "log_softmax", "sigmoid"):
            if _same(made[name](drive), flat):
                return name.removeprefix("log_")
    raise RecordingError(
        "the model does not return its last layer's drive, or the softmax, log_softmax or sigmoid of it; "
        "let it return logits, the loss apart"
    )
