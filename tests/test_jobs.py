"""Before, and around, a search: what cannot work is refused before anything is computed or any folder made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from metarule import jobs, trial
from metarule.cli.output import outside
from metarule.loop import begun, generations
from metarule.outer.optuna import OptunaSearch
from metarule.plugins import SpecError
from metarule.reading import find, read
from metarule.records import RunError, WorkersDied
from metarule.runs import RunFolder

TINY = ("outer.generations=1", "outer.candidates=4", "inner.episodes=1", "inner.steps=2", "battery.episodes=2")
GRADIENT = ("outer.kind=meta_gradient", "outer.candidates=1")
AUTOGRAD = "inner.engine=reference"


def searched(name, *overrides):
    return read(find(name), overrides)[0]


def refused(tmp_path, search, workers=1):
    """The sentence with which a search is refused, and nothing is left behind."""
    with pytest.raises(SpecError) as caught:
        jobs.start(RunFolder(tmp_path / "run"), search, "", workers)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SpecError):
        jobs.plan(search, workers)
    return str(caught.value)


@pytest.fixture
def nothing_computed(monkeypatch):
    """Whatever trains a run fails the test."""

    def computed(*given, **settings):
        pytest.fail("a run was computed")

    monkeypatch.setattr("metarule.inner.run_block", computed)


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("oja", ("credit.kind=backprop",), "needs targets, and the task gives none"),
        ("oja", ("network.hidden=[8]",), "leave out network.hidden"),
        ("first_rule", ("task.shots=100", "task.queries=20"), "has 104 images in the search split"),
        ("first_rule", ("task.shots=60", "task.queries=20"), "images in the held_out split"),
        ("first_rule", (*GRADIENT, "search.objective=['accuracy']"), "'accuracy' has no gradient"),
    ],
)
def test_what_cannot_work_is_found_before_the_search(tmp_path, monkeypatch, name, overrides, said):
    search = searched(name, *TINY, *overrides)
    monkeypatch.setattr(jobs, "_work", lambda *given: pytest.fail("the search began"))
    assert said in refused(tmp_path, search)


def test_what_the_battery_alone_needs_is_not_asked_for_where_there_is_none():
    search = searched("first_rule", *TINY, "network.hidden=[8]", "task.shots=60", "task.queries=20")
    trial.rehearse(replace(search, battery=replace(search.battery, episodes=0)))


def test_an_objective_with_a_gradient_is_named_in_the_refusal_of_one_without():
    with pytest.raises(SpecError, match=r"'meta_gradient' needs one of held_out_loss, or take outer.kind = 'cma_es'"):
        trial.rehearse(searched("first_rule", *TINY, *GRADIENT, "search.objective=['accuracy']"))
    trial.rehearse(searched("first_rule", *TINY, *GRADIENT))
    trial.rehearse(searched("first_rule", *TINY, "search.objective=['accuracy']"))


def test_the_battery_has_the_baselines_that_the_rehearsal_tried(tmp_path):
    search = searched("first_rule", *TINY, "network.hidden=[8]", "battery.baselines=all")
    names = ["backprop", "feedback_alignment", "momentum", "adam", "backprop_terms"]
    assert list(trial.baselines(search).learners) == names
    jobs.start(RunFolder(tmp_path / "run"), search, "")
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["battery"]
    assert {row["learner"] for row in rows} == {"discovered", *names}


def test_backprop_with_the_same_rules_is_left_out_where_it_cannot_be_built(tmp_path):
    file = tmp_path / "plastic.toml"
    file.write_text(
        """
        task = { kind = "few_shot", shots = 4 }
        network = { hidden = [6] }
        credit = { kind = "kolen_pollack" }
        rule = { kind = "terms", terms = ["error_pre"] }
        rules = { feedback = { kind = "delta" } }
        synapses = { feedback = { kind = "sgd" } }
        inner = { steps = 2, episodes = 1 }
        outer = { kind = "cma_es", candidates = 4, generations = 1 }
        battery = { episodes = 2, baselines = "all" }
        """
    )
    said: list[str] = []
    search = read(file)[0]
    assert set(trial.baselines(search).left_out) == {"backprop_terms"}
    jobs.start(RunFolder(tmp_path / "run"), search, "", listener=jobs.Listener(message=said.append))
    assert any(line.startswith("backprop_terms is left out of the battery: ") for line in said)
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["battery"]
    assert {"momentum", "adam"} <= {row["learner"] for row in rows}


@pytest.mark.parametrize(
    ("overrides", "workers", "said"),
    [
        (("network.hidden=[1000000,1000000]",), 1, ("64-1000000-1000000-10", "inner.block_runs = 72", "workers")),
        (("inner.episodes=1000000000",), 1, ("inner.episodes = 1000000000", "runs")),
        (("outer.candidates=1000000000",), 1, ("outer.candidates = 1000000000",)),
        (("battery.episodes=1000000000000",), 1, ("battery.episodes = 1000000000000",)),
        (("inner.batch=1000000000", "task.kind=teacher", "inner.steps=1"), 2, ("inner.batch = 1000000000",)),
        (
            (*GRADIENT, "network.hidden=[20000]", "inner.block_runs=72", "inner.segments=1", AUTOGRAD),
            1,
            ("raise inner.segments",),
        ),
    ],
)
@pytest.mark.usefixtures("nothing_computed")
def test_what_does_not_fit_into_memory_is_refused_from_sizes_alone(tmp_path, monkeypatch, overrides, workers, said):
    monkeypatch.setattr(trial, "physical", lambda: 8 * 2**30)
    sentence = refused(tmp_path, searched("first_rule", *overrides), workers)
    assert "GiB of memory, and this machine has 8" in sentence
    assert all(part in sentence for part in said)


def test_memory_grows_with_blocks_workers_and_kept_steps_and_counts_searches_side_by_side(monkeypatch):
    few = searched("first_rule", "inner.block_runs=12")
    many = searched("first_rule", "inner.block_runs=48")
    assert trial.memory(many).blocks_bytes == 4 * trial.memory(few).blocks_bytes
    assert trial.memory(few, 3).blocks_bytes == 3 * trial.memory(few).blocks_bytes
    whole = trial.memory(searched("first_rule", *GRADIENT, AUTOGRAD, "inner.segments=1"))
    parts = trial.memory(searched("first_rule", *GRADIENT, AUTOGRAD, "inner.segments=10"))
    assert whole.copies == 252
    assert parts.copies == 37
    assert trial.memory(searched("first_rule", *GRADIENT)).copies < 10  # the adjoint rebuilds the weights
    monkeypatch.setattr(trial, "physical", lambda: int(1.5 * trial.memory(few).bytes))
    trial.check_memory(few)
    with pytest.raises(SpecError, match="2 searches at a time"):
        trial.check_memory(few, 1, 2)


def test_a_plan_counts_tuning_and_battery():
    search = searched("first_rule", *TINY, "network.hidden=[8]", "outer.generations=5")
    plan = jobs.plan(search, 1)
    assert plan["inner_steps"] == 5 * 4 * 2
    assert plan["inner_steps_tuning"] == 2 * plan["inner_steps"]
    assert plan["inner_steps_battery"] == 3 * 2 * 2
    assert plan["inner_steps_total"] == 3 * plan["inner_steps"] + plan["inner_steps_battery"]
    without = jobs.plan(replace(search, battery=replace(search.battery, episodes=0)), 1)
    assert without["inner_steps_total"] == without["inner_steps"] == plan["inner_steps"]


class Uneven(OptunaSearch):
    """Proposes fewer candidates in every second generation."""

    def ask(self, candidates, noise):
        self.turn = getattr(self, "turn", 0) + 1
        return super().ask(candidates - self.turn % 2, noise)


def test_no_run_meets_the_address_of_another_when_ask_returns_fewer(monkeypatch):
    search = replace(searched("first_rule", *TINY, "network.hidden=[8]", "outer.generations=4"), outer=Uneven())
    engine = jobs.engine_for(search)
    met: list[int] = []
    kind = type(engine)
    evaluate_each = kind.evaluate_each

    def noted(self, groups, *rest, **settings):
        met.extend(candidate for group in groups for candidate in group.runs.candidates)
        return evaluate_each(self, groups, *rest, **settings)

    monkeypatch.setattr(kind, "evaluate_each", noted)
    assert len(list(generations(search, begun(search), 0, engine))) == 4
    assert met == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15]


class Greedy(OptunaSearch):
    """Proposes more candidates than it is asked for."""

    def ask(self, candidates, noise):
        return super().ask(candidates + 1, noise)


def test_more_candidates_than_asked_for_are_refused():
    search = replace(searched("first_rule", *TINY, "network.hidden=[8]"), outer=Greedy())
    with pytest.raises(ValueError, match="proposed 5 candidates when asked for 4"):
        list(generations(search, begun(search), 0, jobs.engine_for(search)))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    search = searched("first_rule", *TINY, "network.hidden=[8]", "battery.episodes=0")
    jobs.start(folder, search, "# text\n")
    return folder


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda spec: "{}", "lacks schema, search, search_sha256"),
        (lambda spec: "[]", "holds no JSON object"),
        (lambda spec: json.dumps({**spec, "schema": 99}), "schema 99"),
        (lambda spec: json.dumps({**spec, "search": {}}), "lacks search.outer.generations"),
        (lambda spec: json.dumps({**spec, "search": 5}), "lacks search.outer.generations"),
        (lambda spec: json.dumps({k: v for k, v in spec.items() if k != "search_sha256"}), "lacks search_sha256"),
    ],
)
def test_a_spec_that_is_none_is_refused_on_resume(done, tmp_path, damage, said):
    copied = RunFolder(shutil.copytree(done.path, tmp_path / "run"))
    spec = done.read_json("spec.json")
    (copied.path / "spec.json").write_text(damage(spec))
    with pytest.raises(RunError) as caught:
        jobs.resume(copied)
    assert said in str(caught.value)


def test_a_budget_that_is_no_number_is_refused_on_resume(done):
    with pytest.raises(SpecError, match="must be a whole number"):
        jobs.resume(done, ("outer.generations=many",))


def test_what_the_machine_lacks_has_a_sentence_and_a_defect_has_none():
    assert "No space left" in (outside(OSError(28, "No space left on device")) or "")
    assert outside(WorkersDied("a block of runs killed its worker")) == "a block of runs killed its worker"
    assert "memory ran out" in (outside(MemoryError()) or "")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert "memory ran out" in (outside(caught.value) or "")
    assert outside(RuntimeError("shapes differ")) is None
    assert outside(KeyError("x")) is None
