"""A run's pictures as files: their numbers as CSV first, PNG and SVG of the same drawing, the same bytes each time."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree
from itertools import pairwise
from pathlib import Path

import pytest
from reporting import TERMS, document, episodes

from metarule.inspection.figures import NAMED, NAMES, coefficients_figure, draw, front_figure, learning_curve_figure
from metarule.inspection.numbers import Coefficients, Front, LearningCurve
from metarule.records import jsonable


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a finished run with a front and a battery."""
    made = document()
    rules = [
        {
            "structure": {"credit": "a"},
            "losses": {"held_out_loss": 1.0 / (k + 1), "complexity": float(k)},
            "equation": "",
        }
        for k in range(3)
    ]
    entries = [{"param": name, "name": name, "log": False, "raw": 1.0, "unit": 1.0} for name in TERMS]
    search = {"task": {"kind": "few_shot"}, "credit": {"kind": "c"}, "outer": {"kind": "cma_es", "generations": 30}}
    spec = {"schema": 1, "search": search, "parameters": entries, "objectives": ["held_out_loss", "complexity"]}
    log = [
        line | {"theta": dict.fromkeys(TERMS, float(line["generation"])), "losses": [[1.0, 2.0], [None, 1.0]]}
        for line in made["learning_curve"]
    ]
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (tmp_path / "result.json").write_text(json.dumps(made | {"front": rules}))
    (tmp_path / "episodes.json").write_text(json.dumps(jsonable(episodes())))
    return tmp_path


def test_every_picture_has_its_numbers_and_a_vector_drawing_beside_it(run):
    files = draw(run)
    assert [file.name for file in files] == list(NAMES)
    for file in files:
        root = xml.etree.ElementTree.parse(file.with_suffix(".svg")).getroot()
        assert root.tag.endswith("svg")
        with file.with_suffix(".csv").open(newline="") as handle:
            assert list(csv.DictReader(handle))


def test_pictures_are_the_same_bytes_whenever_they_are_drawn(run):
    def contents() -> dict[str, bytes]:
        return {
            file.with_suffix(suffix).name: file.with_suffix(suffix).read_bytes()
            for file in draw(run)
            for suffix in (".png", ".svg", ".csv")
        }

    assert contents() == contents()


def test_the_numbers_are_those_of_the_run(run):
    draw(run)

    def table(name: str) -> list[dict[str, str]]:
        with (run / "figures" / f"{name}.csv").open(newline="") as handle:
            return list(csv.DictReader(handle))

    curve = table("learning_curve")
    assert [float(row["best"]) for row in curve] == [line["loss_best"] for line in document()["learning_curve"]]
    assert curve[3]["mean"] == "nan"
    values = [row for row in table("coefficients") if row["coefficient"] == "error_pre"]
    assert [float(row["normalised"]) for row in values] == list(range(30))
    accuracy = [float(row["value"]) for row in table("battery") if row["learner"] == "feedback_alignment"]
    assert accuracy == episodes()["feedback_alignment"]["accuracy"]
    assert sum(row["front"] == "True" for row in table("front")) == 3


def test_pictures_of_what_is_gone_are_taken_away(run):
    draw(run)
    (run / "result.json").unlink()
    draw(run)
    assert {file.stem for file in (run / "figures").iterdir()} == {"learning_curve", "coefficients"}


def test_one_candidate_is_one_line_and_needs_no_legend():
    alone = LearningCurve((0, 1), (1.0, 0.5), (1.0, 0.5), {})
    (axes,) = learning_curve_figure(alone, "one").axes
    assert len(axes.lines) == 1
    assert axes.get_legend() is None


def test_names_of_coefficients_do_not_overlap_and_stay_in_the_picture():
    values = {f"c{k}": (0.0, 1.0 + 1e-6 * k) for k in range(NAMED)}
    figure = coefficients_figure(Coefficients((0, 1), values, {}), "close")
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == NAMED
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    assert all(box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_no_title_is_wider_than_its_picture():
    name = "a_run_with_a_name_that_is_longer_than_most_names_of_runs_are"
    figures = [
        coefficients_figure(Coefficients((0, 1), {"a": (0.0, 1.0)}, {}), name),
        learning_curve_figure(LearningCurve((0, 1), (math.nan, 1.0), (math.nan, 0.5), {}), name),
        front_figure(Front(("loss", "complexity"), (1.0, 0.1), (0.0, 1.0), ("x" * 100, "b"), ()), name),
    ]
    for figure in figures:
        figure.canvas.draw()
        drawn = figure.get_tightbbox()
        assert drawn.x0 >= 0
        assert drawn.x1 <= figure.get_figwidth()
