"""What contracts are checked with: addressed noise, random signals and parameters, comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.contracts.base import require
from metarule.params import Param
from metarule.rng import Noise, noise_for
from metarule.signals import SIGNALS, Signals, State
from metarule.tree import leaves

SIZE_OUT, SIZE_IN, RUNS = 4, 3, 3
PRE_SIDE = ("pre", "pre_ref", "pre_error")
POST_SIDE = ("post", "post_ref", "feedback", "error", "gain")
SYNAPSE_SIDE = ("weight", "weight_noise", "eligibility")


def noise(*labels: str | int, runs: Iterable[int] = range(RUNS), dtype: torch.dtype = torch.float64) -> Noise:
    """One stream per run, run r at (labels, r)."""
    return noise_for([("contract", *labels, run) for run in runs], dtype)


def shape_of(name: str, events: int) -> tuple[int, int]:
    """The shape of a signal at the probe projection, R apart."""
    if name in SYNAPSE_SIDE:
        return SIZE_OUT, SIZE_IN
    if name in PRE_SIDE:
        return events, SIZE_IN
    return (events, SIZE_OUT) if name in POST_SIDE else (events, 1)


def random_signals(names: Iterable[str], events: int, stream: Noise) -> Signals:
    """Standard normal signals: `names` and the weight, no others."""
    given = {name: stream.at(name).normal(*shape_of(name, events)) for name in SIGNALS if name in {*names, "weight"}}
    return Signals(**given)


def some(signals: Signals, runs: slice) -> Signals:
    """The same signals of some runs."""
    given = {name: value[runs] for name in SIGNALS if (value := getattr(signals, name)) is not None}
    return Signals(**given)


def random_theta(params: tuple[Param, ...], stream: Noise) -> Float[Tensor, "R P"]:
    """Rows within the bounds of the parameters, about half a unit from their starts; categorical ones are drawn."""
    rows = stream.at("theta").normal(len(params)) if params else torch.zeros(stream.runs, 0)
    values = [
        [
            float(int(abs(z) * 1000) % len(param.choices)) if param.choices else param.decode(0.5 * z + 0.1)
            for param, z in zip(params, row, strict=True)
        ]
        for row in rows.tolist()
    ]
    return torch.tensor(values, dtype=stream.dtype).reshape(stream.runs, len(params))


def check_tensor(name: str, value: object, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raises Broken where `value` is not a finite tensor of this shape and dtype."""
    require(isinstance(value, Tensor), f"{name} is {type(value).__name__}, not a tensor")
    assert isinstance(value, Tensor)
    require(tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}, expected {shape}")
    require(value.dtype == dtype, f"{name} is {value.dtype}, expected {dtype} as its inputs")
    require(bool(torch.isfinite(value).all()), f"{name} is not finite")


def check_state(state: State, runs: int) -> None:
    """Raises Broken where a tensor of a state does not lead with R."""
    for leaf in leaves(state):
        require(isinstance(leaf, Tensor), f"a state holds {type(leaf).__name__}; only tensors and dicts of them")
        require(leaf.dim() > 0 and leaf.shape[0] == runs, f"a state's tensor has shape {tuple(leaf.shape)}; R leads")


def check_equal(name: str, one: Tensor, other: Tensor, tolerance: float = 1e-10) -> str:
    """The largest difference; raises Broken where it exceeds `tolerance` of the largest value."""
    gap = float((one - other).abs().max()) if one.numel() else 0.0
    scale = max(float(other.abs().max()) if other.numel() else 0.0, 1e-12)
    require(gap <= tolerance * max(scale, 1.0), f"{name} differ by {gap:.3g} (values up to {scale:.3g})")
    return f"difference {gap:.1e}"


def central_differences(function: Callable[[Tensor], Tensor], at: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
    """d function / d at, where row r of `at` moves element r of the result only."""
    columns = []
    for column in range(at.shape[1]):
        step = torch.zeros_like(at)
        step[:, column] = 1e-6 * at[:, column].abs().clamp(min=1e-2)
        columns.append((function(at + step) - function(at - step)) / (2 * step[:, column]))
    return torch.stack(columns, dim=1)
