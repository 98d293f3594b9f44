"""The contract of a model: sizes, dependence on its address alone, and a gradient through gradient steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from metarule.contracts import probes
from metarule.contracts.base import Check, has_source, require, verified
from metarule.models import Model
from metarule.module_learner import ModuleLearner
from metarule.signals import Batch

INPUTS, OUTPUTS, EVENTS = 64, 5, 3


def check_model(model: Model) -> Iterator[Check]:
    """Every property of one model, on 64 inputs (an image of 8 x 8) and 5 outputs."""
    return verified(f"model.{model.kind}", model, PROPERTIES)


def shapes(model: Model) -> str:
    """drives every output, and has weights to train"""
    learner = _learner(model)
    drive = learner.module(probes.noise("module", runs=(0,)))(_batch().x[0])
    probes.check_tensor("the drive", drive.detach(), (EVENTS, OUTPUTS), torch.float64)
    require(learner.weights_per_run > 0, "the module has no parameters")
    return f"{learner.weights_per_run} weights in {', '.join(learner.layers)}"


def own_address(model: Model) -> None:
    """draws its weights from its address, and leaves torch's own generator alone"""
    learner = _learner(model)
    before = torch.random.get_rng_state()
    one, again, other = (_weights(learner, run) for run in (0, 0, 1))
    require(torch.equal(torch.random.get_rng_state(), before), "torch's own generator moved")
    require(torch.equal(one, again), "the same address gave other weights")
    require(not torch.equal(one, other), "another address gave the same weights")


def gradient(model: Model) -> str:
    """is differentiable through steps of gradient descent: the slope in its rates equals finite differences"""
    learner = _learner(model)
    theta = probes.random_theta(learner.params, probes.noise("theta", runs=(0,)))

    def loss(row: Tensor) -> Tensor:
        noise = probes.noise("module", runs=(0,))
        trained = learner.trained(row[0], noise, [_batch(), _batch()], row.requires_grad, lambda step, module: None)
        return learner.loss(trained, _batch())[None]

    row = theta.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(row).sum(), row)
    expected = probes.central_differences(lambda rows: loss(rows).detach(), theta)
    return probes.check_equal("gradient and finite differences", found, expected, 1e-5)


def _learner(model: Model) -> ModuleLearner:
    return ModuleLearner(model, INPUTS, OUTPUTS, "softmax")


def _weights(learner: ModuleLearner, run: int) -> Tensor:
    module = learner.module(probes.noise("module", runs=(run,)))
    return torch.cat([tensor.detach().flatten() for tensor in module.parameters()])


def _batch() -> Batch:
    noise = probes.noise("batch", runs=(0,))
    answers = noise.at("y").integers(OUTPUTS, EVENTS)
    return Batch(noise.at("x").normal(EVENTS, INPUTS), torch.nn.functional.one_hot(answers, OUTPUTS).double())


PROPERTIES = (has_source, shapes, own_address, gradient)
