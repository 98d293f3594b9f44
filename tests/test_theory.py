"""The library's learners obey the theory of learning dynamics, as the scripts of `analysis/` measure it."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import pytest
import torch
from building import address

from metarule.collect import load_file
from metarule.inspection.figures import keep
from metarule.mean_field import variance
from metarule.network import Network
from metarule.tasks.linear_map import LinearMap

ANALYSIS = Path(__file__).parent.parent / "analysis"
deep_linear, isometry, curve_length = (
    load_file(ANALYSIS / f"{name}.py") for name in ("deep_linear", "isometry", "curve_length")
)


def test_the_tree_has_the_published_singular_values_and_modes_have_the_given_ones():
    tree = LinearMap().sample(address("tree", runs=2), 4)
    roots = torch.tensor([math.sqrt(7), math.sqrt(3), 1, 1], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(tree.map), roots.expand(2, 4), rtol=1e-12, atol=1e-12)
    modes = LinearMap(6, 5, "modes", (5.0, 0.5)).sample(address("modes"), 6)
    expected_values = torch.tensor([[5, 0.5, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(modes.map), expected_values, rtol=1e-12, atol=1e-12)


def test_all_items_of_a_linear_map_are_white_and_shown_in_turn():
    task = LinearMap()
    episode = task.sample(address("tree", runs=2), 4)
    x, y, _ = episode.train(3)
    identity = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    torch.testing.assert_close(torch.einsum("rbi,rbj->rij", x, x) / 4, identity, rtol=0, atol=1e-12)
    assert y is not None
    assert sorted((y / 2).sum(2).round().flatten().tolist()) == [3.0] * 8  # every item has three of the properties
    halves = task.sample(address("tree", runs=2), 2)
    torch.testing.assert_close(torch.cat((halves.train(6).x, halves.train(7).x), dim=1), x, rtol=0, atol=0)


def test_the_score_of_a_linear_map_is_the_squared_distance_of_the_maps():
    task = LinearMap()
    episode = task.sample(address("tree", runs=2), 4)
    network = Network.chain((4, 7), output="linear")
    weight = address("weight", runs=2).normal(7, 4)
    score = episode.score(lambda x: network.forward({"input->output": weight}, x), {})["held_out_loss"]
    distance = (episode.map - weight).square().sum(dim=(1, 2)) / episode.map.square().sum(dim=(1, 2))
    torch.testing.assert_close(score, distance, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"problem": "trees"}, "did you mean 'tree'?"),
        ({"items": 6}, "no binary tree"),
        ({"properties": 8}, "no binary tree"),
        ({"items": 1, "properties": 1}, "at least 2"),
        ({"problem": "modes", "singular_values": ()}, "are 0; this map has 1 to 4"),
        ({"problem": "modes", "singular_values": (1.0, -1.0)}, "must be positive"),
    ],
)
def test_wrong_settings_of_a_linear_map_are_refused_with_a_cure(settings, said):
    with pytest.raises(ValueError, match=said):
        LinearMap(**settings)


def test_two_linear_layers_follow_the_closed_form_to_first_order_in_the_rate():
    found = deep_linear.two_layers(time=2.0, rates=(0.01, 0.001))
    assert found["largest_gap"][0] < 0.14
    assert found["largest_gap"][1] < 0.014
    assert found["order"] == pytest.approx(1.0, abs=0.1)


def test_the_difference_of_the_squared_shares_is_conserved():
    found = deep_linear.conserved(rate=0.02)
    first, last = torch.tensor(found["first"]), torch.tensor(found["last"])
    assert (first[:, -1] * last[:, -1]).sub(found["strength"]).abs().max() < 0.05
    assert found["drift"] < 0.02
    assert found["drift"] == pytest.approx(2 * deep_linear.conserved(rate=0.01)["drift"], rel=0.1)


def test_deeper_linear_networks_follow_their_equation():
    coarse, fine = (deep_linear.deeper(layers=(3, 4), rate=rate) for rate in (0.02, 0.01))
    assert fine["largest_gap"] < 0.03
    assert coarse["largest_gap"] == pytest.approx(2 * fine["largest_gap"], rel=0.1)
    assert [max(each) for each in fine["simulated"]] == pytest.approx([2.0, 2.0], rel=1e-3)


def test_the_equation_of_deeper_networks_is_the_closed_form_at_two_layers():
    times = torch.linspace(0, 5, 50, dtype=torch.float64)
    closed = deep_linear.closed_form(torch.tensor([2.0], dtype=torch.float64), 0.01, times)[0]
    torch.testing.assert_close(deep_linear.integrated(2.0, 0.01, 2, times), closed, rtol=1e-5, atol=1e-5)


def test_small_random_weights_learn_strong_modes_first_when_their_growing_part_says():
    found = deep_linear.from_random(deep_linear.maps(5.0, 3.0, 1.0), time=8.0, runs=4, rate=0.01)
    measured, foretold = torch.tensor(found["half_times"]), torch.tensor(found["foretold_half_times"])
    assert (measured[1:] > measured[:-1]).all()
    torch.testing.assert_close(measured, foretold, rtol=0.05, atol=0)


def test_broad_distinctions_of_a_tree_are_learned_before_fine_ones():
    found = deep_linear.from_random(LinearMap(), time=8.0, runs=4, rate=0.01)
    everything, halves, one_pair, other_pair = torch.tensor(found["half_times"])
    assert (everything < halves).all()
    assert (halves < torch.minimum(one_pair, other_pair)).all()


def test_a_product_of_orthogonal_layers_keeps_lengths_and_a_gaussian_one_does_not():
    orthogonal, gaussian = (isometry.singular_values(init) for init in ("orthogonal", "gaussian"))
    torch.testing.assert_close(orthogonal, torch.ones_like(orthogonal), rtol=1e-12, atol=1e-12)
    assert gaussian.max() > 3
    assert 1e-4 < gaussian.median() < 1e-2
    assert gaussian.min() < 1e-12


def test_learning_time_does_not_grow_with_depth_from_an_orthogonal_start():
    steps = {
        (init, layers): isometry.at_best_rate(isometry.learning_times(init, layers, 4, rates))
        for init, layers, rates in (
            ("orthogonal", 4, (0.5, 0.3, 0.2)), ("orthogonal", 16, (0.1, 0.06, 0.03)),
            ("gaussian", 8, (0.06, 0.03, 0.018)),
        )
    }  # fmt: skip
    assert max(steps["orthogonal", 16]) <= 2 * max(steps["orthogonal", 4])
    assert min(steps["gaussian", 8]) > 2 * max(steps["orthogonal", 16])


@pytest.mark.parametrize(("gain", "theory"), [(0.8, 0.7040), (1.5, 1.0300), (2.5, 1.2591), (4.0, 1.5386)])
def test_a_curve_grows_per_layer_by_the_root_of_chi(gain, theory):
    assert curve_length.theory(gain) == pytest.approx(theory, abs=1e-4)
    drives, tangents = curve_length.images(gain, size=400, layers=8, points=40)
    # one layer of 400 units errs by about 1 / sqrt(2 * 400), and the mean over seven layers by less
    assert curve_length.growth(curve_length.lengths(tangents)) == pytest.approx(theory, rel=0.03)
    assert float(drives.square().mean()) == pytest.approx(variance("tanh", gain, curve_length.BIAS), rel=0.1)


def test_tangents_are_the_differences_of_neighbouring_points():
    drives, tangents = curve_length.images(1.5, size=50, layers=4, points=2000)
    differences = (drives.roll(-1, 1) - drives.roll(1, 1)) / (4 * math.pi / 2000)
    torch.testing.assert_close(differences, tangents, rtol=0, atol=1e-4 * float(tangents.abs().max()))


def test_every_script_writes_its_numbers_and_then_its_picture(tmp_path, monkeypatch):
    random = deep_linear.from_random(deep_linear.maps(5.0, 4.0, 3.0, 2.0), time=5.0, runs=2, rate=0.02)
    found = {
        "two_layers": deep_linear.two_layers(time=1.0, rates=(0.04, 0.02)),
        "conserved": deep_linear.conserved(rate=0.04),
        "deeper": deep_linear.deeper(layers=(2,), rate=0.04),
        "random": random,
        "tree": random,
    }
    spectra = {"orthogonal": [1.0, 1.0], "gaussian": [3.0, 1e-4]}
    steps = {"orthogonal": [[6.0, 8.0], [10.0, 10.0]], "gaussian": [[8.0, 8.0], [90.0, math.inf]]}
    medians = {"orthogonal": [7.0, 10.0], "gaussian": [8.0, math.inf]}
    times = {"singular_values": spectra, "depths": (2, 8), "steps": steps, "median_steps": medians}
    monkeypatch.setattr(curve_length, "images", functools.partial(curve_length.images, size=20, layers=3, points=8))
    for name, script, numbers in (
        ("deep_linear", deep_linear, found),
        ("isometry", isometry, times),
        ("curve_length", curve_length, curve_length.numbers()),
    ):
        written, drawn = keep(tmp_path, name, numbers, script.figure)
        assert json.loads(written.read_text()).keys() == numbers.keys()
        assert drawn.read_bytes().startswith(b"\x89PNG")
