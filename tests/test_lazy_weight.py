"""Lazy weights: to all who use them tensors like any other, with the gradients of the weights written out."""

from __future__ import annotations

import pytest
import torch
from building import address, assert_states_close, fitting_learner, make, random_theta, train

from metarule import bench_meta, block
from metarule.credit import CREDIT
from metarule.credit.backprop import Backprop
from metarule.inner import Reference
from metarule.lazy_weight import LazyWeight, Parts, written
from metarule.rules import RULES
from metarule.synapses import SYNAPSES

EVERYTHING = frozenset({"loss", "grad", "carry"})
LEARNERS = {f"credit={kind}": fitting_learner(make(member)) for kind, member in CREDIT.items()}
LEARNERS |= {f"synapse={kind}": fitting_learner(Backprop(), synapse=make(member)) for kind, member in SYNAPSES.items()}
LEARNERS |= {
    f"rule={kind}": fitting_learner(Backprop(), rule=make(member))
    for kind, member in RULES.items()
    if make(member).reads <= Backprop.gives and len(make(member).params) < 100
}


def parts(runs=2, size_out=4, size_in=5):
    noise = address("lazy", runs=runs)
    base = noise.at("base").normal(size_out, size_in).requires_grad_()
    return Parts(base, torch.zeros((), dtype=base.dtype, requires_grad=True))


def grown(weight, noise):
    """A weight after two additions of factors and a shrinking between."""
    left, right = noise.at("left").normal(6, 4), noise.at("right").normal(6, 5)
    weight = torch.baddbmm(weight, left[:, :2].transpose(1, 2), right[:, :2])
    weight = weight * noise.at("keep").uniform(1, 1)
    return torch.baddbmm(weight, left[:, 2:].transpose(1, 2), right[:, 2:])


def used(weight, noise):
    """A number that depends on a weight through products on both sides, and elementwise."""
    before, after = noise.at("before").normal(3, 5), noise.at("after").normal(3, 4)
    out = torch.bmm(before, weight.transpose(1, 2)).tanh().sum() + torch.bmm(after, weight).sigmoid().sum()
    total = torch.baddbmm(after, before, weight.transpose(1, 2)).square().sum()
    return out + total + (weight * weight).sum() + torch.zeros_like(weight).sum()


def test_products_additions_and_gradients_are_those_of_the_weight_written_out():
    noise, lazy = address("signals", runs=2), parts()
    plain = lazy.base.detach().clone().requires_grad_()
    ours, theirs = used(grown(LazyWeight.of(lazy), noise), noise), used(grown(plain, noise), noise)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert lazy.token is not None
    found = torch.autograd.grad(ours, [lazy.base, lazy.token], materialize_grads=True)[0]
    assert lazy.pairs
    expected = torch.autograd.grad(theirs, plain)[0]
    torch.testing.assert_close(lazy.gradient(found), expected, rtol=1e-12, atol=1e-12)


def test_products_alone_never_write_the_weight_out():
    noise, lazy = address("signals", runs=2), parts()
    weight = grown(LazyWeight.of(lazy), noise)
    assert type(weight) is LazyWeight
    product = torch.bmm(noise.at("x").normal(3, 5), weight.transpose(1, 2))
    assert type(product) is torch.Tensor
    found = torch.autograd.grad(product.sum(), lazy.base, allow_unused=True, retain_graph=True)[0]
    assert found is None  # autograd itself sees no way to it
    assert written(LazyWeight.of(lazy)) is lazy.base


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS.keys())
def test_every_plug_in_has_the_same_gradient_with_lazy_weights(learner, monkeypatch):
    theta = random_theta(learner.params, address("lazy", runs=2))
    settings = {"batch": 1, "wants": EVERYTHING, "score_at": (3, 7)}
    plain = train(learner, theta, 7, **settings)
    monkeypatch.setattr(block, "LARGE", 1)
    monkeypatch.setattr(block, "REACH", 2)
    for segments in (1, 2):
        lazy = train(learner, theta, 7, engine=Reference(dtype=torch.float64, segments=segments), **settings)
        assert lazy.carry is not None
        assert plain.carry is not None
        torch.testing.assert_close(lazy.loss, plain.loss, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(lazy.grad, plain.grad, rtol=1e-8, atol=1e-10)
        assert_states_close(lazy.carry, plain.carry, 1e-9)


def test_the_published_loop_has_the_same_meta_gradient():
    world = bench_meta.setting(2, 12, torch.float64)
    expected = bench_meta.published(world)
    for step in bench_meta.steps(world).values():
        torch.testing.assert_close(step(world), expected, rtol=1e-10, atol=1e-12)
