"""The analysis of alignment: angles are 0 where feedback weights are the forward ones, and rows may be orthonormal."""

from __future__ import annotations

from pathlib import Path

import torch
from building import address

from metarule.collect import load_file
from metarule.credit.backprop import Backprop
from metarule.credit.feedback import feedback_name
from metarule.reading import find, read

analysis = load_file(Path(__file__).parent.parent / "analysis" / "alignment.py")

SMALL = ("task.images=digits", "task.ways=2", "task.shots=3", "task.queries=2", "network.hidden=[12, 10, 8]")


def small():
    return read(find(analysis.SEARCH), SMALL)[0]


def test_feedback_through_the_transposed_weights_is_what_backprop_says():
    learner = analysis.learner_of(small(), ("error_pre",))
    noise = address("alignment", runs=2)
    state = learner.init(learner.columns(torch.zeros(2, 0, dtype=torch.float64)), noise)
    batch = small().task.sample(noise, 6).train(0)
    own, theirs = (analysis.heard(learner, credit, state, batch) for credit in (learner.credit, Backprop()))
    assert all((one - other).abs().max() > 1e-3 for one, other in zip(own, theirs, strict=True))
    for projection in learner.network.projections:
        state["weights"][feedback_name(projection)] = state["weights"][projection.name].transpose(1, 2)
    for one, other in zip(analysis.heard(learner, learner.credit, state, batch), theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_rows_of_a_rotation_are_orthonormal_and_of_a_doubled_one_three_away():
    rows = address("rows").orthonormal(3, 5)
    torch.testing.assert_close(analysis.orthonormality(rows), torch.zeros(1, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(analysis.orthonormality(2 * rows), torch.full((1,), 3.0, dtype=torch.float64))


def test_it_measures_one_number_per_layer_and_episode():
    found = analysis.measured(small(), analysis.RULES["all three terms"], 2)
    assert [len(layer) for layer in found.angles] == [2, 2, 2]
    assert all(0 < angle < 180 for layer in found.angles for angle in layer)
    assert len(found.orthonormality) == len(found.accuracy) == 2
