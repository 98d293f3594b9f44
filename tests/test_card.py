"""The rule card: every rule has one, equations read back, what acts alike is called alike, a run can be found again."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sympy
import torch

from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.credit.none import Nobody
from metarule.evaluation import Conditions
from metarule.glossary import KNOWN, MEANINGS
from metarule.inspection import kept, numbers
from metarule.inspection.card import card
from metarule.inspection.locality import BROADCAST, LAYER_WIDE, LOCAL, locality
from metarule.inspection.nearest import EQUIVALENT, Probed, answer, distance, known_as, nearest
from metarule.inspection.provenance import command
from metarule.inspection.report import report
from metarule.inspection.siblings import over_seeds, siblings
from metarule.inspection.subject import Subject, subject
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.params import starts
from metarule.reading import find, read
from metarule.records import jsonable
from metarule.results import coefficients, expressions, written
from metarule.rules import Rule
from metarule.rules.expression import Expression
from metarule.rules.polynomial import Polynomial
from metarule.rules.terms import Terms
from metarule.synapses.sgd import Sgd
from metarule.terms import FACTORS, TERMS
from metarule.zoo import ZOO
from tests.building import EXACT, Imitation, address, random_theta

KEYS = {"equation", "equations", "latex", "terms", "locality", "nearest", "known_as", "identifiability", "provenance"}


def of_row(name: str) -> Subject:
    """A row of the zoo on the smallest task, for three steps."""
    row, task = ZOO[name], Imitation()
    network = row.host.network(task.inputs, (5, 4), task.outputs, task.output)
    learner = row.learner(network)
    return Subject(name, learner, starts(learner.params)[None], task, Conditions(EXACT, 3, min(row.host.batch, 2)), 1)


def of_rule(rule: Rule, values: tuple[float, ...] | None = None, credit=None) -> Subject:
    """A rule by itself on a small network, its numbers drawn where none are given."""
    network = Network.chain((6, 5, 3), output="softmax")
    learner = Learner(network, credit or FeedbackAlignment(), {"forward": rule}, {ANY: Sgd()})
    theta = torch.tensor([values], dtype=torch.float64) if values else random_theta(learner.params, address("card"))
    return Subject("backprop", learner, theta, Imitation(), Conditions(EXACT, 3, 2), 1)


def test_every_factor_has_a_meaning_and_every_known_term_is_one():
    assert MEANINGS.keys() == FACTORS.keys()
    assert KNOWN.keys() <= TERMS.keys()
    assert len({known.name for known in KNOWN.values()}) == len(KNOWN)


@pytest.mark.parametrize("name", ZOO)
def test_every_row_of_the_zoo_has_a_card(name):
    found = card(of_row(name))
    assert found.keys() == KEYS
    assert found["known_as"]
    assert found["nearest"][0]["equivalent"]
    rows = {row for entry in found["nearest"] if entry["equivalent"] for row in entry["rows"]}
    assert name in rows
    json.dumps(jsonable(found), allow_nan=False)


@pytest.mark.parametrize("name", ZOO)
def test_a_rule_is_layer_wide_just_where_it_declares_that_it_is_not_local(name):
    found = locality(of_row(name))
    assert found["local"] == all(rule.local for rule in ZOO[name].rules.values())
    assert (found["level"] == LAYER_WIDE) == (not found["local"])
    assert found["credit"]["kind"] == ZOO[name].credit.kind


def test_a_reward_is_a_broadcast_scalar_and_what_has_no_weight_is_not_read():
    assert locality(of_row("node_perturbation"))["level"] == BROADCAST
    assert locality(of_row("oja"))["level"] == LOCAL
    zero = of_rule(Terms(("error_pre", "subspace_oja"), normalise=False), (0.1, 0.0))
    assert locality(zero)["level"] == LOCAL
    assert [each["name"] for each in locality(zero)["signals"]] == ["error", "pre"]


@pytest.mark.parametrize(("name", "sign"), [("three_term", "+"), ("three_term_flipped", "−")])
def test_the_three_term_rule_is_the_sum_of_its_known_parts_with_their_signs(name, sign):
    found = nearest(of_row(name))
    first = found[0]
    assert first["equivalent"]
    assert set(first["parts"]) == {"error_pre", "error_pre_error", "subspace_oja"}
    assert first["parts"]["error_pre_error"] == pytest.approx(ZOO[name].values["rule.forward.error_pre_error"])
    whole = {"+": "pseudo-gradient + eHebb + subspace Oja", "−": "pseudo-gradient + subspace Oja − eHebb"}
    assert known_as(found) == whole[sign]


def test_rows_that_share_a_rule_are_one_entry():
    found = nearest(of_row("backprop"))
    assert [entry["name"] for entry in found if entry["equivalent"]] == ["delta rule"]
    assert {"backprop", "momentum", "adam", "feedback_alignment"} <= set(found[0]["rows"])


def test_distance_takes_a_positive_factor_out_and_no_other():
    def asked(scale: float) -> torch.Tensor:
        return answer(Probed(Terms(("oja",), normalise=False), torch.tensor([scale], dtype=torch.float64)))

    assert distance(asked(1.0), asked(7.0))[0] <= EQUIVALENT
    assert distance(asked(1.0), asked(-1.0)) == (1.0, pytest.approx(-1.0))
    assert 0.1 < distance(asked(1.0), answer(Probed(Terms(("post_pre",)), torch.ones(1).double())))[0] <= 1.0


def test_a_known_rule_in_other_words_is_recognised():
    polynomial = Polynomial({"pre": 1, "post": 2, "weight": 1})
    values = [0.0] * len(polynomial.params)
    network = Network.chain((4, 2), output="linear")
    learner = Learner(network, Nobody(), {"forward": polynomial}, {ANY: Sgd()})
    # normalised: one post pre is glorot of them, post^2 weight is as it stands
    scales = dict(zip((param.name for param in polynomial.params), polynomial.scales((2.0, 4.0)), strict=True))
    for name, raw in (("post_pre", 0.3), ("post2_weight", -0.3)):
        values[[param.name for param in polynomial.params].index(name)] = raw / scales[name]
    made = Subject("oja", learner, torch.tensor([values], dtype=torch.float64), Imitation(), Conditions(EXACT, 3, 2), 1)
    assert known_as(nearest(made)) == "Oja"
    program = Expression(inputs=("pre", "post", "error"), program={"out": "error * pre"}, nodes=4)
    learner = Learner(Network.chain((6, 3)), Backprop(), {"forward": program}, {ANY: Sgd()})
    made = Subject("backprop", learner, starts(learner.params)[None], Imitation(), Conditions(EXACT, 3, 2), 1)
    assert known_as(nearest(made)) == "delta rule"


@pytest.mark.parametrize(
    "rule",
    [
        Terms(("error_pre", "subspace_oja", "total_post_error_pre", "constant")),
        Polynomial({"pre": 1, "post": 2, "weight": 1}),
        Expression(inputs=("pre", "post"), operators=("add", "div", "tanh", "max", "sign"), nodes=8),
        Expression(inputs=("error_pre",), memory=1, nodes=4, program={"m0": "0.9 * m0 + error_pre", "out": "m0"}),
    ],
    ids=["terms", "polynomial", "program", "memory"],
)
def test_equations_read_back_by_sympy_are_the_rule_to_the_last_digit(rule):
    made = of_rule(rule, credit=Backprop())
    said = written(made, made.theta[0])
    exact = expressions(made, made.theta[0])["forward"]
    assert [each.name for each in said] == list(exact)
    for each in said:
        back = sympy.sympify(each.sympy)
        symbols = sorted(exact[each.name].free_symbols, key=str)
        assert back.free_symbols == set(symbols)
        points = np.abs(np.random.default_rng(0).normal(size=(len(symbols), 20))) + 0.1
        ours, theirs = (sympy.lambdify(symbols, one, "numpy")(*points) for one in (exact[each.name], back))
        np.testing.assert_allclose(theirs, ours, rtol=1e-14)
        assert str(back) == each.sympy


def test_coefficients_hold_what_is_fixed_and_leave_out_what_is_switched_off():
    row = of_row("three_term")
    assert {each.name: each.raw for each in coefficients(row, row.theta[0])} == {
        name: ZOO["three_term"].values[f"rule.forward.{name}"]
        for name in ("error_pre", "error_pre_error", "subspace_oja")
    }
    switched = of_rule(Terms(("error_pre", "oja"), normalise=False, switches=True), (0.2, 0.3, 1.0, 0.0))
    assert [each.raw for each in coefficients(switched, switched.theta[0])] == [0.2, 0.0]


def written_run(path: Path, values: tuple[float, ...], seed: int = 0, generations: int = 2, **changes) -> Path:
    """A finished run's folder of two terms, one generation a value."""
    names = ("error_pre", "oja")
    search, _ = read(find("first_rule"), (f"outer.generations={generations}", f"search.seed={seed}"))
    table = json.loads(json.dumps(search.table())) | changes
    lines = [{"generation": k, "loss_mean": 1.0, "loss_best": 1.0, "scores": {}} for k in range(generations)]
    log = [line | {"theta": dict(zip((f"rule.{n}" for n in names), values, strict=True))} for line in lines]
    entries = [{"param": f"rule.{name}", "name": name, "log": False, "raw": 1.0, "unit": 0.5} for name in names]
    result = {
        **{"schema": 1, "name": path.name, "task": "t", "credit": "c", "outer": "o", "generations": generations},
        **{"equation": "dW = x", "latex": [], "theta": log[-1]["theta"], "battery": [], "structure": {}},
        "terms": [
            {"name": name, "raw": value, "normalised": 2 * value, "low": value, "high": value}
            for name, value in zip(names, values, strict=True)
        ],
        **{"differences": [], "tunings": {}, "trained_on": None, "tested_on": None, "front": []},
    }
    spec = {"schema": 1, "search": table, "parameters": entries, "objectives": ["held_out_loss"]}
    path.mkdir()
    (path / "spec.json").write_text(json.dumps(spec | {"versions": {"metarule": "0"}, "search_sha256": "f" * 64}))
    (path / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in log))
    (path / "result.json").write_text(json.dumps(result))
    (path / "search.toml").write_text(find("first_rule").read_text())
    return path


def test_coefficients_have_an_interval_over_the_seeds_of_one_search(tmp_path):
    for seed, value in enumerate((0.1, 0.2, 0.3)):
        written_run(tmp_path / f"x-seed{seed}", (value, -value), seed)
    written_run(tmp_path / "x-seed3", (9.0, 9.0), 3, generations=3)  # another budget: another search
    written_run(tmp_path / "x-seed3-2", (9.0, 9.0), 3)
    first = tmp_path / "x-seed0"
    assert [path.name for path in siblings(first)] == ["x-seed0", "x-seed1", "x-seed2"]
    found = over_seeds(first)["error_pre"]
    assert found["values"] == [0.2, 0.4, 0.6]
    assert found["mean"] == pytest.approx(0.4)
    assert found["low"] == pytest.approx(0.4 - 4.303 * 0.2 / 3**0.5, abs=1e-3)
    document = numbers.found(first)
    assert document["terms"][1]["seeds"]["values"] == [-0.2, -0.4, -0.6]
    assert document["provenance"]["seeds"] == {"x-seed0": 0, "x-seed1": 1, "x-seed2": 2}


def test_seeds_that_chose_other_programs_have_no_common_coefficient(tmp_path):
    for seed in (0, 1):
        path = written_run(tmp_path / f"x-seed{seed}", (0.1, 0.2), seed)
        result = json.loads((path / "result.json").read_text())
        result["theta"]["rule.node0.op"] = ("add", "mul")[seed]
        (path / "result.json").write_text(json.dumps(result))
    assert len(siblings(tmp_path / "x-seed0")) == 2
    assert over_seeds(tmp_path / "x-seed0") == {}


def test_a_kept_card_is_shown_with_its_own_rule_only(tmp_path, capsys):
    path = written_run(tmp_path / "x", (0.1, 0.2))
    before = numbers.found(path)
    assert (before["locality"], before["nearest"], before["identifiability"]) == (None, [], None)
    assert before["terms"][1]["known_as"] == "Oja"
    section = card(of_row("three_term")) | {"known_as": "a rule of the test"}
    theta = json.loads((path / "log.jsonl").read_text().splitlines()[-1])["theta"]
    (path / kept.FOLDER).mkdir()
    (path / kept.file_of("card")).write_text(json.dumps(jsonable(kept.written(theta, section)), sort_keys=True))
    document = numbers.found(path)
    assert document["known_as"] == "a rule of the test"
    assert document["terms"][0]["local"] is True
    from metarule.cli.output import show

    show(report(document, []))
    out = capsys.readouterr().out
    for part in ("Known as a rule of the test", "Layer-wide", "equivalent", "determined", "To find it again", "eHebb"):
        assert part in out
    show(report(before, []))
    assert "--probes" in capsys.readouterr().out
    older = jsonable(kept.written(theta, section)) | {"schema": 0}
    for other in (kept.written({"rule.oja": 5.0}, section), older):
        (path / kept.file_of("card")).write_text(json.dumps(other))
        assert numbers.found(path)["known_as"] is None


@pytest.mark.parametrize("given", [(), ("outer.generations=7", "rule.terms=['error_pre', 'oja']"), ("search.seed=3",)])
def test_the_command_of_a_run_is_its_search(tmp_path, given):
    text = find("first_rule").read_text()
    (tmp_path / "search.toml").write_text(text)
    search, _ = read(tmp_path / "search.toml", given)
    spec = {"search": search.table(), "command": ["metarule", "search", "first_rule", *given, "--workers", "2"]}
    _, _, file, *changed = shlex.split(command(tmp_path, spec))
    again, _ = read(Path(file), tuple(changed[: changed.index("--name")]))
    assert again.table() == search.table()


def test_an_extended_run_is_found_again_with_its_final_budget(tmp_path):
    (tmp_path / "search.toml").write_text(find("first_rule").read_text())
    search, _ = read(tmp_path / "search.toml", ("outer.generations=99",))
    said = command(tmp_path, {"search": search.table(), "command": ["metarule", "search", "first_rule"]})
    assert "outer.generations=99" in shlex.split(said)


@pytest.mark.parametrize("name", ZOO)
def test_a_learner_holds_as_many_weights_as_it_draws(name):
    learner = of_row(name).learner
    drawn = learner.init(learner.columns(starts(learner.params)[None]), address("weights"))["weights"]
    assert learner.weights_per_run == sum(weight[0].numel() for weight in drawn.values())


def test_a_row_that_needs_no_tuning_is_a_subject_with_a_card():
    made = subject("kolen_pollack")
    made = replace(made, conditions=replace(made.conditions, steps=2))
    found = card(made)
    assert found["known_as"] == "forward: delta rule; feedback: delta rule"
    assert found["identifiability"] is None
