"""Inspecting: the numbers of a run are those of its files, whatever its state; pictures are drawn from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from matplotlib.image import imread

from metarule.findings import agreement, learning_curve, terms, trajectories
from metarule.inspection import numbers
from metarule.inspection.figures import NAMES, PALETTE, draw
from metarule.inspection.numbers import LARGEST
from metarule.inspection.report import report
from metarule.inspection.rule_report import terms_table
from metarule.records import RunError, jsonable, unused

ENTRIES = [
    {"param": "rule.forward.delta", "name": "delta", "log": False, "raw": 0.5, "unit": 0.25},
    {"param": "synapse.rate", "name": "synapse.rate", "log": True},
]


def line(generation: int, value: float, loss: float | None = 1.0) -> dict:
    """A generation as the loop logs it."""
    return {
        "generation": generation,
        "loss": [loss],
        "loss_mean": loss,
        "loss_best": loss,
        "failed": int(loss is None),
        "scores": {} if loss is None else {"accuracy": 0.5, "held_out_loss": loss},
        "theta": {"rule.forward.delta": value, "synapse.rate": 0.1},
    }


LOG = [line(generation, value) for generation, value in enumerate([0.0, 3.0, 1.0, -1.0, 2.0, 1.5, 1.0, 4.0, 2.0])]
ROWS = [
    {
        "learner": name,
        "task": "t",
        "metric": "accuracy",
        "mean": mean,
        "low": low,
        "high": high,
        "episodes": 3,
        "seeds": 1,
    }
    for name, mean, low, high in (("discovered", 0.8, 0.7, 0.9), ("backprop", 0.5, None, None))
]
RESULT = {
    **{"schema": 1, "name": "made", "task": "t", "credit": "c", "outer": "o", "generations": 9, "latex": []},
    **{"equation": "dW = 1.0·error·pre [x]", "terms": terms(ENTRIES, LOG), "theta": LOG[-1]["theta"], "battery": ROWS},
    "differences": [
        {"learner": "discovered", "other": "backprop", "metric": "accuracy", "mean": 0.3, "low": 0.1, "high": 0.5}
    ],
    "tunings": {"backprop": {"best": 0.1, "bracketed": False}},
    "trained_on": "these",
    "tested_on": "those",
}


@pytest.fixture
def folder(tmp_path):
    """Write a run folder; without a result it is one that is still under way."""

    def made(log=LOG, result=None, planned=9) -> Path:
        search = {"task": {"kind": "t"}, "credit": {"kind": "c"}, "outer": {"kind": "o", "generations": planned}}
        spec = {"schema": 1, "search": search, "parameters": ENTRIES, "objectives": ["held_out_loss"]}
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in log))
        if result:
            (tmp_path / "result.json").write_text(json.dumps(result))
            scores = {"discovered": {"accuracy": [0.7, 0.8, 0.9]}, "backprop": {"accuracy": [0.5, None, 0.5]}}
            (tmp_path / "episodes.json").write_text(json.dumps(scores))
        return tmp_path

    return made


def test_a_term_is_the_last_generation_and_its_range_that_of_the_last_third_or_five():
    assert terms(ENTRIES, LOG) == [{"name": "delta", "raw": 1.0, "normalised": 4.0, "low": 2.0, "high": 8.0}]
    assert terms(ENTRIES, LOG[:4])[0]["low"] == -2.0
    long = [line(generation, float(generation)) for generation in range(30)]
    assert terms(ENTRIES, long)[0]["low"] == 40.0
    assert terms(ENTRIES, []) == []


def test_trajectories_and_learning_curve_have_one_entry_per_generation():
    assert trajectories(ENTRIES, LOG)["delta"] == [2 * each["theta"]["rule.forward.delta"] for each in LOG]
    assert [each["generation"] for each in learning_curve(LOG)] == list(range(9))


def test_a_run_under_way_is_told_from_a_finished_and_from_an_extended_one(folder):
    under_way = numbers.found(folder())
    assert (under_way["finished"], under_way["equation"], under_way["battery"]) == (False, None, [])
    written = [{name: term[name] for name in RESULT["terms"][0]} for term in under_way["terms"]]
    assert written == RESULT["terms"]
    assert numbers.found(folder(result=RESULT))["finished"]
    extended = numbers.found(folder([*LOG, line(9, 1.0)], RESULT, planned=20))
    assert (extended["finished"], extended["generations"]) == (False, 10)


def test_a_run_without_a_generation_yet_can_be_inspected(folder):
    path = folder(log=[])
    assert numbers.found(path)["theta"] == {}
    assert draw(path) == []


def test_a_line_that_is_being_written_does_not_count(folder):
    path = folder()
    with (path / "log.jsonl").open("a") as handle:
        handle.write('{"generation": 9, ')
    assert numbers.found(path)["generations"] == 9


@pytest.mark.parametrize(
    ("name", "content"), [("spec.json", "{"), ("spec.json", "{}"), ("log.jsonl", "{\n"), ("log.jsonl", "{}\n")]
)
def test_a_damaged_folder_is_a_run_error(folder, name, content):
    path = folder()
    (path / name).write_text(content)
    with pytest.raises(RunError, match="is damaged"):
        numbers.found(path)


def test_the_objective_is_not_drawn_twice_and_failed_generations_are_gaps(folder):
    curve = numbers.curve(numbers.found(folder([*LOG, line(9, 1.0, None)])))
    assert set(curve.metrics) == {"accuracy"}
    assert math.isnan(curve.mean[-1])
    assert math.isnan(curve.metrics["accuracy"][-1])


def test_pictures_are_png_files_of_what_there_is(folder):
    path = folder([*LOG[:-1], line(8, 2.0, None)])
    assert [file.name for file in draw(path)] == ["learning_curve.png", "coefficients.png"]
    files = draw(folder(result=RESULT))
    assert [file.name for file in files] == [name for name in NAMES if name != "front.png"]
    for file in files:
        assert imread(file).shape[1] == pytest.approx(6.4 * 160, abs=1)


def test_a_diverged_episode_is_infinite_and_an_unknown_bound_is_nan(folder):
    path = folder(result=RESULT)
    compared = numbers.comparison(numbers.found(path), numbers.episodes(path))
    assert compared is not None
    assert compared.episodes[1] == (0.5, math.inf, 0.5)
    assert math.isnan(compared.lows[1])


def test_more_coefficients_than_colours_can_be_drawn(folder):
    path = folder()
    spec = json.loads((path / "spec.json").read_text())
    spec["parameters"] = [ENTRIES[0] | {"name": f"term_{k}"} for k in range(3 * len(PALETTE))]
    (path / "spec.json").write_text(json.dumps(spec))
    assert len(draw(path)) == 2


def test_the_report_says_everything_and_takes_brackets_as_they_are(folder, capsys):
    from metarule.cli.output import show

    show(report(numbers.found(folder(result=RESULT)), ["figures/a.png"]))
    out = capsys.readouterr().out
    for part in (
        "dW = 1.0·error·pre [x]",
        "delta",
        "not bracketed",
        "+0.300 [+0.100 to +0.500]",
        "these",
        "those",
        "a.png",
    ):
        assert part in out


def test_json_values_have_no_numbers_that_json_lacks():
    assert jsonable({"a": (math.nan, 1.0), "b": [math.inf]}) == {"a": [None, 1.0], "b": [None]}


def test_unused_names_are_numbered(tmp_path):
    assert unused(tmp_path, "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert unused(tmp_path, "a") == tmp_path / "a-3"


def test_replicates_agree_where_every_sign_is_the_same():
    runs = [{"terms": [{"name": "a", "normalised": 1.0}, {"name": "b", "normalised": sign}]} for sign in (1.0, -1.0)]
    assert [(row["name"], row["agree"]) for row in agreement(runs)] == [("a", True), ("b", False)]


def test_of_hundreds_of_coefficients_the_largest_are_printed():
    rows = [{"name": f"c{k}", "raw": 1.0, "normalised": float(k), "low": 0.0, "high": 1.0} for k in range(100)]
    table = terms_table(rows)
    assert table.row_count == LARGEST
    assert str(table.title).startswith(f"The {LARGEST} largest of 100")
    assert next(iter(table.columns[0].cells)) == "c99"
    assert terms_table(rows[:LARGEST]).row_count == LARGEST
