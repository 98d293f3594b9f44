"""The contract of a synapse model: a rate that scales, runs that do not mix, a state that leads with R."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.contracts import probes
from metarule.contracts.base import Check, has_source, require, verified
from metarule.contracts.probes import RUNS, SIZE_IN, SIZE_OUT
from metarule.rng import Noise
from metarule.signals import outer
from metarule.synapses import SynapseModel


def check_synapse(model: SynapseModel) -> Iterator[Check]:
    """Every property of one synapse model."""
    return verified(f"synapse.{model.kind}", model, PROPERTIES)


def declares(model: SynapseModel) -> str:
    """has `rate` as its first parameter"""
    names = [param.name for param in model.params]
    require(names[:1] == ["rate"], f"params are {names}; `rate` comes first")
    return ", ".join(names)


def shapes(model: SynapseModel) -> None:
    """gives finite changes of the weight's shape and dtype, and a state that leads with R"""
    for dtype in (torch.float64, torch.float32):
        theta = _theta(model, dtype)
        weight = probes.noise("weight", dtype=dtype).normal(SIZE_OUT, SIZE_IN)
        before = weight.clone()
        state = model.init(theta, weight)
        probes.check_state(state, RUNS)
        change, state = model.step(
            theta, weight, _change(0, dtype=dtype), 1.0, state, probes.noise("step", dtype=dtype)
        )
        probes.check_state(state, RUNS)
        probes.check_tensor("the change", change.tensor(weight), tuple(weight.shape), dtype)
        require(torch.equal(weight, before), "step changed the weight in place; the engine does the adding")


def own_row(model: SynapseModel) -> None:
    """row r of theta moves run r only"""
    theta = _theta(model)
    before = _trained(model, theta, range(RUNS))
    moved = theta.clone()
    moved[1, 0] *= 1.5
    after = _trained(model, moved, range(RUNS))
    require(torch.equal(before[[0, 2]], after[[0, 2]]), "another run's weight moved too")
    require(not torch.equal(before[1], after[1]), "its own weight did not move: the rate has no effect")


def alone(model: SynapseModel) -> str:
    """run r of a batch equals run r alone"""
    theta = _theta(model)
    return probes.check_equal(
        "the weights", _trained(model, theta[1:2], (1,))[0], _trained(model, theta, range(RUNS))[1]
    )


def without_autograd(model: SynapseModel) -> None:
    """uses no autograd inside"""
    with torch.inference_mode():
        _trained(model, _theta(model), range(RUNS))


def _theta(model: SynapseModel, dtype: torch.dtype = torch.float64) -> Tensor:
    return probes.random_theta(model.params, probes.noise("theta", dtype=dtype))


def _change(step: int, runs=range(RUNS), dtype: torch.dtype = torch.float64):
    stream: Noise = probes.noise("change", step, runs=runs, dtype=dtype)
    return outer(stream.at("post").normal(2, SIZE_OUT), stream.at("pre").normal(2, SIZE_IN))


def _trained(model: SynapseModel, theta: Float[Tensor, "R P"], runs) -> Float[Tensor, "R I J"]:
    weight = probes.noise("weight", runs=runs).normal(SIZE_OUT, SIZE_IN)
    state = model.init(theta, weight)
    for step in range(4):
        change, state = model.step(
            theta, weight, _change(step, runs), 1.0, state, probes.noise("step", step, runs=runs)
        )
        weight = change.apply(weight)
    return weight


PROPERTIES = (has_source, declares, shapes, without_autograd, own_row, alone)
