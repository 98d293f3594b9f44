"""A stranger's rule, one file outside of metarule, goes all the way: search, inspect, export, train, bank, classify."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from banking import small_bank
from torch import nn

import metarule as mr
from metarule.collect import load_file
from metarule.identification import bank as banks
from metarule.identification import recipe
from metarule.identification.bank import made, rows_of
from metarule.rng import noise_for

DOCS = Path(__file__).parent.parent / "docs"
BANK, SMALL = small_bank("backprop", "oja")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> mr.Run:
    """The stranger's search, two generations of it."""
    tiny = ("outer.generations=2", "inner.steps=20", "battery.episodes=2")
    return mr.search(DOCS / "my_rule.toml", *tiny, runs_dir=tmp_path_factory.mktemp("runs"))


def perceptron() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    noise = noise_for([("stranger",)], torch.float32)
    return [(noise.at("x", step).uniform(8, 64)[0], noise.at("y", step).integers(10, 8)[0]) for step in range(count)]


def test_it_is_inspected_and_its_equation_exported(metarule, run, tmp_path):
    code, out, _ = metarule("inspect", run.path, "--json")
    assert code == 0
    assert [term["name"] for term in json.loads(out)["terms"]] == ["rate", "gate", "forget"]
    code, out, _ = metarule("export", run.path, "--to", "latex")
    assert code == 0
    assert r"\mathrm{post}^{2}" in out
    code, out, _ = metarule("export", run.path, "--to", "sympy", "--out", tmp_path / "equation.py")
    assert code == 0
    assert {str(symbol) for symbol in load_file(tmp_path / "equation.py").dW.free_symbols} == {
        "error", "post", "pre", "weight"
    }  # fmt: skip


def test_it_trains_a_model_of_ones_own_and_so_do_its_json_and_its_file_of_torch(metarule, run, tmp_path):
    assert metarule("export", run.path, "--out", tmp_path / "mine.py")[0] == 0
    assert metarule("export", run.path, "--to", "json", "--out", tmp_path / "mine.json")[0] == 0
    origin = json.loads((tmp_path / "mine.json").read_text())["provenance"]
    assert origin["search"]["rules"]["forward"]["kind"] == "gated_delta"
    assert origin["search_sha256"][:16] in (tmp_path / "mine.py").read_text()
    models = {name: perceptron() for name in ("parts", "run", "folder", "json", "torch")}
    before = copy.deepcopy(models["parts"])
    trainers = {
        "parts": mr.LocalOptimizer(models["parts"], run.rule, credit=run.credit),
        "run": mr.LocalOptimizer.of(models["run"], run),
        "folder": mr.LocalOptimizer.of(models["folder"], str(run.path)),
        "json": mr.LocalOptimizer.of(models["json"], str(tmp_path / "mine.json")),
        "torch": load_file(tmp_path / "mine.py").LocalLearner(models["torch"]),
    }
    for x, y in batches(5):
        for trainer in trainers.values():
            trainer.step(x, y)
    for name, model in models.items():
        for mine, first, start in zip(
            model.parameters(), models["parts"].parameters(), before.parameters(), strict=True
        ):
            assert float((mine - first).detach().abs().max()) < (1e-6 if name == "torch" else 1e-12)
            assert float((mine - start).detach().abs().max()) > 1e-6


def test_it_joins_the_bank_and_what_it_trained_is_classified_with_it(metarule, run, tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text(BANK)
    monkeypatch.setattr(banks, "TREES", 10)
    monkeypatch.setattr(recipe, "simulations", lambda: {"small": tmp_path / "small.toml"})
    monkeypatch.setattr(recipe, "RECIPE", ("small",))
    bank = made(rows_of(SMALL.jobs()), {"name": "small", "figures": {}}).save(tmp_path / "small.npz")
    grown = tmp_path / "grown.npz"
    code, _, said = metarule("bank", "add", run.path, "--bank", bank, "--out", grown)
    assert code == 0, said
    assert run.path.name in banks.load(grown).classes
    model = perceptron()
    optimizer = mr.LocalOptimizer(model, run.rule, credit=run.credit)
    recorder = mr.Recorder(model, every=5)
    for x, y in batches(40):
        optimizer.step(x, y)
        recorder.snapshot(x, y)
    code, out, said = metarule("classify", recorder.save(tmp_path / "mine.npz"), "--bank", grown, "--json")
    assert code == 0, said
    assert run.path.name in out
