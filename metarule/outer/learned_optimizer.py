"""Learned optimizer: the outer loop's own optimizer was found by a search: an LSTM moves every number of the rule."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metarule.outer.base import OuterLoop
from metarule.outer.descent import Descent
from metarule.params import Param
from metarule.recurrent import Recurrent

SHIPPED = Path(__file__).with_suffix(".safetensors")
"""Weights found by searches/learn_to_optimize.toml."""

FORMAT = "metarule learned optimizer 1"


class Weights(NamedTuple):
    """An optimizer that was learned: its network and row of parameters, the `step` that one unit of its answer is, and
    the `slope` (root mean square) that its problems began with."""

    network: Recurrent
    theta: Float[Tensor, "P"]
    step: float
    slope: float


@dataclass
class LearnedOptimizer(OuterLoop):
    """z <- z + rate step lstm(-dL/dz, state), every coordinate with a state of its own.

    `rate` is in units of `Param.scale`: at 1 the rule moves as far as the point did on the problems that the optimizer
    was learned on. With `normalise` slopes are measured against the first one, whatever the loss is measured in.
    `weights` is a file of your own, made from a run by analysis/ship_learned_optimizer.py; left out, those that come
    with metarule. The one candidate is the rule itself. Where a run diverged the gradient is nan: the step is left out
    and counted in `skipped`, and after three in a row the rule goes half the way back. Raises ValueError for more than
    one candidate and for a file that holds no weights.
    """

    kind = "learned_optimizer"
    source = "Andrychowicz et al. 2016"
    accepts = frozenset({"real"})

    rate: float = 1.0
    weights: str | None = None
    normalise: bool = True
    clip: float | None = None

    def __post_init__(self) -> None:
        self._centre((Param("probe"),), self._read())

    @property
    def wants(self):
        return frozenset({"loss", "grad"})

    def _read(self) -> Weights:
        return read(SHIPPED if self.weights is None else Path(self.weights))

    def _centre(self, params: tuple[Param, ...], learned: Weights) -> Descent:
        made = functools.partial(LstmOptimizer, learned=learned, normalise=self.normalise)
        return Descent(params, self.kind, self.rate, clip=self.clip, made=made)

    def start(self, params, objectives=1):
        self.params = params
        self.learned = self._read()
        self.centre = self._centre(params, self.learned)

    def ask(self, candidates, noise):
        if candidates != 1:
            raise ValueError(f"outer.candidates = {candidates}, but {self.kind} moves a single rule; set it to 1")
        return self.best[None]

    def tell(self, theta, loss, grad=None):
        if grad is None:
            raise ValueError(f"{self.kind} needs the gradient of the loss; take an engine that gives 'grad'")
        slope = grad[0].to(torch.float64) * self.centre.stretch
        self.centre.step(slope if torch.isfinite(loss[0, 0]) else torch.full_like(slope, torch.nan))

    @property
    def best(self):
        return self.centre.theta

    @property
    def report(self):
        return {"gradient_norm": self.centre.norm, "skipped": self.centre.skipped}

    def state_dict(self):
        network = self.learned.network
        learned = {
            "sizes": [network.hidden, network.layers],
            "numbers": [network.reach, self.learned.step, self.learned.slope],
            "theta": self.learned.theta.clone(),
        }
        return {"centre": self.centre.state_dict(), "learned": learned}

    def load_state_dict(self, state: dict[str, Any]):
        """The weights are part of the state: a search goes on with those that it began with."""
        learned = state["learned"]
        (hidden, layers), (reach, step, slope) = learned["sizes"], learned["numbers"]
        self.learned = Weights(Recurrent(("slope",), hidden, layers, reach), learned["theta"].clone(), step, slope)
        self.centre = self._centre(self.params, self.learned)
        self.centre.load_state_dict(state["centre"])


class LstmOptimizer(torch.optim.Optimizer):
    """A learned optimizer as torch has them: p <- p + lr step lstm(-grad, state) for every number of every tensor.

    With `normalise` the slopes of a tensor are measured against its first one that is not 0.
    """

    def __init__(self, params: Any, lr: float, learned: Weights, normalise: bool = True) -> None:
        super().__init__(params, {"lr": lr})
        self.learned = learned
        self.normalise = normalise

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every tensor that has a gradient."""
        for group in self.param_groups:
            for point in group["params"]:
                if point.grad is not None:
                    point.add_(self._answer(point.grad, self.state[point]), alpha=group["lr"])

    def _answer(self, grad: Tensor, memory: dict[str, Any]) -> Tensor:
        network, theta, step, slope = self.learned
        slopes = -grad.flatten()[None]
        if not memory:
            memory |= network.init(slopes) | {"first": slopes.new_zeros(())}
        if memory["first"] == 0:
            memory["first"] = slopes.square().mean().sqrt()
        if self.normalise:
            slopes = slopes * (slope / memory["first"]) if memory["first"] > 0 else slopes
        state = {name: value for name, value in memory.items() if name != "first"}
        answer, state = network.step(theta.to(slopes)[None], slopes[..., None], state)
        memory |= state
        return step * answer.reshape(grad.shape)


def write(path: Path, learned: Weights) -> None:
    """The weights of a learned optimizer as a safetensors file."""
    network = learned.network
    numbers = {"hidden": network.hidden, "layers": network.layers, "reach": network.reach}
    numbers |= {"step": learned.step, "slope": learned.slope}
    about = {"format": FORMAT} | {name: repr(value) for name, value in numbers.items()}
    save_file({"theta": learned.theta.to(torch.float32).contiguous()}, path, about)


def read(path: Path) -> Weights:
    """The weights that a file holds; raises ValueError where it holds none, naming what is wrong."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            theta = file.get_tensor("theta").to(torch.float64) if "theta" in file.keys() else None  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"outer.weights: {path} is not a safetensors file that can be read: {error}") from error
    if about.get("format") != FORMAT or theta is None:
        raise ValueError(f"outer.weights: {path} is not a '{FORMAT}'; make one with analysis/ship_learned_optimizer.py")
    try:
        network = Recurrent(("slope",), int(about["hidden"]), int(about["layers"]), float(about["reach"]))
        step, slope = float(about["step"]), float(about["slope"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"outer.weights: {path} does not say what network it holds: {error}") from error
    if tuple(theta.shape) != (len(network.names),):
        raise ValueError(
            f"outer.weights: {path} holds {tuple(theta.shape)} numbers; {network.layers} layers of {network.hidden} "
            f"units have {len(network.names)}"
        )
    if not torch.isfinite(theta).all() or not 0 < step < math.inf or not 0 < slope < math.inf:
        raise ValueError(f"outer.weights: {path} holds numbers that are not finite, or a step that is not positive")
    return Weights(network, theta, step, slope)
