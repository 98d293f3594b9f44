"""The learned optimizer as a rule: torch's own cell, what it sees of a slope, and what a meta-gradient goes through."""

from __future__ import annotations

import math

import pytest
import torch
from building import address, given_signals, random_signals, random_theta

from metarule import trial
from metarule.inspection.figures import LARGEST, NAMED, coefficients_figure
from metarule.inspection.numbers import Coefficients
from metarule.plugins import SpecError
from metarule.reading import find, read
from metarule.recurrent import Recurrent, compressed
from metarule.rules.lstm import Lstm
from metarule.signals import Signals
from metarule.terms import glorot

RUNS, POINTS = 3, 4


def rows(network, runs=RUNS):
    return 0.5 * address("recurrent", runs=runs).normal(len(network.names))


def torchs_own(network, theta):
    """The same layers as torch.nn.LSTMCell, and the last linear map, of one run."""
    cells, first, sources = [], 0, 2 * len(network.channels)
    for _ in range(network.layers):
        matrix = theta[first : (first := first + 4 * network.hidden * (sources + network.hidden + 1))]
        matrix = matrix.reshape(4 * network.hidden, -1)
        cell = torch.nn.LSTMCell(sources, network.hidden, dtype=theta.dtype)
        with torch.no_grad():
            cell.weight_ih.copy_(matrix[:, :sources])
            cell.weight_hh.copy_(matrix[:, sources:-1])
            cell.bias_ih.copy_(matrix[:, -1])
            cell.bias_hh.zero_()
        cells.append(cell)
        sources = network.hidden
    return cells, theta[first:-1], theta[-1]


@pytest.mark.parametrize("layers", [1, 2])
def test_every_coordinate_is_moved_by_torchs_own_cells(layers):
    network = Recurrent(("a", "b"), hidden=5, layers=layers)
    theta = rows(network)
    slopes = address("slopes", runs=RUNS).normal(6, POINTS, 2)
    state = network.init(slopes[:, 0, :, 0])
    answers = []
    for step in range(6):
        answer, state = network.step(theta, slopes[:, step], state)
        answers.append(answer)
    for run in range(RUNS):
        cells, weight, bias = torchs_own(network, theta[run])
        memory = [(torch.zeros(POINTS, 5, dtype=theta.dtype),) * 2 for _ in cells]
        for step in range(6):
            values = compressed(slopes[run : run + 1, step], network.reach)[0]
            for layer, cell in enumerate(cells):
                memory[layer] = cell(values, memory[layer])
                values = memory[layer][0]
            torch.testing.assert_close(answers[step][run], values @ weight + bias, rtol=1e-12, atol=1e-12)


def test_names_are_as_many_as_numbers_and_starts_are_fixed_and_small():
    network = Recurrent(("slope",), hidden=3, layers=2)
    assert len(set(network.names)) == 12 * (2 + 3 + 1) + 12 * (3 + 3 + 1) + 4
    assert network.names[0] == "layer1_input0_slope_size"
    assert network.names[-1] == "output_bias"
    assert network.starts() == network.starts()
    assert network.starts() != network.starts(1)
    assert max(map(abs, network.starts())) < 1 / math.sqrt(3)
    assert len(set(network.starts())) == len(network.names)


def test_sizes_and_signs_are_the_published_ones_and_join_without_a_jump():
    edge = math.exp(-5.0)
    slopes = torch.tensor([1.0, -math.exp(2.5), edge, -edge * (1 - 1e-12), 0.5 * edge, 0.0], dtype=torch.float64)
    seen = compressed(slopes[None, :, None], 5.0)[0]
    expected = [[0.0, 1.0], [0.5, -1.0], [-1.0, 1.0], [-1.0, -1.0], [-1.0, 0.5], [-1.0, 0.0]]
    torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    assert compressed(torch.full((1, 1, 1), torch.nan), 5.0).isnan().any()  # a diverged run must not look calm


def test_a_rule_reads_minus_the_gradient_per_event_and_moves_in_units_of_its_rate():
    noise = address("lstm", runs=RUNS)
    signals = random_signals(noise, 4, 3, 2, frozenset({"error", "pre"}))
    given = given_signals(signals)
    slopes = torch.einsum("rbi,rbj->rij", given["error"], given["pre"]) / 2
    for normalise in (False, True):
        rule = Lstm(hidden=4, rate=0.3, normalise=normalise)
        theta = random_theta(rule.params, noise)
        network = Recurrent(("error_pre",), 4)
        answer, _ = network.step(theta, slopes.flatten(1)[..., None], network.init(slopes.flatten(1)))
        change, _ = rule.delta(theta, signals, rule.init(theta, signals.weight), noise)
        scale = 0.3 * (glorot(4, 3) if normalise else 1.0)
        torch.testing.assert_close(change.tensor(signals.weight), scale * answer.reshape(RUNS, 4, 3))


def test_normalised_channels_do_not_change_with_the_unit_of_the_weights():
    rule = Lstm(terms=("weight_decay",), hidden=4)
    noise = address("lstm", runs=RUNS)
    theta = random_theta(rule.params, noise)
    moved = []
    for size in (16, 4):
        unit = glorot(size, size)
        weight = torch.full((RUNS, size, size), 0.7 * unit, dtype=torch.float64)
        change, _ = rule.delta(theta, Signals(weight), rule.init(theta, weight), noise)
        moved.append(change.tensor(weight)[:, 0, 0] / unit)
    torch.testing.assert_close(*moved)


@pytest.mark.parametrize("through", [False, True])
def test_slopes_are_constants_to_a_meta_gradient_unless_asked_for(through):
    rule = Lstm(hidden=4, second_derivatives=through)
    noise = address("lstm", runs=RUNS)
    signals = random_signals(noise, 4, 3, 1, rule.reads)
    error = signals.read("error").clone().requires_grad_()
    theta = random_theta(rule.params, noise).requires_grad_()
    given = Signals(signals.weight, pre=signals.pre, error=error)
    change, _ = rule.delta(theta, given, rule.init(theta, signals.weight), noise)
    found = torch.autograd.grad(change.tensor(signals.weight).sum(), (theta, error), allow_unused=True)
    assert found[0].abs().max() > 0
    assert (found[1] is not None and float(found[1].abs().max()) > 0) is through


def test_what_a_gradient_keeps_of_every_synapse_is_said_beforehand(monkeypatch):
    few, many = (
        read(find("learn_to_optimize"), (f"rule.hidden={hidden}", "network.hidden=[500]", "outer.generations=1"))[0]
        for hidden in (2, 20)
    )
    assert trial.memory(many).blocks_bytes > 5 * trial.memory(few).blocks_bytes
    monkeypatch.setattr(trial, "physical", lambda: 2 * trial.memory(few).bytes)
    trial.check_memory(few)
    with pytest.raises(SpecError, match="5500 weights, 1320000 numbers of rules at them"):
        trial.check_memory(many)


def test_of_hundreds_of_coefficients_the_largest_are_drawn_and_the_largest_of_those_have_names():
    names = Recurrent(("slope",)).names
    values = {name: (0.0, -float(place)) for place, name in enumerate(names)}
    (axes,) = coefficients_figure(Coefficients((0, 1), values, {}), "lstm").axes
    _, drawn = axes.get_legend_handles_labels()
    assert drawn == list(names[-NAMED:])
    assert len(axes.lines) == 1 + LARGEST  # and the line at zero
    assert axes.get_title(loc="left").startswith(f"lstm: the {LARGEST} largest")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"terms": ()}, "name at least one"),
        ({"terms": ("eror_pre",)}, "did you mean 'error_pre'"),
        ({"terms": ("error_pre", "error_pre")}, "twice"),
        ({"hidden": 0}, "rule.hidden = 0 must be at least 1"),
        ({"layers": 0}, "rule.layers = 0"),
        ({"reach": 0.0}, "rule.reach = 0.0 must be positive"),
        ({"rate": -1.0}, "rule.rate = -1.0"),
    ],
)
def test_settings_that_make_no_optimizer_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Lstm(**settings)
