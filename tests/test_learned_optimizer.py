"""The learned optimizer as an outer loop: the search's own rule, another search's loss, and files that hold none."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
import torch
from building import address
from safetensors.torch import save_file

import metarule as mr
from metarule.inner import Reference, Runs
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.outer.learned_optimizer import SHIPPED, LearnedOptimizer, LstmOptimizer, Weights, read, write
from metarule.params import Param
from metarule.recurrent import Recurrent
from metarule.rng import noise_for
from metarule.rules.lstm import Lstm
from metarule.synapses.sgd import Sgd
from metarule.tasks.quadratics import Quadratics
from metarule.zoo import algorithm

SIZE, STEPS = 10, 12
NUMBERS = tuple(Param(f"x{place}") for place in range(SIZE))


def descended(loop, slope_at, steps=STEPS, params=NUMBERS):
    """The rows that a loop proposes on the way down `slope_at`, the gradient of a loss."""
    loop.start(params)
    rows = []
    for step in range(steps):
        theta = loop.ask(1, noise_for([("learned", step)]))
        loop.tell(theta, theta.square().sum(1, keepdim=True), slope_at(theta[0])[None])
        rows.append(loop.best)
    return torch.stack(rows)


def bowl(theta):
    return (theta - 0.5) * torch.linspace(0.5, 2.0, len(theta), dtype=theta.dtype)


def other_weights():
    network = Recurrent(("slope",), hidden=3, layers=2, reach=5.0)
    return Weights(network, address("weights", runs=1).normal(len(network.names))[0].float().double(), 0.05, 0.5)


def test_the_outer_loop_takes_the_steps_of_the_rule_that_was_searched_for():
    learned = read(SHIPPED)
    network = Network.chain((SIZE, 1), output="linear", init="gaussian")
    rule = Lstm(
        hidden=learned.network.hidden,
        layers=learned.network.layers,
        reach=learned.network.reach,
        rate=learned.step,
        normalise=False,
    )
    learner = Learner(network, algorithm("backprop").credit, {ANY: rule}, {ANY: Sgd()})
    runs = Runs((0,), (0,))
    outcome = Reference(dtype=torch.float64).evaluate(
        learner, learned.theta[None], Quadratics(), runs, range(STEPS), SIZE, frozenset({"loss", "carry"})
    )
    assert outcome.carry is not None
    (point,) = outcome.carry["weights"].values()

    noise = noise_for([(0, "episode", 0)])
    (projection,) = network.projections
    begin = network.draw(projection, noise)[0, 0]
    problem = Quadratics().sample(noise.at("data"), SIZE)

    def slope(theta):
        return problem.matrix[0].T @ (problem.matrix[0] @ theta - problem.aim[0, :, 0]) / SIZE

    params = tuple(Param(f"x{place}", start) for place, start in enumerate(begin.tolist()))
    rows = descended(LearnedOptimizer(normalise=False), slope, params=params)
    torch.testing.assert_close(rows[-1], point[0, 0], rtol=1e-10, atol=1e-12)


def test_normalised_steps_do_not_change_with_the_unit_of_the_loss():
    rows = [descended(LearnedOptimizer(), lambda theta, unit=unit: unit * bowl(theta)) for unit in (1.0, 1e6)]
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-9, atol=1e-12)
    raw = descended(LearnedOptimizer(normalise=False), lambda theta: 1e6 * bowl(theta))
    assert not torch.allclose(rows[0], raw, rtol=1e-2)


def test_half_the_rate_in_twice_the_unit_is_the_same_search():
    whole = descended(LearnedOptimizer(rate=1.0), bowl)
    halved = descended(LearnedOptimizer(rate=0.5), bowl, params=tuple(Param(p.name, scale=2.0) for p in NUMBERS))
    torch.testing.assert_close(whole, halved)


def test_gradients_that_are_not_numbers_leave_no_trace_but_a_count():
    loop = LearnedOptimizer()
    expected = descended(LearnedOptimizer(), bowl)
    loop.start(NUMBERS)
    for step in range(STEPS):
        theta = loop.ask(1, noise_for([("learned", step)]))
        loss = theta.square().sum(1, keepdim=True)
        loop.tell(theta, torch.full_like(loss, math.inf), torch.full_like(theta, math.nan))
        loop.tell(theta, torch.full_like(loss, math.inf), bowl(theta[0])[None])
        loop.tell(theta, loss, bowl(theta[0])[None])
        assert torch.equal(loop.best, expected[step])
    assert loop.report["skipped"] == 2 * STEPS


def test_a_search_goes_on_with_the_weights_that_it_began_with(tmp_path):
    path = tmp_path / "own.safetensors"
    write(path, other_weights())
    loop = LearnedOptimizer(weights=str(path))
    descended(loop, bowl, steps=3)
    write(path, read(SHIPPED))
    other = LearnedOptimizer(weights=str(path))
    other.start(NUMBERS)
    other.load_state_dict(loop.state_dict())
    for step in range(3, 6):
        theta = loop.ask(1, noise_for([("learned", step)]))
        assert torch.equal(theta, other.ask(1, noise_for([("learned", step)])))
        for each in (loop, other):
            each.tell(theta, theta.square().sum(1, keepdim=True), bowl(theta[0])[None])
    assert torch.equal(loop.best, other.best)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two generations of learning to optimize."""
    tiny = ("outer.generations=2", "inner.episodes=2", "inner.steps=10", "rule.hidden=3", "battery.episodes=0")
    return mr.search("learn_to_optimize", *tiny, runs_dir=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def analysis():
    """The analysis of learned optimizers, and the script that makes weights out of a run, which it imports."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(Path(__file__).parent.parent / "analysis")
        yield importlib.import_module("learned_optimizer")


def test_a_run_becomes_weights_that_drive_a_search(run, analysis, tmp_path):
    path = tmp_path / "own.safetensors"
    write(path, analysis.learned(run))
    found = read(path)
    assert found.theta.tolist() == pytest.approx(list(run.theta.values()), rel=1e-6)
    assert found.slope == pytest.approx(math.sqrt(1 / 16 + (1 / 9 - 1 / 16) / 10), rel=0.02)  # at x = 0, in expectation
    settings = ("outer.generations=2", "inner.steps=5", "battery.episodes=0", f'outer.weights="{path}"')
    driven = mr.search("oja_learned_optimizer", *settings, runs_dir=tmp_path)
    assert len(driven.log) == 2
    assert any(driven.theta.values())


def test_only_a_rule_that_is_an_optimizer_of_slopes_becomes_weights(analysis, tmp_path):
    tiny = ("outer.generations=1", "inner.episodes=1", "inner.steps=2", "rule.hidden=2", "battery.episodes=0")
    run = mr.search("learn_to_optimize", *tiny, "rule.normalise=true", runs_dir=tmp_path)
    with pytest.raises(ValueError, match="normalise = false"):
        analysis.learned(run)


def test_the_analysis_compares_with_tuned_optimizers_and_outer_loops_with_one_another(run, analysis, monkeypatch):
    found = [analysis.learned(run), read(SHIPPED)]
    battery = analysis.compared(analysis.POINT, Quadratics(), SIZE, found, 22, 3)
    assert [row.learner for row in battery.rows] == ["learned 0", "learned 1", "adam", "momentum", "backprop"]
    assert len(analysis.lines(battery)) == 5 + 1 + 3
    monkeypatch.setattr(analysis, "RATES", {"Adam": (0.01,), "learned": (0.1, 0.3)})
    search, _ = analysis.read_search(
        analysis.shipped()["oja_learned_optimizer"], ("outer.generations=2", "inner.steps=5", "inner.episodes=1")
    )
    said = analysis.loops(search, 2)
    assert len(said) == 2 * 4 + 2
    assert not any("nan" in line for line in said)


def test_weights_come_back_from_a_file_as_they_were(tmp_path):
    write(tmp_path / "own.safetensors", other_weights())
    found = read(tmp_path / "own.safetensors")
    assert found._replace(theta=0) == other_weights()._replace(theta=0)
    assert torch.equal(found.theta, other_weights().theta)


def test_as_an_optimizer_of_torch_it_moves_every_number_of_a_tensor_alike():
    learned = read(SHIPPED)
    matrix = address("matrix", runs=1).normal(3, 4)[0]
    points = [matrix.clone().requires_grad_(), matrix.flatten().clone().requires_grad_()]
    for point in points:
        optimizer = LstmOptimizer([point], lr=0.5, learned=learned)
        for _ in range(30):
            optimizer.zero_grad()
            (point - 1).square().sum().backward()
            optimizer.step()
    assert torch.equal(points[0].flatten(), points[1])
    assert (points[0] - 1).square().sum() < 0.5 * (matrix - 1).square().sum()


def spoiled(path, **changes):
    """A file of weights of which something is changed: `theta`, or what it says of itself (None: nothing)."""
    learned = other_weights()
    theta = changes.pop("theta", learned.theta.float())
    about = {"format": "metarule learned optimizer 1", "hidden": "3", "layers": "2", "reach": "5.0"}
    about |= {"step": "0.05", "slope": "0.5"} | changes
    save_file({"theta": theta}, path, {name: value for name, value in about.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": None}, "is not a 'metarule learned optimizer 1'"),
        ({"format": "metarule learned optimizer 2"}, "is not a"),
        ({"hidden": None}, "does not say what network"),
        ({"hidden": "0"}, "hidden = 0 must be at least 1"),
        ({"reach": "far"}, "does not say what network"),
        ({"hidden": "4"}, r"holds \(160,\) numbers"),
        ({"theta": torch.full((160,), math.nan)}, "not finite"),
        ({"step": "-1"}, "step that is not positive"),
        ({"slope": "inf"}, "not finite"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path, changes, said):
    path = tmp_path / "spoiled.safetensors"
    spoiled(path)
    read(path)
    spoiled(path, **changes)
    with pytest.raises(ValueError, match=said):
        LearnedOptimizer(weights=str(path))


def test_what_is_no_safetensors_file_is_refused_and_never_unpickled(tmp_path):
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"theta": torch.zeros(3)}, pickled)
    nothing = tmp_path / "nothing.safetensors"
    save_file({"other": torch.zeros(3)}, nothing, {"format": "metarule learned optimizer 1"})
    for path, said in ((pickled, "can be read"), (tmp_path / "missing", "can be read"), (nothing, "is not a")):
        with pytest.raises(ValueError, match=said):
            LearnedOptimizer(weights=str(path))


@pytest.mark.parametrize(("settings", "said"), [({"rate": 0.0}, "outer.rate"), ({"clip": -1.0}, "outer.clip")])
def test_settings_that_make_no_loop_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        LearnedOptimizer(**settings)


def test_it_moves_one_rule_and_needs_its_gradient():
    loop = LearnedOptimizer()
    loop.start(NUMBERS)
    with pytest.raises(ValueError, match="moves a single rule"):
        loop.ask(2, noise_for([("learned", 0)]))
    with pytest.raises(ValueError, match="needs the gradient"):
        loop.tell(loop.best[None], torch.zeros(1, 1))
