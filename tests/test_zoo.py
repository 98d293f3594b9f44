"""The zoo: one contract for every row, whatever its credit, rules and synapse models."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from building import Imitation, address, assert_states_close, flat, train

from metarule.acceptance import TRIALS
from metarule.inner import Runs
from metarule.learner import Learner
from metarule.loop import begun as started
from metarule.loop import engine_for, generations
from metarule.network import Network
from metarule.params import starts
from metarule.rules.linear import LinearRule
from metarule.rules.terms import Terms
from metarule.spec import Search, from_table
from metarule.synapses.sgd import Sgd
from metarule.terms import TERMS
from metarule.zoo import GROUPS, ZOO, algorithm

every_row = pytest.mark.parametrize("name", ZOO)

INPUTS, OUTPUTS, EVENTS = 6, 3, 3


def small(name: str) -> Network:
    """A small network of the kind that a row was proven on."""
    host = ZOO[name].host
    hidden = (5, 4) if host.hidden is None else (5,) * len(host.hidden)
    return replace(host, hidden=None).network(INPUTS, hidden, OUTPUTS, "softmax")


def begun(learner: Learner, runs: int = 2):
    """Columns, state and first batch of some runs."""
    noise = address(0, "episode", runs=runs)
    columns = learner.columns(starts(learner.params).expand(runs, -1))
    batch = Imitation(INPUTS, OUTPUTS).sample(noise.at("data"), EVENTS).train(0)
    return columns, learner.init(columns, noise), batch


@every_row
def test_a_row_has_a_source_a_summary_and_one_free_number_at_most(name):
    row = algorithm(name)
    assert row.source
    assert row.summary
    assert [param.name for param in row.learner(small(name)).params] == list(row.free)
    assert len(row.free) <= 1
    assert set(row.not_for) <= set(TRIALS)
    assert all(len(reason) > 20 for reason in row.not_for.values())


@every_row
def test_run_r_of_8_equals_run_r_alone(name):
    learner = ZOO[name].learner(small(name))
    theta = starts(learner.params).expand(4, -1) * torch.tensor([[0.5], [1.0], [1.1], [0.7]], dtype=torch.float64)
    together = train(learner, theta, 3, runs=Runs((0, 1, 2, 3), (5, 6)))
    assert together.carry is not None
    for r in (0, 3, 6):
        candidate, episode = divmod(r, 2)
        alone = train(learner, theta[candidate : candidate + 1], 3, runs=Runs((candidate,), (5 + episode,)))
        assert alone.carry is not None
        whole = {path: value[r : r + 1] for path, value in flat(together.carry).items()}
        assert_states_close(flat(alone.carry), whole, 1e-10)
        assert float(alone.loss[0, 0]) == pytest.approx(float(together.loss[candidate, episode]), rel=1e-10)


@every_row
def test_a_step_uses_no_autograd_and_moves_what_has_a_rule(name):
    learner = ZOO[name].learner(small(name))
    with torch.inference_mode():
        columns, state, batch = begun(learner)
        changes = learner.induced(columns, state, batch, 0, address("run", runs=2))
    assert set(changes) == {projection.name for projection in learner.plastic}
    assert all(bool(torch.isfinite(change).all()) for change in changes.values())
    forward = [changes[p.name] for p in learner.plastic if p in learner.network.projections]
    assert any(bool(change.abs().max() > 0) for change in forward)


@every_row
def test_a_linear_row_is_a_point_of_the_terms_family(name):
    """Every rule that is a list of terms is built anew from the vocabulary, and induces the same changes."""
    row = ZOO[name]
    own = row.searchable(small(name))
    rules, start = dict(row.rules), {n: v for n, v in row.values.items() if n.startswith("credit.")}
    for key, rule in row.rules.items():
        if not isinstance(rule, LinearRule):
            prefix = f"rule.{key}."
            start |= {n: v for n, v in row.values.items() if n.startswith(prefix)}
            continue
        names = tuple(term.name for term in rule.weighted)
        assert all(TERMS[term.name] == term for term in rule.weighted)
        rules[key] = Terms(names, normalise=False)
        numbers = [row.values.get(f"rule.{key}.{n}", 0.0) for n in names] if rule.params else [1.0] * len(names)
        start |= {f"rule.{key}.{n}": number for n, number in zip(names, numbers, strict=True)}
    assert any(isinstance(rule, LinearRule) for rule in row.rules.values())
    again = Learner(own.network, own.credit, rules, {key: Sgd() for key in rules}, start=start)
    found = []
    for learner in (own, again):
        columns, state, batch = begun(learner)
        found.append(learner.induced(columns, state, batch, 0, address("run", runs=2)))
    for projection, change in found[0].items():
        torch.testing.assert_close(found[1][projection], change, rtol=1e-10, atol=1e-12)


def searched(name: str) -> Search:
    """A short search over a row, from a file that names it."""
    host = ZOO[name].host
    return from_table(
        {
            "algorithm": name,
            "task": {"kind": "digits"},
            "network": {"hidden": [5] * len(host.hidden if host.hidden is not None else (5, 4))},
            "inner": {"batch": 4, "steps": 2},
            "outer": {"kind": "cma_es", "candidates": 4, "generations": 1},
        }
    )


@every_row
def test_a_row_can_be_named_in_a_search_file_searched_over_and_recorded(name):
    row, search = ZOO[name], searched(name)
    assert search.credit == row.credit
    assert search.rules == dict(row.rules)
    assert from_table(search.table()).table() == search.table()
    learner = search.learner
    assert {param.name: param.start for param in learner.params}.items() >= row.values.items()
    theta = starts(learner.params)[None]
    outcome = train(learner, theta, 2, search.task, batch=4, record=1)
    assert outcome.record is not None
    assert outcome.record.steps == (0, 1)
    recorded = {path for path in outcome.record.series if path.startswith("weights/")}
    assert recorded == {f"weights/{projection.name}" for projection in learner.projections}
    assert math.isfinite(float(outcome.loss))


@every_row
def test_an_outer_loop_asks_for_variants_of_a_row_and_hears_how_they_do(name):
    search = searched(name)
    outer = started(search)
    (generation,) = generations(search, outer, 0, engine_for(search))
    assert generation.loss.shape == (4, 1)
    assert not generation.loss.isnan().any()
    assert not generation.loss.isneginf().any()
    assert len(generation.loss.unique()) > 1
    assert torch.isfinite(generation.best).all()
    assert not torch.equal(generation.best, starts(search.learner.params))


def test_every_row_is_in_one_group():
    assert sum(map(len, GROUPS.values())) == len(ZOO)
