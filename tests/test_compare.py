"""Comparing runs: what differs is told and what cannot share an axis or a pair does not."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metarule as mr
from metarule.cli.output import emit
from metarule.comparing import setting
from metarule.credit.backprop import Backprop
from metarule.inspection import alike
from metarule.inspection.compared import compared
from metarule.inspection.compared_figures import draw
from metarule.inspection.compared_report import short, side_by_side
from metarule.inspection.compared_runs import sides

TINY = (
    *("outer.generations=2", "outer.candidates=4", "inner.episodes=1", "inner.steps=8", "battery.episodes=6"),
    *("network.hidden=[8]", "task.shots=4"),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Path:
    """A tiny finished search's folder; tests that change it take a copy."""
    return mr.search("first_rule", *TINY, runs_dir=tmp_path_factory.mktemp("runs")).path


@pytest.fixture
def copied(found, tmp_path):
    """A copy of the run under a name of its own, after `change` has had its way with a file of it."""

    def made(name, file=None, change=lambda document: None) -> Path:
        path = Path(shutil.copytree(found, tmp_path / name))
        if file:
            document = json.loads((path / file).read_text())
            change(document)
            (path / file).write_text(json.dumps(document))
        return path

    return made


def changing(key, value):
    """Change one setting in a spec.json."""

    def change(spec):
        *owners, last = key.split(".")
        table = spec["search"]
        for owner in owners:
            table = table[owner]
        table[last] = value

    return change


def of(*paths):
    return compared(sides(list(map(str, paths))))


def test_a_run_and_a_copy_of_it_differ_by_exactly_nothing(found, copied):
    document = of(found, copied("copy"))
    assert document["settings"] == []
    assert document["paired_by"] == "battery episodes"
    assert all(row["agree"] and row["values"][0] == row["values"][1] for row in document["coefficients"])
    assert {row["metric"] for row in document["tests"]} == {"accuracy", "held_out_loss"}
    for row in document["tests"]:
        assert (row["mean"], row["low"], row["high"], row["p"], row["p_holm"]) == (0.0, 0.0, 0.0, 1.0, 1.0)
        assert (row["a"], row["b"], row["episodes"], row["seeds"]) == ("first_rule", "copy", 6, 1)


@pytest.mark.parametrize(
    ("key", "value", "paired"),
    [
        ("network.hidden", [16], True),
        ("inner.block_runs", 7, True),
        ("search.seed", 5, False),
        ("inner.batch", 2, False),
        ("task.ways", 3, False),
    ],
)
def test_settings_are_exactly_what_was_changed_and_only_the_same_episodes_are_paired(found, copied, key, value, paired):
    other = copied("other", "spec.json", changing(key, value))
    before = setting_of(found, key)
    document = of(found, other)
    assert document["settings"] == [{"key": key, "values": [before, value]}]
    assert bool(document["tests"]) == paired
    assert ("--episodes" in document["pairing"]) == (not paired)
    assert (f"({key} differ)" in document["pairing"]) == (key == "network.hidden")


def setting_of(path, key):
    value = json.loads((path / "spec.json").read_text())["search"]
    for part in key.split("."):
        value = value[part]
    return value


def test_a_setting_that_an_older_version_did_not_write_differs_only_where_it_is_used(found, copied):
    old = copied("old", "spec.json", lambda spec: spec["search"]["inner"].pop("fixed_episodes"))
    assert of(found, old)["settings"] == []
    used = copied("used", "spec.json", changing("inner.fixed_episodes", True))
    assert of(used, old)["settings"] == [{"key": "inner.fixed_episodes", "values": [True, None]}]


def test_the_first_episodes_that_both_have_are_paired(found, copied):
    def shortened(scores):
        for metrics in scores.values():
            for name, values in metrics.items():
                metrics[name] = values[:4]

    other = copied("other", "episodes.json", shortened)
    assert {row["episodes"] for row in of(found, other)["tests"]} == {4}


def test_runs_of_different_tasks_share_no_panel_no_row_and_no_test(found, copied):
    other = copied("other", "spec.json", changing("task.ways", 3))
    document = of(found, other)
    assert document["tasks"] == ["few_shot (ways 5)", "few_shot (ways 3)"]
    assert all(len(panel["lines"]) == 1 for panel in document["panels"])
    assert all(sum(value is not None for value in row["values"]) == 1 for row in document["batteries"])
    assert any("not on one scale" in note for note in document["notes"])


def test_objectives_of_another_kind_have_a_panel_of_their_own(found, copied):
    other = copied("other", "spec.json", changing("inner.score_every", 4))
    panels = of(found, other)["panels"]
    shared = {panel["number"]: [line["run"] for line in panel["lines"]] for panel in panels}
    assert shared["held_out_loss"] == [0]
    assert shared["held_out_loss, mean over the training"] == [1]
    assert shared["accuracy"] == [0, 1]


def test_the_best_candidate_is_called_lucky_unless_all_generations_have_the_same_episodes(found, copied):
    fixed = copied("fixed", "spec.json", changing("inner.fixed_episodes", True))
    log = [json.loads(line)["loss_best"] for line in (found / "log.jsonl").read_text().splitlines()]
    panels = {panel["number"]: panel["lines"] for panel in of(found, fixed)["panels"] if panel["falls"]}
    assert panels["held_out_loss, of the luckiest candidate"] == [{"run": 0, "values": log}]
    assert panels["held_out_loss, lowest so far"] == [{"run": 1, "values": [log[0], min(log)]}]
    alone = copied("alone", "spec.json", changing("outer.candidates", 1))
    assert [panel["number"] for panel in of(alone, fixed)["panels"] if len(panel["lines"]) == 2] == [
        "held_out_loss",
        "accuracy",
    ]


def test_panels_and_curves_are_the_numbers_of_the_log(found, copied):
    document = of(found, copied("copy"))
    log = [json.loads(line) for line in (found / "log.jsonl").read_text().splitlines()]
    panel = next(panel for panel in document["panels"] if panel["number"] == "held_out_loss")
    assert panel["lines"][1] == {"run": 1, "values": [line["loss_mean"] for line in log]}
    assert document["curves"][0]["last"] == log[-1]["loss_mean"]
    assert document["curves"][0]["best"] == min(line["loss_best"] for line in log)
    assert document["curves"][0]["runs"] == 4


def test_a_coefficient_of_the_other_sign_does_not_agree(found, copied):
    def flipped(result):
        result["terms"][0]["normalised"] *= -1
        del result["terms"][2]

    rows = of(found, copied("other", "result.json", flipped))["coefficients"]
    assert [row["agree"] for row in rows] == [False, True, False]
    assert rows[2]["values"][1] is None


def test_a_diverged_episode_leaves_no_number_rather_than_a_wrong_one(found, copied):
    def diverged(scores):
        scores["discovered"]["held_out_loss"][0] = None

    rows = {row["metric"]: row for row in of(found, copied("other", "episodes.json", diverged))["tests"]}
    assert math.isnan(rows["held_out_loss"]["mean"])
    assert math.isnan(rows["held_out_loss"]["p_holm"])
    assert rows["accuracy"]["p"] == 1.0


def test_an_unfinished_run_is_compared_as_it_stands(metarule, found, copied):
    under_way = copied("under_way")
    for name in ("result.json", "episodes.json"):
        (under_way / name).unlink()
    document = of(found, under_way)
    assert any(note.startswith("under_way is not finished") for note in document["notes"])
    assert len(document["coefficients"]) == 3
    assert document["tests"] == []
    code, out, _ = metarule("compare", found, under_way)
    assert (code, "under_way is not finished" in out) == (0, True)


def test_kept_inspections_stand_side_by_side_where_both_have_them(found, copied):
    from metarule.inspection.kept import file_of, written

    theta = json.loads((found / "log.jsonl").read_text().splitlines()[-1])["theta"]
    paths = [copied("one"), copied("other")]
    curve = {"steps": [0, 8], "mean": [90.0, 40.0], "low": [80.0, 35.0], "high": [95.0, 45.0]}
    for path, holds in zip(paths, (True, None), strict=True):
        (path / "inspection").mkdir(exist_ok=True)
        verdict = {"condition": "width x2", "group": "width", "holds": holds, "sentence": ""}
        sections = {
            "stress": {"verdicts": [verdict]},
            "probes": {"curves": [{"name": "angle", "label": "angle", "unit": "degrees", "layers": {"W1": curve}}]},
        }
        for name, section in sections.items():
            (path / file_of(name)).write_text(json.dumps(written(theta, section)))
    document = of(*paths)
    assert document["stress"] == [{"condition": "width x2", "group": "width", "values": [True, None]}]
    last = {"mean": 40.0, "low": 35.0, "high": 45.0}
    assert [(row["layer"], row["values"]) for row in document["probes"]] == [("W1", [last, last])]
    assert of(paths[0], found)["stress"] == []


def test_all_rules_on_fresh_episodes_are_those_of_evaluate(metarule, found, copied, tmp_path):
    other = moved(copied("other"), "rule.forward.error_pre", 0.5)
    asked = ("--episodes", 3, "--seeds", 2, "--workers", 1, "--json")
    code, out, err = metarule("compare", found, other, *asked, "--csv", tmp_path / "e.csv")
    assert code == 0, err
    document = json.loads(out)
    rows = json.loads(metarule("evaluate", found, other, *asked)[1])
    means = {(Path(row["learner"]).name, row["metric"]): row["mean"] for row in rows}
    assert {(row["learner"], row["metric"]): row["mean"] for row in document["fresh"]} == means
    expected = {row["metric"]: row["first_minus_it"] for row in rows if "first_minus_it" in row}
    assert document["paired_by"] == "fresh episodes"
    for row in document["tests"]:
        assert row["mean"] == pytest.approx(expected[row["metric"]]["mean"])
        assert row["low"] == pytest.approx(expected[row["metric"]]["low"])
        assert (row["episodes"], row["seeds"]) == (6, 2)
        assert row["mean"] != 0.0
    assert "It is the task that all of them searched on" in document["pairing"]
    with (tmp_path / "e.csv").open() as handle:
        assert len(list(csv.reader(handle))) == 1 + 2 * 2 * 6


def moved(path, name, by):
    """Move one coefficient of the rule that a run found."""
    lines = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    lines[-1]["theta"][name] += by
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_rules_that_act_the_same_are_one_class_whatever_their_numbers(metarule, found, copied):
    same = moved(copied("same"), "rule.forward.error_pre", 1e-7)
    other = moved(copied("other"), "rule.forward.error_pre", 0.5)
    code, out, err = metarule("compare", found, other, same, "--episodes", 2, "--workers", 1, "--json")
    assert code == 0, err
    assert [each["members"] for each in json.loads(out)["classes"]] == [["first_rule", "same"]]
    _, out, _ = metarule("compare", found, other, "--episodes", 2, "--workers", 1)
    assert "No two of these rules act the same" in out
    assert of(found, same)["classes"] is None


def test_rules_behind_another_credit_assignment_are_no_class(found, copied):
    search = setting([str(found)], None, ())
    folders = [str(found), str(copied("copy"))]
    assert [each["members"] for each in alike.alike(folders, ["a", "b"], search)] == [["a", "b"]]
    learner = search.learner
    theta = torch.zeros(1, len(learner.params), dtype=torch.float64)
    other = replace(learner, credit=Backprop())
    assert not alike.same_around(alike.Contestant("a", learner, theta), alike.Contestant("b", other, theta))


def test_a_rule_that_diverges_is_said_to_and_is_not_tested(metarule, found, copied):
    wild = moved(copied("wild"), "rule.forward.error_pre", 1e6)
    asked = (found, wild, "--episodes", 3, "--workers", 1)
    rows = json.loads(metarule("compare", *asked, "--json")[1])
    measured = {(row["learner"], row["metric"]): row for row in rows["fresh"]}
    lost = measured["wild", "held_out_loss"]["diverged"]
    assert lost > 0
    assert measured["first_rule", "held_out_loss"]["diverged"] == 0
    assert next(row["p"] for row in rows["tests"] if row["metric"] == "held_out_loss") is None
    out = metarule("compare", *asked)[1]
    assert f"diverged in {lost} of 3" in out
    assert "pairs have no test" in out


def test_another_task_is_named_and_no_search_was_over_it(metarule, found, copied):
    other = copied("other")
    words = ("--task", "first_rule", "task.ways=3", "task.shots=4", "inner.steps=4", "network.hidden=[8]")
    code, out, _ = metarule("compare", found, other, *words, "--episodes", 2, "--workers", 1, "--json")
    document = json.loads(out)
    assert code == 0
    assert "No search was over this task" in document["pairing"]
    assert all(row["mean"] == 0.0 for row in document["tests"])


def test_pictures_numbers_and_page_are_written(metarule, found, copied, tmp_path):
    other = copied("other")
    code, out, err = metarule("compare", found, other, "--figures", tmp_path / "f", "--html", tmp_path / "c.html")
    assert code == 0, err
    files = {file.name for file in (tmp_path / "f").iterdir()}
    names = ("learning_curves", "coefficients", "batteries", "tests")
    assert files == {"comparison.json", *(f"{name}.{ending}" for name in names for ending in ("png", "svg", "csv"))}
    assert json.loads((tmp_path / "f" / "comparison.json").read_text())["names"] == ["first_rule", "other"]
    page = (tmp_path / "c.html").read_text()
    assert all(name in page for name in ("first_rule", "other"))
    assert "Paired tests" in out


def test_the_same_comparison_is_the_same_files_and_an_older_ones_are_dropped(found, copied, tmp_path):
    document = of(found, copied("other")) | {"panels": [], "batteries": []}
    first = {file.name: file.read_bytes() for file in written(document, tmp_path)}
    document["coefficients"] = []
    second = {file.name: file.read_bytes() for file in written(document, tmp_path)}
    assert {"coefficients.svg", "coefficients.csv", "tests.svg"} < first.keys()
    assert second == {name: first[name] for name in ("tests.png", "tests.svg", "tests.csv")}


def written(document, folder):
    """All files of a comparison but its numbers, once it is drawn."""
    pictures = draw(document, folder / "f")
    assert {file.suffix for file in pictures} == {".png"}
    return [file for file in (folder / "f").iterdir() if file.name != "comparison.json"]


def test_comparing_what_was_written_down_takes_no_torch(found, copied):
    names = str(found), str(copied("other"))
    program = (
        "import sys\n"
        "from metarule.cli import main\n"
        "sys.argv = ['metarule', 'compare', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Paired tests" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("{run}",), "1 run is nothing to compare"),
        (("{run}", "{run}"), "is given twice"),
        (("{run}", "{run}/../first_rule"), "is given twice"),
        (("{run}", "nowhere"), "nowhere is no run"),
        (("{run}", "{other}", "inner.steps=3"), "add --episodes, or --task"),
        (("{run}", "{other}", "--csv", "{run}/no/e.csv"), "cannot write"),
        (("{run}", "{other}", "--html", "{run}/no/e.html"), "cannot write"),
        (("{run}", "{other}", "--figures", "{run}/spec.json"), "cannot write"),
        (("{run}", "{model}", "--episodes", "2", "--workers", "1"), "trained a [model] by descent"),
        (("{run}", "{other}", "--task", "digit"), "did you mean"),
    ],
)
def test_a_mistake_exits_2_with_a_sentence(metarule, found, copied, arguments, sentence, request):
    places = {"run": found, "other": copied("other")}
    if "{model}" in arguments:
        places["model"] = request.getfixturevalue("model")
    code, out, err = metarule("compare", *(word.format(**places) for word in arguments))
    assert code == 2
    assert out == ""
    assert sentence in err.replace("\n", " ")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny search over a torch module's learning rates."""
    tiny = ("outer.generations=1", "inner.steps=2", "inner.episodes=1", "battery.episodes=0")
    return mr.search("cnn_rates", *tiny, runs_dir=tmp_path_factory.mktemp("models")).path


def test_a_model_is_compared_by_what_was_written_down(metarule, found, model):
    code, out, _ = metarule("compare", found, model)
    assert code == 0
    assert "cnn_rates trained a [model] by descent" in out


def test_replicates_are_called_by_what_tells_them_apart():
    assert short(["error_driven-seed0", "error_driven-seed12"]) == ["seed0", "seed12"]
    assert short(["structure", "structure-seed1"]) == ["structure", "structure-seed1"]
    assert short(["oja", "first_rule"]) == ["oja", "first_rule"]


def test_many_runs_stand_in_several_tables_and_none_is_lost():
    names = [f"run number {number}" for number in range(20)]
    tables = side_by_side("title", "term", names, [("a", ["+0.1234 [+0.1, +0.2]"] * 20)])
    heads = [str(column.header) for table in tables for column in table.columns[1:]]
    assert heads == names
    assert len(tables) > 1


def test_the_document_is_json(found, copied, capsys):
    def diverged(scores):
        scores["discovered"]["held_out_loss"][0] = None

    emit(of(found, copied("other", "episodes.json", diverged)))
    assert json.loads(capsys.readouterr().out)["tests"]
