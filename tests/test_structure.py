"""Searches over structure: from a file to a family, through the loop and back to the one search that was found."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from metarule import api, comparing
from metarule.cli.progress import counting, shortened
from metarule.collect import load_file
from metarule.family import Family
from metarule.findings import terms
from metarule.inner import Reference, Runs, unheard
from metarule.inspection.figures import front_figure, keep
from metarule.inspection.numbers import front
from metarule.jobs import plan
from metarule.learner import Learner
from metarule.network import Network
from metarule.params import Param, starts
from metarule.plugins import SpecError, table_of
from metarule.reading import built
from metarule.results import described, equations, text
from metarule.rules.terms import Terms
from metarule.spec import from_table
from metarule.synapses.sgd import Sgd
from metarule.trial import memory

TABLE = {
    "structure": {
        "algorithm": ["feedback_alignment", "weight_mirror", "node_perturbation"],
        "network.hidden": [[6], [5, 4]],
    },
    "task": {"kind": "digits"},
    "rule": {"kind": "terms", "terms": ["error_pre", "reward_post_change_pre", "weight_decay"], "switches": True},
    "synapses": {"feedback": {"kind": "sgd", "weight_decay": 0.02}},
    "start": {"rule.forward.error_pre": 0.4, "credit.sigma": 0.05},
    "fixed": {"synapse.feedback.rate": 0.7},
    "inner": {"steps": 3, "batch": 16, "episodes": 2},
    "outer": {"kind": "optuna", "sampler": "random", "candidates": 5, "generations": 3},
    "search": {"objective": ["held_out_loss", "complexity"]},
    "battery": {"episodes": 0},
}


def searched(**changes):
    table = copy.deepcopy(TABLE)
    for owner, part in changes.items():
        table[owner] = table.get(owner, {}) | part if isinstance(part, dict) else part
    return from_table(table)


SEARCH = searched()
ANALYSES = Path(__file__).parent.parent / "analysis"


def row(algorithm, hidden, **values):
    dotted = {name.replace("__", "."): value for name, value in values.items()}
    return SEARCH.family.row((algorithm, hidden), dotted)


def test_every_combination_is_the_plain_search_of_the_file_with_its_keys_replaced():
    assert set(SEARCH.plain) == {(name, size) for name in TABLE["structure"]["algorithm"] for size in ("[6]", "[5, 4]")}
    mirror = SEARCH.plain["weight_mirror", "[5, 4]"]
    alone = {key: part for key, part in TABLE.items() if key != "structure"}
    alone |= {"algorithm": "weight_mirror", "network": {"hidden": [5, 4]}}
    alone["rule"] = alone["rule"] | {"terms": ["error_pre", "weight_decay"]}
    expected = from_table(alone)
    assert mirror.table() == expected.table()
    assert mirror.learner.params == expected.learner.params


def test_a_rule_keeps_the_terms_that_its_kind_of_credit_serves_and_numbers_that_it_has():
    terms_of = {
        name: table_of(SEARCH.plain[name, "[6]"].rules["forward"])["terms"] for name in TABLE["structure"]["algorithm"]
    }
    assert terms_of == {
        "feedback_alignment": ("error_pre", "weight_decay"),
        "weight_mirror": ("error_pre", "weight_decay"),
        "node_perturbation": ("reward_post_change_pre", "weight_decay"),
    }
    assert "feedback" not in SEARCH.plain["feedback_alignment", "[6]"].synapses
    assert SEARCH.plain["feedback_alignment", "[6]"].fixed == {}
    assert SEARCH.plain["node_perturbation", "[6]"].start["credit.sigma"] == 0.05


def test_columns_are_named_by_the_choice_that_decides_and_say_when_they_count():
    params = {param.name: param for param in SEARCH.family.params}
    assert list(params)[:2] == ["algorithm", "network.hidden"]
    assert params["rule.forward.error_pre"].start == 0.4
    assert params["rule.forward.error_pre"].when == (
        ("algorithm", ("feedback_alignment", "weight_mirror")), ("rule.forward.use_error_pre", ("on",)),
    )  # fmt: skip
    assert params["rule.forward.weight_decay"].when == (("rule.forward.use_weight_decay", ("on",)),)
    assert [name for name in params if ":" in name] == []
    other = searched(start={"credit.sigma": 0.05}, structure={"algorithm": ["weight_mirror", "node_perturbation"]})
    del other.plain["weight_mirror", "[6]"].start["credit.sigma"]
    names = [param.name for param in Family(other.choices, {s: p.learner for s, p in other.plain.items()}).params]
    assert {"weight_mirror, [6]:credit.sigma", "node_perturbation, [6]:credit.sigma"} <= set(names)


def test_a_row_and_its_names_are_one_thing():
    theta = row("weight_mirror", "[5, 4]", rule__forward__error_pre=0.3, rule__forward__use_weight_decay=0.0)
    plain, own = SEARCH.found(theta)
    assert plain is SEARCH.plain["weight_mirror", "[5, 4]"]
    named = SEARCH.family.named(theta)
    assert named | {"algorithm": "weight_mirror", "network.hidden": "[5, 4]"} == named
    assert named["rule.forward.error_pre"] == 0.3
    assert named["rule.forward.use_weight_decay"] == "off"
    assert list(named)[2:] == [param.name for param in plain.learner.params]
    assert len(own) == len(plain.learner.params)


def test_the_whole_search_written_down_reads_back_as_the_same_search():
    table = json.loads(json.dumps(SEARCH.table()))
    again = from_table(table)
    assert again.family.params == SEARCH.family.params
    assert again.table() == SEARCH.table()
    assert [each.table() for each in again.structures] == [each.table() for each in SEARCH.structures]


def test_a_switched_off_term_is_a_rule_without_it():
    rule, plain = Terms(("error_pre", "oja"), switches=True), Terms(("error_pre", "oja"))
    theta = torch.tensor([[0.5, 0.2, 1.0, 0.0], [0.5, 0.2, 0.0, 1.0]], dtype=torch.float64)
    effective = torch.tensor([[0.5, 0.0], [0.0, 0.2]], dtype=torch.float64)
    assert torch.equal(rule.coefficients(theta), effective)
    assert rule.complexity(theta).tolist() == [1.0, 1.0]
    for each, numbers in zip(theta, effective, strict=True):
        assert rule.equation(each, (4, 5)) == plain.equation(numbers, (4, 5))
    assert rule.units((4, 5)) == (*plain.units((4, 5)), 1.0, 1.0)


def test_terms_may_be_searched_in_units_of_their_own():
    rule = Terms(("error_pre", "oja"), scale=0.5, scale_by_term={"oja": 0.01})
    assert [param.scale for param in rule.params] == [0.5, 0.01]
    assert rule.fitted(frozenset({"pre", "post"})) == Terms(("oja",), scale=0.5, scale_by_term={"oja": 0.01})
    with pytest.raises(ValueError, match="scale_by_term"):
        Terms(("error_pre",), scale_by_term={"oja": 0.01})


def test_a_switched_off_term_is_reported_with_a_coefficient_of_nothing():
    plain, own = SEARCH.found(starts(SEARCH.family.params))
    names = [param.name for param in plain.learner.params]
    log = [{"theta": dict(zip(names, own.tolist(), strict=True)) | {"rule.forward.use_error_pre": 0.0}}]
    rows = {each["name"]: each for each in terms(described(plain), log)}
    assert set(rows) == {"error_pre", "weight_decay"}
    assert rows["error_pre"]["raw"] == rows["error_pre"]["normalised"] == 0.0


def test_what_learns_the_feedback_counts_as_complexity_too():
    pick = {"rule__forward__use_weight_decay": 0.0}
    plain, mirror = (
        row(name, "[6]", rule__forward__error_pre=0.3, **pick) for name in TABLE["structure"]["algorithm"][:2]
    )
    assert SEARCH.family.complexity(torch.stack((plain, mirror))).tolist() == [1.0, 2.0]


def test_known_rules_become_rows_and_are_tried_first():
    known = [
        {"algorithm": "node_perturbation", "rule.forward.reward_post_change_pre": 0.1, "credit.sigma": 0.2},
        {"network": {"hidden": [5, 4]}, "rule": {"forward": {"use_error_pre": "off"}}},
    ]
    search = searched(known=known)
    first, second = search.known_rows
    assert search.family.named(first)["credit.sigma"] == 0.2
    assert search.family.named(second)["rule.forward.use_error_pre"] == "off"
    assert search.family.structure(second) == ("feedback_alignment", "[5, 4]")
    assert from_table(json.loads(json.dumps(search.table()))).known == search.known


def test_a_known_row_of_the_zoo_gives_its_numbers_to_a_plain_search():
    table = {key: part for key, part in TABLE.items() if key not in ("structure", "start", "fixed", "synapses")}
    table |= {"algorithm": "weight_mirror", "rule": {"kind": "delta"}, "known": [{"algorithm": "weight_mirror"}]}
    table["search"] = {}
    (known,) = from_table(table).known_rows
    named = from_table(table).family.named(known)
    assert named["synapse.rate"] == 0.1
    assert named["synapse.feedback.rate"] == 1.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return api.search(SEARCH, runs_dir=tmp_path_factory.mktemp("runs"), name="whole")


def test_a_search_over_structure_stops_and_goes_on_bit_for_bit(run, tmp_path):
    half = api.search(searched(outer={"generations": 1}), runs_dir=tmp_path, name="half")
    assert api.go_on(half.path, "outer.generations=3").log == run.log


def test_a_run_is_the_learner_that_was_found_with_its_numbers(run):
    result = json.loads((run.path / "result.json").read_text())
    assert result["structure"] == {key: result["theta"][key] for key in TABLE["structure"]}
    assert isinstance(run.learner, Learner)
    assert run.credit.kind == result["credit"]
    assert run.theta.keys() <= result["theta"].keys()
    numbers = torch.tensor([list(run.theta.values())], dtype=torch.float64)
    plain = SEARCH.plain[tuple(result["structure"].values())]
    assert result["equation"] == text(equations(plain, numbers[0]))
    named = {each["name"].removeprefix("forward.") for each in result["terms"]}
    assert named == set(table_of(plain.rules["forward"])["terms"])


def test_a_run_over_structure_is_compared_as_the_learner_that_it_found(run):
    setting = comparing.setting([str(run.path)], None, ())
    assert setting.network.hidden == tuple(json.loads(run.found["structure"]["network.hidden"]))
    battery = comparing.comparison([str(run.path), "backprop"], setting, 2, 1)
    assert {each.learner for each in battery.rows} == {str(run.path), "backprop"}


def test_the_front_is_written_shown_and_drawn(run):
    rules = run.found["front"]
    losses = [rule["losses"]["held_out_loss"] for rule in rules]
    assert losses == sorted(losses)
    for rule in rules:
        assert rule["complexity"] == rule["losses"]["complexity"]
        shown = sum(value == "on" for value in rule["theta"].values())
        assert rule["complexity"] <= shown + (rule["structure"]["algorithm"] == "weight_mirror")
    found = front(run.found, run.log)
    assert found is not None
    assert found.first == tuple(losses)
    assert len(found.tried) == sum(None not in each for line in run.log for each in line["losses"])
    axes = front_figure(found, "front").axes[0]
    assert axes.get_xlabel() == "complexity"
    assert (run.path / "figures" / "front.png").exists()


def test_a_search_without_choices_is_a_family_of_one():
    table = {key: part for key, part in TABLE.items() if key not in ("structure", "start", "fixed", "synapses")}
    search = from_table(table | {"rule": {"kind": "terms"}})
    assert search.family.params == search.learner.params
    theta = starts(search.family.params)
    assert search.found(theta) == (search, theta)
    assert len(search.structures) == 1


def test_the_largest_structure_decides_how_much_memory_is_needed_and_all_count_for_the_time():
    sizes = [memory(each).bytes for each in SEARCH.structures]
    assert memory(SEARCH).bytes == max(sizes) > min(sizes)
    assert plan(SEARCH, 1)["structures"] == 6


def test_all_structures_of_a_generation_are_spread_over_workers_at_once():
    calls = []

    def spread(function, jobs, arrived=unheard):
        calls.append(len(jobs))
        return [function(job) for job in jobs]

    theta = torch.stack([row(name, "[6]") for name in TABLE["structure"]["algorithm"]])
    engines = Reference(1, torch.float64), Reference(1, torch.float64, map=spread)
    alone, together = (
        SEARCH.family.evaluate(engine, theta, SEARCH.task, Runs((0, 1, 2), (0, 1)), range(2), batch=4)
        for engine in engines
    )
    assert calls == [6]
    assert torch.equal(alone.loss, together.loss)


def test_progress_shows_the_structure_and_the_numbers_that_count():
    theta = row("node_perturbation", "[6]", rule__forward__use_weight_decay=0.0)
    shown = counting(SEARCH.family, theta)
    assert list(shown)[:2] == ["algorithm", "network.hidden"]
    assert not any("weight_decay" in name or "use_" in name for name in shown)
    assert "algorithm node_perturbation" in shortened(shown)


def test_the_analysis_of_structure_tests_the_front_on_both_tasks_and_draws_it(run, tmp_path, monkeypatch):
    analysis = load_file(ANALYSES / "structure.py")
    monkeypatch.setattr(analysis, "TUNING", 1)
    found = analysis.numbers(run, episodes=2)
    leading = [rule for rule in run.found["front"] if rule["losses"]["held_out_loss"] <= 3 * found_best(run)]
    assert [rule["equation"] for rule in found["rules"]] == [rule["equation"] for rule in leading]
    for task, bound in analysis.BOUNDS.items():
        gap = found["rules"][0][task]["mean"] - found["baselines"]["backprop"][task]["mean"]
        assert found["difference"][task]["mean"] == pytest.approx(gap, abs=1e-6)
        assert found["within"][task] == ((gap if task == "autoencoder" else -gap) <= bound)
    assert analysis.table(found).count("tuned backprop on") == 2
    assert all(file.exists() for file in keep(tmp_path, "structure", found, analysis.figure))


def found_best(run):
    return min(rule["losses"]["held_out_loss"] for rule in run.found["front"])


def test_the_analysis_of_pruning_pairs_a_search_with_itself_unpruned(tmp_path):
    analysis = load_file(ANALYSES / "pruning.py")
    tiny = ("inner.steps=20", "inner.episodes=1", "outer.generations=3", "outer.candidates=4")
    tiny += ("outer.pruning={ percentile = 25.0, n_startup_trials = 2 }",)
    found = analysis.numbers("pruned_terms", 2, 1, tiny, episodes=2)
    assert [each["run_steps"] for each in found["whole"]] == [3 * 4 * 20] * 2
    for saved, pruned in zip(found["saved"]["values"], found["pruned"], strict=True):
        assert 0 < saved < 1
        assert pruned["run_steps"] == round((1 - saved) * 240)
    assert "inner steps saved" in analysis.table(found)
    assert all(file.exists() for file in keep(tmp_path, "pruning", found, analysis.figure))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"structure": {"task.kind": ["digits"]}}, "structure.'task.kind' cannot vary"),
        ({"structure": {"algorithm": "backprop"}}, "must be a list"),
        ({"structure": {"algorithm": ["backprop", "backprop"]}}, "names a value twice"),
        ({"structure": {"algorithm": ["backprob"]}}, "did you mean 'backprop'"),
        ({"structure": {"rule.scale": [0.1, 0.2]}, "rule": {"scale": 0.1}}, "given twice"),
        ({"structure": {"rule.scale": list(range(1, 100))}}, "combinations"),
        ({"start": {"rule.forward.oja": 1.0}}, "start = 'rule.forward.oja'"),
        ({"structure": {"algorithm": ["hebb_readout"]}}, "structure 'hebb_readout"),
        ({"rule": {"termz": ["oja"]}}, "did you mean 'terms'"),
        ({"known": [{"algorithm": "backprop"}]}, r"known\[0\].'algorithm' = 'backprop' is not one of"),
        ({"known": [{"rule.forward.oja": 1.0}]}, r"a key of known\[0\]"),
        ({"structure": {"network": ["wide", "deep"]}}, "must be a list of tables"),
        ({"structure": {"rule": [{"kind": "delta"}]}, "rule": {"scale": 0.1}}, r"rule\.kind is given twice"),
        ({"structure": {"synapse.kind": ["sgd"], "synapse.kind.x": ["adam"]}}, "say the same thing twice"),
        ({"model": {"kind": "cnn"}}, "a \\[model\\] does not; take out one"),
        ({"search": {"objective": ["held_out_loss", "held_out_loss"]}}, "names one twice"),
        ({"known": [{"algoritm": "backprop"}]}, "did you mean 'algorithm'"),
        ({"known": [{"rule.forward.error_pre": math.nan}]}, "must be a finite number"),
        ({"known": [{"rule.forward.error_pre": "high"}]}, "must be a number"),
        ({"known": [{"rule.forward.use_error_pre": "maybe"}]}, "is not one of off, on"),
        ({"known": {"algorithm": "backprop"}}, "must be a list of tables"),
        ({"outer": {"kind": "cma_es"}}, "^a key of outer = 'sampler'"),
    ],
)
def test_structures_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(SpecError, match=said):
        searched(**changes)


def test_a_loop_that_takes_no_choices_is_refused():
    table = TABLE | {"outer": {"kind": "cma_es"}, "search": {}}
    with pytest.raises(SpecError, match="does not take categorical parameters"):
        from_table(table)


def test_an_override_may_replace_the_choices():
    search = built(TABLE, ('structure.algorithm=["backprop","weight_mirror"]',), Path())
    assert {name for name, _ in search.plain} == {"backprop", "weight_mirror"}


def test_a_condition_that_is_fixed_is_no_condition():
    rule = {"forward": Terms(("error_pre",), switches=True)}
    network = Network.chain((4, 3), "tanh")
    learner = Learner(network, SEARCH.credit, rule, {"any": Sgd()}, fixed={"rule.forward.use_error_pre": 1.0})
    assert learner.params == (Param("rule.forward.error_pre"),)
