"""The classic searches ask for the rules of their papers, and the analysis of their generalisation runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sympy
import torch
from building import address, random_signals

from metarule.collect import load_file
from metarule.contracts.rules import evaluated
from metarule.inspection.figures import keep
from metarule.reading import find, read

analysis = load_file(Path(__file__).parent.parent / "analysis" / "generalisation_over_tasks.py")
TINY = ("inner.steps=6", "inner.episodes=2", "outer.candidates=4", "outer.generations=2", "battery.episodes=4")


@pytest.mark.parametrize("name", ["bengio_boolean", "bengio_plane"])
def test_the_parametric_rule_is_the_seven_published_terms(name):
    rule = read(find(name))[0].rules["forward"]
    theta = torch.tensor([0.3, -0.2, 0.5, 0.7, 1.1, -0.4, 0.6], dtype=torch.float64)
    raw = theta * torch.tensor(rule.scales((4, 3)), dtype=torch.float64)
    y, x, m, w = sympy.symbols("pre post error weight")
    # th0 + th1 y + th2 x + th3 m + th4 y m + th5 y x + th6 y w; a positive coefficient of pre_weight is decay
    published = (1, y, x, m, y * m, y * x, -y * w)
    signals = random_signals(address("classic"), 4, 3, 5)
    expected = evaluated(sympy.Add(*(c * term for c, term in zip(raw.tolist(), published, strict=True))), signals)
    change = rule.delta(theta[None], signals, {}, address("classic"))[0].tensor(signals.weight)
    torch.testing.assert_close(change, expected, rtol=1e-12, atol=1e-14)


def test_the_evolved_rule_is_a_network_of_local_signals():
    search = read(find("runarsson_jonsson"))[0]
    rule = search.rules["forward"]
    assert rule.kind == "mlp"
    assert rule.local
    assert rule.reads >= {"pre", "post", "error"}


def test_the_analysis_restricts_a_search_to_some_tasks_and_draws_what_it_finds(tmp_path):
    few = analysis.restricted("bengio_boolean", 2, 1, TINY)
    assert len(few.task.codes) == 2
    assert (few.task.shuffle, few.search.seed) == (1, 1)
    found = analysis.numbers("bengio_plane", (1, 2), 2, 5, TINY)
    for place in analysis.WHERE:
        for metric in analysis.METRICS:
            assert [len(found[place][metric][count]) for count in (1, 2)] == [2, 2]
    assert all(0 <= value <= 1 for value in found["new tasks"]["error"][2])
    assert analysis.table(found).count("training tasks: error") == 2
    files = keep(tmp_path, "generalisation_over_tasks", found, analysis.figure)
    assert json.loads(files[0].read_text())["parameters"] == 7
    assert files[1].stat().st_size > 0
