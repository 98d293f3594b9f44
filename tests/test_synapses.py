"""Synapse models: one contract for every model, then each against torch.optim or its closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
import torch
from building import address, central_differences, flat, make, random_theta
from torch import Tensor

from metarule.params import starts
from metarule.rng import noise_for
from metarule.signals import Change, outer
from metarule.synapses import SYNAPSES, SynapseModel
from metarule.synapses.adam import Adam
from metarule.synapses.constraints import one_sided
from metarule.synapses.momentum import Momentum
from metarule.synapses.sgd import Sgd

RUNS, SIZE_OUT, SIZE_IN, STEPS = 3, 4, 5, 12


def variants() -> dict[str, SynapseModel]:
    """Every model as it comes, and with every option that it shares with others switched on."""
    options = {"weight_decay": 0.1, "bound": 0.8, "nesterov": True, "dale": True}
    models: dict[str, SynapseModel] = {}
    for kind, member in SYNAPSES.items():
        models[kind] = make(member)
        fields = {each.name for each in dataclasses.fields(make(member))}
        models |= {f"{kind}-{name}": make(member, **{name: options[name]}) for name in options if name in fields}
    return models


SUBJECTS = variants()
every_model = pytest.mark.parametrize("model", SUBJECTS.values(), ids=SUBJECTS.keys())


def weights(runs=RUNS) -> Tensor:
    return 0.3 * address("synapses", "weight", runs=runs).normal(SIZE_OUT, SIZE_IN)


def induced(step: int, runs=RUNS) -> Change:
    """A change with all its parts, another one every step."""
    noise = address("synapses", step, runs=runs)
    factored = outer(noise.at("post").normal(2, SIZE_OUT), noise.at("pre").normal(2, SIZE_IN))
    shrink = 0.01 * noise.at("shrink").uniform(1, 1)
    return factored + Change(shrink=shrink, full=0.2 * noise.at("full").normal(SIZE_OUT, SIZE_IN))


def walked(model, theta, weight, changes, rate=1.0, runs: Iterable[int] | None = None):
    """Every weight on the way, and the last state; `runs` says which runs these are, 0, 1, ... if left out."""
    stream = noise_for([("synapses", "noise", run) for run in runs or range(len(weight))])
    state, path = model.init(theta, weight), []
    for step, change in enumerate(changes):
        moved, state = model.step(theta, weight, change, rate, state, stream.at(step))
        weight = moved.apply(weight)
        path.append(weight)
    return path, state


def some_theta(model, runs=RUNS) -> Tensor:
    return random_theta(model.params, address("synapses", "theta", runs=runs))


@every_model
def test_rate_comes_first_among_the_parameters(model):
    assert model.params[0].name == "rate"


@every_model
def test_weights_keep_their_shape_and_dtype_and_every_state_leads_with_runs(model):
    for dtype in (torch.float32, torch.float64):
        theta, weight = some_theta(model).to(dtype), weights().to(dtype)
        change = Change(full=induced(0).tensor(weights()).to(dtype))
        path, state = walked(model, theta, weight, [change])
        assert path[0].shape == weight.shape
        assert path[0].dtype == dtype
        for name, value in flat(state).items():
            assert value.shape[0] == RUNS, name


@every_model
def test_a_step_leaves_its_inputs_as_they_were(model):
    theta, weight, change = some_theta(model), weights(), induced(0)
    state = model.init(theta, weight)
    _, state = model.step(theta, weight, change, 1.0, state, address("n", runs=RUNS))
    handed = {"theta": theta, "weight": weight, "left": change.left, "right": change.right, "full": change.full}
    handed |= {"shrink": change.shrink} | flat(state)
    before = {name: value.clone() for name, value in handed.items()}
    model.step(theta, weight, change, 0.5, state, address("n", runs=RUNS))
    for name, value in handed.items():
        assert torch.equal(value, before[name]), name


@every_model
def test_every_run_steps_at_its_own_rate(model):
    theta, weight = some_theta(model), weights()
    together, _ = walked(model, theta, weight, [induced(step) for step in range(4)])
    for r in range(RUNS):
        one = [_of_run(induced(step), r) for step in range(4)]
        alone, _ = walked(model, theta[r : r + 1], weight[r : r + 1], one, runs=(r,))
        torch.testing.assert_close(alone[-1][0], together[-1][r], rtol=1e-12, atol=1e-12)


def _of_run(change: Change, r: int) -> Change:
    parts = {each.name: getattr(change, each.name) for each in dataclasses.fields(change)}
    return Change(**{name: part[r : r + 1] for name, part in parts.items()})


@every_model
def test_the_schedules_rate_multiplies_the_models_own(model):
    theta, weight, change = some_theta(model), weights(), induced(0)
    halved = theta.clone()
    halved[:, 0] /= 2
    scheduled, _ = walked(model, theta, weight, [change], rate=0.5)
    own, _ = walked(model, halved, weight, [change])
    torch.testing.assert_close(scheduled[0], own[0], rtol=1e-13, atol=1e-13)


@every_model
def test_meta_gradient_in_theta_equals_finite_differences(model):
    theta, weight = some_theta(model), weights()
    probe = address("synapses", "probe", runs=RUNS).normal(SIZE_OUT, SIZE_IN)

    def end(row: Tensor) -> Tensor:
        return (walked(model, row, weight, [induced(step) for step in range(4)])[0][-1] * probe).sum((1, 2))

    row = theta.clone().requires_grad_()
    gradient = torch.autograd.grad(end(row).sum(), row)[0]
    torch.testing.assert_close(gradient, central_differences(end, theta), rtol=1e-5, atol=1e-7)


def optimisers():
    """A model and the torch.optim class and settings that it must equal, weight decay and all."""
    yield Sgd(), torch.optim.SGD, {}
    yield Sgd(weight_decay=0.1), torch.optim.SGD, {"weight_decay": 0.1}
    for nesterov in (False, True):
        settings = {"momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.05}
        yield Momentum(**settings), torch.optim.SGD, settings
    for decay in (0.0, 0.1):
        settings = {"betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": decay}
        yield Adam(beta1=0.8, beta2=0.95, weight_decay=decay), torch.optim.Adam, settings
    yield Adam(epsilon=1e-2), torch.optim.Adam, {"eps": 1e-2}


@pytest.mark.parametrize(("model", "optimiser", "settings"), list(optimisers()))
def test_model_equals_torch_optim_step_by_step(model, optimiser, settings):
    rates = torch.tensor([[0.01], [0.1], [0.5]], dtype=torch.float64)
    changes = [induced(step) for step in range(STEPS)]
    path, _ = walked(model, rates, weights(), changes)
    for r in range(RUNS):
        leaf = weights()[r].requires_grad_()
        theirs = optimiser([leaf], lr=float(rates[r]), **settings)
        for step, change in enumerate(changes):
            leaf.grad = -change.tensor(leaf.detach()[None].expand(RUNS, -1, -1))[r]
            theirs.step()
            torch.testing.assert_close(path[step][r], leaf.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("epsilon", [1e-8, 0.0])
def test_adam_of_an_entry_that_never_changes_stays_put_with_zero_meta_gradient(epsilon):
    model, weight = Adam(epsilon=epsilon), weights()
    silent = torch.zeros(SIZE_OUT, SIZE_IN, dtype=torch.bool)
    silent[:, 1] = True  # a pixel that is always blank
    coefficient = torch.full((RUNS, 1, 1), 0.7, dtype=torch.float64, requires_grad=True)
    theta = torch.full((RUNS, 1), 0.01, dtype=torch.float64, requires_grad=True)
    changes = [
        Change(full=coefficient * induced(step).tensor(weight).masked_fill(silent, 0.0)) for step in range(STEPS)
    ]
    end = walked(model, theta, weight, changes)[0][-1]
    assert torch.isfinite(end).all()
    assert torch.equal(end[:, silent], weight[:, silent])
    for entries, zero in ((silent, True), (~silent, False)):
        gradients = torch.autograd.grad(end[:, entries].sum(), (theta, coefficient), retain_graph=True)
        for gradient in gradients:
            assert torch.isfinite(gradient).all()
            assert not zero or not gradient.any()
        assert zero or gradients[0].all()


def models_with(**option):
    """Every model that has an option, with the option set."""
    return [make(member, **option) for member in SYNAPSES.values() if option.keys() <= _fields(make(member))]


def _fields(model):
    return {each.name for each in dataclasses.fields(model)}


@pytest.mark.parametrize("model", models_with(bound=0.5), ids=lambda model: model.kind)
def test_soft_bounds_keep_weights_inside_whatever_the_rate(model):
    weight = weights().clamp(-0.5, 0.5)
    theta = starts(model.params).repeat(RUNS, 1)
    theta[:, 0] = torch.tensor([0.1, 10.0, 1e3], dtype=torch.float64)
    for moved in walked(model, theta, weight, [induced(step) for step in range(STEPS)])[0]:
        assert (moved.abs() <= 0.5).all()


def test_soft_bounds_approach_the_bound_as_their_closed_form_says():
    # w <- w + a (1 - w/b): w_t = b - (b - w_0) (1 - a/b)^t, and its mirror image for depression
    bound, step = 0.5, 0.05
    weight = torch.tensor([[[0.1, -0.2]]], dtype=torch.float64)
    change = Change(full=torch.tensor([[[step, -step]]], dtype=torch.float64))
    path, _ = walked(Sgd(bound=bound), torch.ones(1, 1, dtype=torch.float64), weight, [change] * STEPS)
    aim = torch.tensor([[[bound, -bound]]], dtype=torch.float64)
    for t, moved in enumerate(path, start=1):
        torch.testing.assert_close(moved, aim - (aim - weight) * (1 - step / bound) ** t, rtol=1e-12, atol=1e-12)


every_dale = pytest.mark.parametrize("model", models_with(dale=True), ids=lambda model: model.kind)


def test_the_optimisers_offer_dales_law():
    assert {model.kind for model in models_with(dale=True)} == {"sgd", "momentum", "adam"}


@every_dale
def test_with_dales_law_no_weight_changes_sign_whatever_the_changes(model):
    before = weights()
    before[:, 0, 0] = 0.0
    theta = torch.tensor([[0.1], [10.0], [1e3]], dtype=torch.float64)
    changes = [induced(step) for step in range(STEPS)]
    free, _ = walked(dataclasses.replace(model, dale=False), theta, before, changes)
    assert all(bool((torch.sign(path) == -torch.sign(before)).any()) for path in free[-1])
    held, _ = walked(model, theta, before, changes)
    for weight, earlier in zip(held, [before, *held], strict=False):
        assert (weight * torch.sign(before) >= 0).all()
        assert not weight[earlier == 0].any()
    assert all(0 < int((path == 0).sum()) < path.numel() for path in held[0])


@every_dale
def test_dales_law_stops_a_step_at_0_and_is_not_felt_elsewhere(model):
    weight, theta = weights(), torch.full((RUNS, 1), 0.2, dtype=torch.float64)
    plain, held = (
        walked(dataclasses.replace(model, dale=dale), theta, weight, [induced(0)])[0][0] for dale in (False, True)
    )
    crossed = torch.sign(plain) != torch.sign(weight)
    assert crossed.any()
    torch.testing.assert_close(held, plain.masked_fill(crossed, 0.0), rtol=1e-14, atol=1e-16)


@every_dale
def test_a_weight_far_from_0_does_not_feel_dales_law(model):
    weight, theta = weights().sign() * 5, torch.full((RUNS, 1), 0.01, dtype=torch.float64)
    changes = [induced(step) for step in range(STEPS)]
    plain, held = (walked(dataclasses.replace(model, dale=dale), theta, weight, changes)[0] for dale in (False, True))
    for one, other in zip(plain, held, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-14, atol=0)


def test_dales_law_does_not_hide_a_change_that_is_no_number():
    change = Change(full=torch.full((RUNS, SIZE_OUT, SIZE_IN), torch.nan, dtype=torch.float64))
    assert one_sided(change, weights(), True).tensor(weights()).isnan().all()


def test_without_dales_law_a_change_stays_as_it_is_factored():
    change = induced(0)
    assert one_sided(change, weights(), False) is change


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Sgd(weight_decay=-0.1), "synapse.weight_decay = -0.1 must not be negative"),
        (lambda: Momentum(bound=0.0), "synapse.bound = 0.0 must be positive"),
        (lambda: Momentum(momentum=1.0), r"synapse.momentum = 1.0 must lie in \[0, 1\)"),
        (lambda: Adam(beta1=-0.1), r"synapse.beta1 = -0.1 must lie in \[0, 1\)"),
        (lambda: Adam(beta2=1.0), r"synapse.beta2 = 1.0 must lie in \[0, 1\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_adam_does_not_hide_a_change_that_is_not_a_number():
    weight = torch.ones(1, 2, 2, dtype=torch.float64)
    theta = torch.tensor([[0.1]], dtype=torch.float64)
    change, _ = Adam().step(
        theta, weight, Change(full=weight / 0 - weight / 0), 1.0, Adam().init(theta, weight), address()
    )
    assert change.tensor(weight).isnan().all()
