"""From Python: objects in, objects out."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import metarule as mr
from metarule.reading import find, read

TINY = ("outer.generations=2", "outer.candidates=4", "inner.episodes=1", "inner.steps=20", "battery.episodes=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return mr.search("first_rule", *TINY, "network.hidden=[8]", runs_dir=tmp_path_factory.mktemp("runs"))


def test_search_gives_a_run_that_load_gives_again(run):
    again = mr.load(run.path)
    assert again.equation == run.equation
    assert again.equation.startswith("dW = ")
    assert [term["name"] for term in again.terms] == ["error_pre", "error_pre_error", "subspace_oja"]
    assert {row["learner"] for row in again.battery} == {"discovered", "backprop", "feedback_alignment"}
    assert len(again.log) == 2
    assert again.credit.kind == "feedback_alignment"


def test_the_rule_found_can_be_called(run):
    theta = torch.tensor([[run.theta[param.name] for param in run.learner.params]])
    columns = run.learner.columns(theta)
    assert columns.rules["forward"].shape == (1, len(run.rule.params))
    assert run.rule.kind == "terms"


def test_a_search_object_runs_as_its_file_does(run, tmp_path):
    search, _ = read(find("first_rule"), (*TINY, "network.hidden=[8]"))
    again = mr.search(search, runs_dir=tmp_path, name="again")
    assert again.theta == run.theta
    with pytest.raises(ValueError, match="overrides"):
        mr.search(search, "outer.generations=3", runs_dir=tmp_path)


def test_a_run_can_be_extended(run, tmp_path):
    search, _ = read(find("first_rule"), (*TINY, "network.hidden=[8]", "battery.episodes=0"))
    mr.search(search, runs_dir=tmp_path, name="short")
    assert len(mr.go_on(tmp_path / "short", "outer.generations=3").log) == 3


def test_load_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="a run folder"):
        mr.load(tmp_path)


def test_every_public_name_is_there_and_importing_the_package_costs_no_torch():
    for name in set(mr.__all__) - {"__version__"}:
        assert getattr(mr, name).__name__ == name
    assert set(mr.__all__) <= set(dir(mr))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = mr.nonsense
    script = "import sys, metarule; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
