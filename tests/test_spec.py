"""Search files: every shipped one loads, and what is written down reads back as the same search."""

from __future__ import annotations

import json

import pytest

from metarule.plugins import SpecError
from metarule.reading import built, find, overridden, read, shipped
from metarule.spec import from_table

SEARCHES = shipped()
every_search = pytest.mark.parametrize("name", SEARCHES)


def plain(table):
    return json.loads(json.dumps(table))


def search_of(name):
    try:
        return read(SEARCHES[name])[0]
    except SpecError as error:
        if "mnist" in str(error):
            pytest.skip(f"MNIST is not here: {error}")
        raise


@every_search
def test_a_search_written_out_reads_back_as_the_same_search(name):
    table = plain(search_of(name).table())
    assert plain(from_table(table).table()) == table


@every_search
def test_the_columns_of_theta_do_not_depend_on_the_order_of_a_table(name):
    search = search_of(name)
    shuffled = json.loads(json.dumps(search.table(), sort_keys=True))
    assert from_table(shuffled).learner.params == search.learner.params


TABLE = {
    "task": {"kind": "few_shot"},
    "rule": {"kind": "polynomial", "degrees": {"pre": 1, "error": 1}},
    "outer": {"kind": "cma_es"},
}


def test_columns_keep_their_place_whatever_comes_first():
    one = {**TABLE, "rules": {"output": {"kind": "terms"}}, "credit": {"kind": "feedback_alignment"}}
    del one["rules"]["output"]
    one["rules"] = {"hidden1->hidden2": {"kind": "terms"}}
    other = {key: one[key] for key in reversed(one)}
    other["rule"] = {"kind": "polynomial", "degrees": {"error": 1, "pre": 1}}
    assert from_table(one).learner.params == from_table(other).learner.params


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("outer.kind=cma", "did you mean 'cma_es'?"),
        ("taks.ways=3", "did you mean 'task'?"),
        ("task.wayz=3", "did you mean 'ways'?"),
        ("task.ways=many", "task.ways = 'many' does not fit int"),
        ("rule.degrees={pree=1}", "did you mean 'pre'?"),
        ("outer.candidates=0", "outer.candidates = 0 must be at least 1"),
        ("outer.candidates=2", "at least 4"),
        ("inner.steps=1000", "more than the task's one online pass of 250 steps"),
        ("search.objective=['accuracyy']", "did you mean 'accuracy'?"),
        ("network.hidden=[0]", "size 0"),
        ("credit.kind=kolen_pollack", "add [rules.feedback]"),
        ("credit.kind=none", "credit.kind = 'none' does not give; kinds of credit that fit: "),
        ("fixed.rule.forward.error_pre=high", "must be a number"),
        ("fixed.rule.forward.eror=1.0", "did you mean 'rule.forward.error'?"),
        ("outer.sigma", "must read key=value"),
        ("task.kind.deep=1", "'kind' is a value, not a table"),
        ("network.softplus_beta=nan", "network.softplus_beta = nan must be a finite number"),
        ("network.softplus_beta=0.0", "network.softplus_beta = 0.0 must be positive"),
        ("outer.sigma=inf", "outer.sigma = inf must be a finite number"),
        ("rule.start={pre=-inf}", "rule.start.pre = -inf must be a finite number"),
        ("fixed.rule.forward.error_pre=nan", "fixed.rule.forward.error_pre = nan must be a finite number"),
        ("fixed.rule.forward.error_pre=1" + "0" * 400, "must be a finite number"),
        ("rules=5", "rules = 5 must be a table, as under [rules]"),
        ("synapses=7", "synapses = 7 must be a table"),
        ("fixed=5", "fixed = 5 must be a table"),
        ("outer=5", "outer = 5 must be a table"),
        ("rule.kind=[1]", "rule.kind = '[1]' is not one of"),
        ("plugins='mine.py'", "must be a list of paths"),
        ("plugins=[1]", "must be a list of paths"),
        ("task.ways=2020-01-01", "does not fit int"),
        ("network.populations=3", "must be a list of tables"),
        ("network.populations=[3]", "network.populations[0] = 3 must be a table"),
        ("network.populations=[{name='a'}]", "network.populations[0].size is missing"),
        ("network.populations=[{name='a', size='3'}]", "network.populations[0].size = '3' does not fit int"),
        ("network.populations=[{name='a', size=3, activaton='relu'}]", "did you mean 'activation'?"),
        ("network.projections=[{source='input', target='output'}]", "without network.populations"),
        ("network.projections=[{source='input', taget='output'}]", "did you mean 'target'?"),
    ],
)
def test_a_mistake_names_the_key_what_is_allowed_and_the_nearest_name(override, said):
    with pytest.raises(SpecError) as caught:
        from_table(overridden({**TABLE, "credit": {"kind": "feedback_alignment"}}, (override,)))
    assert said in str(caught.value)


def test_kolen_pollack_learns_its_feedback_by_a_rule_of_its_own():
    table = {**TABLE, "credit": {"kind": "kolen_pollack"}, "rules": {"feedback": {"kind": "delta"}}}
    with pytest.raises(SpecError, match=r"give the latter a synapse model of its own"):
        from_table(table)
    table["synapses"] = {"feedback": {"kind": "sgd"}}
    assert "synapse.feedback.rate" in [param.name for param in from_table(table).learner.params]


def test_a_graph_with_skips_and_branches_is_a_network():
    populations = [{"name": "left", "size": 6}, {"name": "right", "size": 4, "activation": "relu"}]
    ends = [("input", "left"), ("input", "right"), ("left", "output"), ("right", "output"), ("input", "output")]
    network = {"populations": populations, "projections": [{"source": a, "target": b} for a, b in ends]}
    search = from_table({**TABLE, "credit": {"kind": "backprop"}, "network": network})
    assert [projection.name for projection in search.learner.network.projections] == [f"{a}->{b}" for a, b in ends]


def test_a_graph_written_out_reads_back_as_the_same_graph():
    network = {
        "populations": [{"name": "a", "size": 3}],
        "projections": [{"source": "input", "target": "a"}, {"source": "a", "target": "output", "bias": True}],
    }
    search = from_table({**TABLE, "credit": {"kind": "backprop"}, "network": network})
    again = from_table(plain(search.table()))
    assert again.learner.network == search.learner.network
    assert [projection.bias for projection in again.learner.network.projections] == [False, True]


@pytest.mark.parametrize(
    ("overrides", "left_out"),
    [
        (("outer.kind=meta_gradient", "outer.candidates=1"), []),
        (("outer.kind=optuna",), ["outer.sigma"]),
        (("rule.kind=polynomial",), ["rule.terms"]),
        (("outer.kind=cma_es",), []),
    ],
)
def test_another_kind_drops_the_keys_that_only_the_old_one_has_and_says_so(overrides, left_out):
    said: list[str] = []
    search, _ = read(find("first_rule"), overrides, said.append)
    assert [line.partition(" = ")[0] for line in said] == left_out
    assert search.budget.generations == 30


def test_a_key_given_with_another_kind_is_never_dropped():
    with pytest.raises(SpecError, match="a key of outer = 'sigma'"):
        read(find("first_rule"), ("outer.kind=optuna", "outer.sigma=0.1"))


def test_plugins_on_the_command_line_start_at_the_current_folder_and_those_of_a_file_at_its_own(tmp_path, monkeypatch):
    rule = """
from dataclasses import dataclass
from metarule.rules.textbook import Delta
@dataclass(frozen=True)
class Named(Delta):
    kind = "{}"
"""
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(rule.format(f"of_{folder}"))
    monkeypatch.chdir(tmp_path / "here")
    table = {**TABLE, "credit": {"kind": "backprop"}, "rule": {"kind": "of_there"}, "plugins": ["mine.py"]}
    assert built(table, (), tmp_path / "there").plugins == (str(tmp_path / "there" / "mine.py"),)
    given = ("plugins=['mine.py']", "rule.kind=of_here")
    assert built(table, given, tmp_path / "there").plugins == (str(tmp_path / "here" / "mine.py"),)
