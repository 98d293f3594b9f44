"""How a network starts: rate functions and their losses, mean-field theory, and the initial weights that follow it."""

from __future__ import annotations

import math

import pytest
import torch
from building import address
from scipy.integrate import quad

from metarule.mean_field import chi, critical_gain, variance
from metarule.network import INITS, Network, Projection
from metarule.nonlinearities import LOSSES, NONLINEARITIES, OUTPUTS
from metarule.plugins import SpecError
from metarule.spec import from_table

TABLE = {
    "task": {"kind": "linear_map"},
    "network": {"hidden": [8]},
    "rule": {"kind": "terms", "terms": ["error_pre"]},
    "inner": {"steps": 5, "batch": 4},
    "outer": {"kind": "cma_es", "candidates": 4, "generations": 1},
}
DRIVES = torch.tensor([-30.0, -2.0, -0.3, 0.2, 1.0, 4.0, 30.0], dtype=torch.float64)


def expected(function, q):
    """E[f(sqrt(q) z)^2] by adaptive quadrature."""

    def weighed(z):
        value = function(torch.tensor(math.sqrt(q) * z, dtype=torch.float64))
        return float(value) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    return quad(weighed, -12, 12, points=[0.0], limit=200, epsabs=1e-12)[0]


@pytest.mark.parametrize("beta", [1.0, 5.0])
@pytest.mark.parametrize("name", sorted(NONLINEARITIES))
def test_the_slope_is_the_derivative_and_rates_stay_in_their_range(name, beta):
    drive = DRIVES.clone().requires_grad_()
    rate = NONLINEARITIES[name].rate(drive, beta)
    (derivative,) = torch.autograd.grad(rate.sum(), drive)
    torch.testing.assert_close(NONLINEARITIES[name].slope(rate.detach(), beta), derivative, rtol=1e-9, atol=1e-12)
    assert NONLINEARITIES[name].low <= rate.min()
    assert rate.max() <= NONLINEARITIES[name].high


@pytest.mark.parametrize("output", sorted(OUTPUTS))
def test_minus_the_gradient_of_the_matched_loss_is_target_minus_rate(output):
    drive = address("drive", runs=2).normal(3, 5).requires_grad_()
    y = torch.softmax(address("target", runs=2).normal(3, 5), dim=-1)
    loss = LOSSES[output](drive, y)
    assert loss.shape == (2, 3, 1)
    (gradient,) = torch.autograd.grad(loss.sum(), drive)
    torch.testing.assert_close(-gradient, y - OUTPUTS[output](drive).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("activation", "gain", "bias", "beta"),
    [("tanh", 0.8, 0.3, 1.0), ("tanh", 4.0, 0.3, 1.0), ("tanh", 20.0, 0.0, 1.0), ("sigmoid", 6.0, 0.1, 4.0),
     ("relu", 1.2, 0.5, 1.0), ("softplus", 1.2, 0.2, 10.0)],
)  # fmt: skip
def test_variance_is_a_fixed_point_and_chi_the_mean_squared_slope_there(activation, gain, bias, beta):
    f = NONLINEARITIES[activation]
    q = variance(activation, gain, bias, beta)
    assert gain**2 * expected(lambda a: f.rate(a, beta), q) + bias**2 == pytest.approx(q, rel=1e-7)
    slope = gain**2 * expected(lambda a: f.slope(f.rate(a, beta), beta), q)
    assert chi(activation, gain, bias, beta) == pytest.approx(slope, rel=1e-7)


def test_without_a_bias_an_ordered_network_falls_silent_and_a_relu_above_its_gain_explodes():
    assert variance("tanh", 0.9) == 0
    assert chi("tanh", 0.9) == pytest.approx(0.81, rel=1e-12)
    assert variance("relu", 1.5) == chi("relu", 1.5) == math.inf
    assert variance("softplus", 1.5, beta=10.0) == math.inf


@pytest.mark.parametrize(("activation", "gain"), [("tanh", 1.0), ("relu", math.sqrt(2)), ("linear", 1.0)])
def test_the_known_critical_gains_are_where_order_ends(activation, gain):
    assert critical_gain(activation) == pytest.approx(gain)
    assert chi(activation, 0.99 * gain) < 1 < chi(activation, 1.01 * gain)


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_a_searched_critical_gain_has_chi_1_and_softplus_has_that_of_relu(beta):
    assert chi("sigmoid", critical_gain("sigmoid", beta), beta=beta) == pytest.approx(1, abs=1e-7)
    assert critical_gain("softplus", beta) == pytest.approx(math.sqrt(2), rel=1e-8)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3)])
def test_orthogonal_weights_have_orthonormal_rows_or_columns_in_every_direction_alike(shape):
    noise = address("orthogonal", runs=2000)
    weight = noise.orthonormal(*shape)
    assert weight.shape == (2000, *shape)
    singular = torch.linalg.svdvals(weight)
    torch.testing.assert_close(singular, torch.ones_like(singular), rtol=1e-12, atol=1e-12)
    # entries of uniformly drawn frames have mean 0 and variance 1 / longer side; 2000 runs err by 5 deviations
    assert weight.mean(0).abs().max() < 5 / math.sqrt(2000 * max(shape))
    torch.testing.assert_close(
        weight.square().mean(0), torch.full(shape, 1 / max(shape), dtype=torch.float64), rtol=0.2, atol=0
    )
    alone = address("orthogonal", runs=1).orthonormal(*shape)
    torch.testing.assert_close(alone, weight[:1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("init", "variance_of"),
    [("glorot", 2 / (200 + 300)), ("gaussian", 1 / 300), ("critical", 2 / 300), ("orthogonal", 1 / 300)],
)
def test_initial_weights_have_their_variance_times_the_scale_and_biases_are_0(init, variance_of):
    network = Network.chain((300, 200, 2), "relu", bias=True, init=init, init_scale=0.5)
    weight = network.draw(network.projections[0], address("weights", runs=2))
    assert weight.shape == (2, 200, 301)
    assert weight[:, :, -1].abs().max() == 0
    drawn = weight[:, :, :-1]
    assert float(drawn.square().mean()) == pytest.approx(0.25 * variance_of, rel=0.02)
    # excess kurtosis tells a uniform draw from a normal one
    kurtosis = float((drawn**4).mean() / drawn.square().mean() ** 2)
    assert kurtosis == pytest.approx(1.8 if init == "glorot" else 3, abs=0.1)


@pytest.mark.parametrize("init", INITS)
def test_a_projection_with_a_deviation_of_its_own_is_drawn_alike_under_every_init(init):
    network = Network.chain((6, 5, 4), init=init, init_scale=3.0)
    own = Projection("lateral", "hidden1", "hidden1", std=0.1)
    reference = Network.chain((6, 5, 4)).draw(own, address("weights"))
    assert torch.equal(network.draw(own, address("weights")), reference)
    assert reference.abs().max() <= 0.1 * math.sqrt(3)


def test_critical_weights_keep_the_variance_of_relu_drives_through_thirty_layers():
    network = Network.chain((400,) * 31, "relu", "linear", init="critical")
    weights = {p.name: network.draw(p, address("weights")) for p in network.projections}
    drives = network.forward(weights, address("x").normal(20, 400)).drives
    first, last = (float(drives[name].square().mean()) for name in ("hidden1", "hidden29"))
    assert 0.3 < last / first < 3  # a gain of 1 would leave 2^-28


@pytest.mark.parametrize("init", INITS)
def test_a_search_file_chooses_the_initial_weights(init):
    search = from_table({**TABLE, "network": {"hidden": [8], "init": init, "init_scale": 0.5}})
    assert (search.learner.network.init, search.learner.network.init_scale) == (init, 0.5)
    assert search.table()["network"]["init"] == init
    graph = {"populations": [{"name": "a", "size": 3}], "init": init,
             "projections": [{"source": "input", "target": "a"}, {"source": "a", "target": "output"}]}  # fmt: skip
    assert from_table({**TABLE, "network": graph}).learner.network.init == init


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"init": "ortogonal"}, "not one of critical, gaussian, glorot, orthogonal; did you mean 'orthogonal'?"),
        ({"init": 3}, "network.init = 3 does not fit str"),
        ({"init_scale": 0.0}, "network.init_scale = 0.0 must be positive and finite"),
        ({"init_scale": -1.0}, "network.init_scale = -1.0 must be positive and finite"),
        ({"init_scale": "big"}, "network.init_scale = 'big' does not fit float"),
    ],
)
def test_a_wrong_init_is_refused_with_what_is_allowed(setting, said):
    with pytest.raises(SpecError) as caught:
        from_table({**TABLE, "network": setting})
    assert said in str(caught.value)
    with pytest.raises(ValueError, match="positive and finite"):
        Network.chain((2, 2), init_scale=math.nan)
