"""Torch modules of one's own: `higher` trains and differentiates them, and agrees with the batched engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from metarule import comparing, jobs
from metarule.api import load
from metarule.contracts import checked
from metarule.credit.backprop import Backprop
from metarule.inner import Reference, Runs
from metarule.learner import ANY, Learner
from metarule.loop import begun, engine_for, generations
from metarule.models.chain import Chain
from metarule.models.cnn import Cnn
from metarule.module_learner import Descent, ModuleLearner
from metarule.network import Network
from metarule.plugins import SpecError
from metarule.reading import find, read
from metarule.records import RunError
from metarule.rules.lstm import Lstm
from metarule.rules.textbook import Delta
from metarule.runs import RunFolder
from metarule.spec import Search, from_table
from metarule.synapses.sgd import Sgd
from metarule.tasks.digits import Digits
from metarule.unrolled import Unrolled

BOTH = frozenset({"loss", "grad"})
TINY = ("outer.generations=2", "inner.steps=3", "inner.batch=4", "inner.episodes=2", "model.channels=[2]")


def searched(*overrides: str) -> Search:
    return read(find("cnn_rates"), (*TINY, *overrides))[0]


def chain(problem: str, descent: Descent) -> tuple[ModuleLearner, Network, Digits]:
    task = Digits(problem=problem)
    learner = ModuleLearner(Chain(hidden=(6, 5)), task.inputs, task.outputs, task.output, descent)
    sizes = (task.inputs, 6, 5, task.outputs)
    return learner, Network.chain(sizes, "tanh", output=task.output, bias=True), task


@pytest.mark.parametrize("problem", ["classification", "autoencoder"])
def test_a_network_that_both_engines_run_has_one_loss_and_one_gradient_in_its_rates(problem):
    learner, network, task = chain(problem, Descent(learn=("rates",)))
    models = {p.name: Sgd() for p in network.projections}
    ours = Learner(network, Backprop(), {"forward": Delta()}, models)
    rates = torch.tensor([[0.1, 0.2, 0.05], [0.3, 0.1, 0.2]], dtype=torch.float64)
    names = [param.name for param in ours.params]
    order = [names.index(f"synapse.{p.name}.rate") for p in network.projections]
    rows = rates.new_empty(rates.shape)
    rows[:, order] = rates
    runs, steps = Runs((0, 1), (0, 1), seed=3), range(15)
    batched = Reference(dtype=torch.float64).evaluate(ours, rows, task, runs, steps, 8, BOTH, score_at=(5, 15))
    single = Unrolled(dtype=torch.float64).evaluate(learner, rates, task, runs, steps, 8, BOTH, score_at=(5, 15))
    assert batched.grad is not None
    assert single.grad is not None
    torch.testing.assert_close(single.loss, batched.loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(single.grad, batched.grad[:, order], rtol=1e-10, atol=1e-12)
    assert single.grad.abs().max() > 1e-3


@pytest.mark.parametrize("descent", [Descent(learn=("weights", "rate")), Descent("Adam", ("rate",), rate=0.01)])
def test_the_gradient_in_what_is_learned_equals_finite_differences(descent):
    learner, _, task = chain("classification", descent)
    row = torch.tensor([[param.start for param in learner.params]], dtype=torch.float64)
    engine, runs = Unrolled(dtype=torch.float64), Runs((0,), (0,))

    def loss(theta: torch.Tensor) -> float:
        return float(engine.evaluate(learner, theta, task, runs, range(5), 8).loss)

    found = engine.evaluate(learner, row, task, runs, range(5), 8, BOTH).grad
    assert found is not None
    for place in (0, 1, 30)[: len(learner.params)]:
        nudge = torch.zeros_like(row)
        nudge[0, place] = 1e-6
        expected = (loss(row + nudge) - loss(row - nudge)) / 2e-6
        assert float(found[0, place]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_the_learned_optimizer_of_a_module_is_the_lstm_rule_of_the_batched_engine():
    learner, network, task = chain("classification", Descent("Learned", ("optimizer",), 0.05, {"hidden": 3}))
    rule = Lstm(hidden=3, rate=0.05, normalise=False)
    ours = Learner(network, Backprop(), {"forward": rule}, {ANY: Sgd()})
    row = torch.tensor([[param.start for param in ours.params]], dtype=torch.float64)
    assert len(learner.params) == len(ours.params)
    runs = Runs((0,), (0, 1))
    batched = Reference(dtype=torch.float64).evaluate(ours, row, task, runs, range(6), 8, BOTH)
    single = Unrolled(dtype=torch.float64).evaluate(learner, row, task, runs, range(6), 8, BOTH)
    assert batched.grad is not None
    assert single.grad is not None
    torch.testing.assert_close(single.loss, batched.loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(single.grad, batched.grad, rtol=1e-9, atol=1e-12)
    plain = Unrolled(dtype=torch.float64).evaluate(learner, row, task, runs, range(6), 8)
    torch.testing.assert_close(plain.loss, single.loss, rtol=1e-12, atol=0)


def test_initial_weights_that_are_learned_are_where_the_runs_start():
    learner, _, task = chain("classification", Descent(learn=("weights",)))
    row = torch.zeros(1, len(learner.params), dtype=torch.float64)
    outcome = Unrolled(dtype=torch.float64).evaluate(learner, row, task, Runs((0,), (0, 1)), range(1), 8)
    # all weights 0: only the output's biases moved, by rate times the mean error of the batch
    assert torch.isfinite(outcome.loss).all()
    assert float((outcome.loss - torch.log(torch.tensor(10.0))).abs().max()) < 0.2


def test_what_the_engine_cannot_do_is_refused_and_a_diverged_run_is_data():
    learner, _, task = chain("classification", Descent(learn=("rate",)))
    engine, row = Unrolled(), torch.tensor([[3e38], [0.1]], dtype=torch.float64)
    outcome = engine.evaluate(learner, row, task, Runs((0, 1), (0,)), range(4), 4)
    assert torch.isfinite(outcome.loss[:, 0, 0]).tolist() == [False, True]
    with pytest.raises(ValueError, match="neither records, nor goes on"):
        engine.evaluate(learner, row, task, Runs((0, 1), (0,)), range(4), 4, record=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": "AdamW"}, r"descent\.optimizer = 'AdamW' is not one of"),
        ({"learn": ("speed",)}, r"descent\.learn = 'speed' is not one of"),
        ({"learn": ("rate", "rates")}, "one of 'rate' and 'rates'"),
        ({"rate": 0.0}, r"descent\.rate = 0\.0 must be positive"),
        ({"options": {"maximize": True}}, "maximize=True"),
        ({"options": {"speed": 1.0}}, r"descent\.options = .* do not fit SGD"),
        ({"optimizer": "Learned"}, "goes with descent.optimizer = 'Learned'"),
        ({"optimizer": "Adam", "learn": ("momentum",)}, "'momentum' is not a setting of Adam"),
    ],
)
def test_a_wrong_descent_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Descent(**given)


def test_a_search_of_a_rule_makes_no_optimizer_of_torch(monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError("torch imports its compiler to make one")

    monkeypatch.setattr(torch.optim.Optimizer, "__init__", refuse)
    assert read(find("first_rule"))[0].descent == Descent()
    with pytest.raises(AssertionError):
        Descent(options={"momentum": 0.9})


def test_a_search_over_a_module_runs_descends_and_compares(tmp_path):
    same = ("inner.fixed_episodes=true", "inner.steps=12", "outer.rate=0.3")
    search = searched("outer.generations=6", "battery.episodes=2", *same)
    folder = RunFolder(tmp_path / "run")
    jobs.start(folder, search, "")
    found = folder.read_json("result.json")
    assert found["equation"] is None
    assert {row["learner"] for row in found["battery"]} == {"discovered", "one_rate"}
    assert set(found["theta"]) == {"rate.convolution1", "rate.readout"}
    losses = [line["loss_mean"] for line in folder.log()]
    assert losses[-1] < losses[0]
    assert jobs.plan(search, 1)["inner_steps"] == 2 * 6 * 12
    assert from_table(search.table()).table() == search.table()
    with pytest.raises(ValueError, match="has no rule"):
        _ = load(folder.path).rule
    with pytest.raises(SpecError, match="no network that rows of the zoo could learn on"):
        comparing.comparison(["backprop"], comparing.setting([str(folder.path)], None, ()), 2, 1)
    with pytest.raises(RunError, match="no rule that could learn on another network"):
        comparing.comparison([str(folder.path)], comparing.setting([], "first_rule", ()), 2, 1)


def test_a_model_and_a_rule_exclude_one_another():
    table = searched().table()
    with pytest.raises(SpecError, match="take out \\[model\\] or \\[rule\\]"):
        from_table(table | {"rules": {"forward": {"kind": "delta"}}})
    with pytest.raises(SpecError, match="does not know \\[model\\]"):
        from_table(table | {"inner": {"engine": "reference"}})
    plain = read(find("oja"))[0].table()
    with pytest.raises(SpecError, match="add \\[model\\]"):
        from_table(plain | {"descent": {"rate": 0.1}})
    with pytest.raises(SpecError, match="trains a torch module"):
        from_table(plain | {"inner": {**plain["inner"], "engine": "higher"}})
    with pytest.raises(SpecError, match="needs square images"):
        read(find("cnn_rates"), ("task.kind=teacher",))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("network.hidden=[3]", "does not read network; take it out"),
        ('credit.kind="feedback_alignment"', "does not read credit"),
        ('synapse.kind="adam"', "does not read synapse"),
        ("inner.segments=2", r"does not read inner\.segments"),
        ('battery.baselines="all"', r"does not read battery\.baselines"),
        ("outer.truncation=2", "the runs of a \\[model\\] are whole ones"),
        ('outer.estimator="forward"', "the runs of a \\[model\\] are whole ones"),
        ('outer={kind="optuna", candidates=4, pruner="median"}', "the runs of a \\[model\\] are whole ones"),
    ],
)
def test_what_the_training_of_a_model_cannot_heed_is_refused_before_it_begins(override, said):
    with pytest.raises(SpecError, match=said):
        searched(override)


def test_the_users_own_module_in_the_documentation_is_checked_and_searched():
    docs = Path(__file__).parent.parent / "docs"
    assert [check for check in checked(docs / "my_cnn.py") if not check.ok] == []
    search = read(docs / "my_cnn.toml", ("inner.steps=2", "inner.episodes=1"))[0]
    search = replace(search, budget=replace(search.budget, generations=2))
    found = list(generations(search, begun(search), 0, engine_for(search)))
    assert not torch.equal(found[0].best, found[1].best)


def test_torchs_own_generator_is_as_it_was():
    before = torch.random.get_rng_state()
    ModuleLearner(Cnn(), 64, 10, "softmax").params  # noqa: B018 - building is what is tested
    assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(Cnn().module(64, 10, None), nn.Module)  # pyright: ignore[reportArgumentType]
