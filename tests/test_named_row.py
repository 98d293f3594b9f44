"""`algorithm = "NAME"` in a search file: the row's parts and numbers, and what the file says over them."""

from __future__ import annotations

import pytest

from metarule.credit.predictive_coding import PredictiveCoding
from metarule.learner import ANY
from metarule.plugins import SpecError
from metarule.reading import overridden
from metarule.spec import from_table
from metarule.synapses.adam import Adam
from metarule.zoo import ZOO

every_row = pytest.mark.parametrize("name", ZOO)

PARTS = {"task": {"kind": "digits"}, "outer": {"kind": "cma_es"}}


def searched(name, *overrides):
    row = ZOO[name]
    table = {
        "algorithm": name,
        "task": {"kind": "digits"},
        "network": {"hidden": [5] * len((5, 4) if row.host.hidden is None else row.host.hidden)},
        "inner": {"batch": 4, "steps": 2},
        "outer": {"kind": "cma_es", "candidates": 4, "generations": 1},
    }
    return from_table(overridden(table, overrides))


def numbers(search):
    return {param.name: param.start for param in search.learner.params}


@every_row
def test_another_synapse_model_serves_the_forward_projections_and_all_other_numbers_stay(name):
    search = searched(name, "synapse.kind=momentum", "synapse.momentum=0.5")
    learner = search.learner
    served = {p.name for p in learner.plastic if p in learner.network.projections}
    if "forward" in ZOO[name].rules and "readout" in ZOO[name].synapses:
        served -= {p.name for p in learner.network.into("output")}
    assert {search.synapses[learner.synapse_key(p) or ANY].kind for p in learner.plastic if p.name in served} == {
        "momentum"
    }
    replaced = f"synapse.{'' if ANY in ZOO[name].synapses else 'forward.'}rate"
    stay = {
        key: value for key, value in ZOO[name].values.items() if key != replaced or ZOO[name].synapse.kind == "momentum"
    }
    assert numbers(search).items() >= stay.items()


def test_a_setting_of_the_rows_own_kind_keeps_its_numbers():
    search = searched("predictive_coding_strict", "credit.steps=3", "synapse.beta1=0.8")
    assert search.credit == PredictiveCoding("strict", steps=3)
    assert search.synapses == {ANY: Adam(beta1=0.8)}
    assert numbers(search)["synapse.rate"] == ZOO["predictive_coding_strict"].values["synapse.rate"]


def test_fewer_terms_keep_the_numbers_of_those_that_are_left():
    search = searched("three_term", "rule.terms=['error_pre']")
    assert numbers(search) == {"rule.forward.error_pre": 0.0122}


def test_another_kind_of_credit_drops_the_rules_of_projections_that_only_the_rows_kind_makes():
    search = searched("kolen_pollack", "credit.kind=backprop")
    assert (search.credit.kind, set(search.rules)) == ("backprop", {"forward"})


def test_what_the_file_says_of_the_start_or_holds_wins():
    search = searched("node_perturbation", "start.credit.sigma=0.02", "fixed.synapse.rate=0.01")
    assert numbers(search) == {"credit.sigma": 0.02}
    assert search.fixed == {"synapse.rate": 0.01}


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("backprob", (), "did you mean 'backprop'?"),
        ("node_perturbation", ("credit.sigma=0.1",), "start.credit.sigma"),
        ("node_perturbation", ("synapse.rate=0.1",), "start.synapse.rate"),
        ("node_perturbation", ("credit.sigmaa=0.1",), "credit"),
        ("difference_target_propagation", ("network.hidden=[]",), "at least one hidden layer"),
        ("backprop", ("rule.kind=delta", "rules.forward.kind=hebb"), "say the same thing twice"),
        ("backprop", ("synapse=3",), "must be a table"),
        ("backprop", ("start.synapse.rat=0.1",), "did you mean 'synapse.rate'?"),
        ("backprop", ("start.synapse.rate='fast'",), "must be a number"),
    ],
)
def test_a_mistake_says_what_was_given_and_what_would_do(name, overrides, said):
    with pytest.raises(SpecError) as caught:
        searched(name, *overrides) if name in ZOO else from_table({**PARTS, "algorithm": name})
    assert said in str(caught.value)


def test_an_algorithm_that_is_no_name_is_refused():
    with pytest.raises(SpecError, match="must be the name of a row"):
        from_table({**PARTS, "algorithm": 3})
