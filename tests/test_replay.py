"""Replay: a rule explains the recordings that it made, whatever its step size, and says why it cannot be replayed."""

from __future__ import annotations

import functools
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from metarule.identification.degrading import Degradation, degraded
from metarule.identification.moments import MOST, moments
from metarule.identification.record import record
from metarule.identification.recording import Recording, RecordingError, load
from metarule.identification.reference import REFERENCE, equivalence_class
from metarule.identification.replay import replay
from metarule.identification.simulation import Simulation, simulated
from metarule.network import Network
from metarule.tasks.digits import Digits
from metarule.zoo import ZOO

REPLAYED = {
    "backprop", "momentum", "adam", "feedback_alignment", "direct_feedback_alignment",
    "direct_random_target_projection", "sign_symmetry", "predictive_coding", "oja",
}  # fmt: skip
WHY = {
    "kolen_pollack": "feedback weights were not recorded",
    "node_perturbation": "explores with noise",
    "weight_perturbation": "explores with noise",
    "drift": "explores with noise",
    "bcm": "its rule has a hidden state",
    "reinforce": "its credit assignment has a hidden state",
    "difference_target_propagation": "synapses of different kinds",
}
EXACT = 5e-3
"""What a rule may leave of its own changes: float32 in all, and feedback weights that few updates show."""


@functools.cache
def made(rule: str, hidden: tuple[int, ...] = (24, 24), activation: str = "tanh") -> Recording:
    simulation = Simulation(
        (rule,), ("digits",), (hidden,), (activation,), blocks=1, runs=1, seed=3, batch=(16,), init_scale=(1.0,)
    )
    (recording,) = simulated(simulation.jobs()[0])
    return recording


def of(replays, rule):
    return next(row for row in replays.rows if row.rule == rule)


@pytest.mark.parametrize("rule", sorted(REFERENCE))
def test_a_rule_explains_its_own_recording_or_cannot_be_replayed_and_says_why(rule):
    replays = replay(made(rule))
    assert {row.rule for row in replays.rows} == REPLAYED
    assert {*replays.switched_off} == {*REFERENCE} - REPLAYED
    explaining = {row.rule for row in replays.rows if row.says == "explains"}
    if rule in REPLAYED:
        own = of(replays, rule)
        assert 1 - own.weakest < EXACT
        assert replays.rows[0].explained - own.explained < EXACT
        assert rule in explaining or rule in ("feedback_alignment", "direct_feedback_alignment")
    assert explaining <= {rule}  # two hidden layers: no declared equivalence
    for name, reason in WHY.items():
        assert reason in replays.switched_off[name]


def test_with_one_hidden_layer_the_declared_equivalents_explain_each_other():
    replays = replay(made("feedback_alignment", (24,)))
    same = equivalence_class("feedback_alignment", 1)
    assert {row.rule for row in replays.rows if row.says == "explains"} == {*same}
    first, second = (of(replays, name) for name in same)
    assert first.explained == pytest.approx(second.explained, abs=1e-12)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_recording_is_replayed_alike_from_memory_and_from_a_file(suffix, tmp_path):
    recording = made("feedback_alignment")
    whole, read = replay(recording), replay(load(recording.save(tmp_path / f"recording{suffix}")))
    assert read.switched_off == whole.switched_off
    for row in whole.rows:
        assert of(read, row.rule).explained == pytest.approx(row.explained, abs=1e-6)
        assert of(read, row.rule).says == row.says


def test_the_step_size_and_the_momentum_come_back():
    recording = record("sign_symmetry", Digits(), (12, 8), 7, 8)
    rate = ZOO["sign_symmetry"].learner(Network.chain((64, 12, 8, 10), bias=True)).params[0].start
    found = of(replay(recording), "sign_symmetry")
    assert found.scale == pytest.approx(rate, rel=1e-6)
    assert found.scale_low <= found.scale <= found.scale_high
    recording = made("momentum")
    found = of(replay(recording), "momentum")
    assert found.detail["momentum"] == pytest.approx(0.9, abs=1e-3)
    assert found.scale == pytest.approx(recording.meta["rate"], rel=1e-3)


def test_adam_is_followed_from_the_first_update_on_and_from_no_other():
    recording = made("adam")
    assert of(replay(recording), "adam").updates == 2
    later = replace(recording, time=recording.time + 5)
    assert "does not begin with the first" in replay(later).switched_off["adam"]


@pytest.mark.parametrize("noise", [0.1, 0.5])
@pytest.mark.parametrize("rule", ["backprop", "sign_symmetry", "predictive_coding", "oja"])
def test_noise_of_the_weights_is_not_held_against_a_rule(rule, noise):
    noisy = degraded(made(rule), Degradation(weight_noise=noise), np.random.default_rng(0))
    replays = replay(noisy)
    own = of(replays, rule)
    assert replays.rows[0].rule == rule
    # two snapshots' noise, noise^2 each, beside a change of 1
    assert replays.noise == pytest.approx(2 * noise**2 / (1 + 2 * noise**2), rel=0.15)
    assert own.explained > 1 - 2 * replays.tolerance
    assert own.says != "excluded"
    assert replays.tolerance > replay(made(rule)).tolerance


def test_where_noise_is_nearly_everything_replay_says_nothing():
    noisy = degraded(made("backprop"), Degradation(weight_noise=3.0), np.random.default_rng(0))
    assert {row.says for row in replay(noisy).rows} == {"open"}


def test_a_readout_that_learns_most_does_not_speak_for_the_hidden_layer():
    # hidden weights wander by a tenth of what the readout, which backprop trains, learns in an update
    recording = made("backprop", (24,))
    hidden, readout = recording.weights.values()
    step = 0.1 * np.linalg.norm(np.diff(readout[:2], axis=0)) / np.sqrt(hidden[0].size)
    walk = np.cumsum(np.random.default_rng(0).normal(size=hidden.shape), axis=0) * step
    wandering = {**recording.weights, "input->hidden1": hidden[:1] + walk}
    still = {name: np.repeat(array[:1], len(array), axis=0) for name, array in recording.bias.items()}
    found = of(replay(replace(recording, weights=wandering, bias=still, activity={})), "backprop")
    assert found.explained > 0.7 > 0.1 > found.weakest
    assert found.says == "excluded"


def test_weight_decay_is_found_beside_a_gradient():
    torch.manual_seed(0)
    recording = decayed(0.3)
    found = of(replay(recording), "backprop")
    assert found.says == "explains"
    assert found.detail["decay"] == pytest.approx(0.1 * 0.3, rel=1e-3)
    assert "decay" not in of(replay(decayed(0.0)), "backprop").detail


def decayed(strength: float) -> Recording:
    """A softmax regression with weight decay, by torch.optim."""
    import metarule as mr

    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=strength)
    recorder = mr.Recorder(model, every=3)
    for _ in range(12):
        x, y = torch.randn(8, 6), torch.randint(3, (8,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        recorder.snapshot(x, y)
    return recorder.recording


def test_what_is_missing_is_said_of_every_rule():
    recording = made("backprop")
    weightless = degraded(recording, Degradation(weights=False), np.random.default_rng(0))
    partly = degraded(recording, Degradation(fraction=0.5), np.random.default_rng(0))
    coarse = replace(recording, meta={**recording.meta, "updates_per_snapshot": 2})
    cases = {
        "/weights were not recorded": weightless,
        "/weights of 24 units are missing": partly,
        "no two snapshots are one update apart": coarse,
        "/input is missing": replace(recording, input=None),
    }
    for reason, poorer in cases.items():
        replays = replay(poorer)
        assert replays.rows == ()
        assert {*replays.switched_off} == {*REFERENCE}
        assert all(reason in said for said in replays.switched_off.values())
        with pytest.raises(RecordingError, match=reason):
            moments(poorer)


def test_without_targets_what_depends_on_them_is_off():
    replays = replay(replace(made("backprop"), target=None))
    assert "needs targets" in replays.switched_off["backprop"]
    assert "/target is missing" in replays.switched_off["feedback_alignment"]


def test_weights_that_change_between_bursts_only_are_said():
    recording = made("backprop")
    still = {edge: np.repeat(array[:1], len(array), axis=0) for edge, array in recording.weights.items()}
    drifting = {name: 0 * array + recording.time[:, None] // 20 for name, array in recording.bias.items()}
    replays = replay(replace(recording, weights=still, bias=drifting))
    assert {*replays.switched_off.values()} == {"/weights: they do not change from one update to the next"}


def test_a_long_recording_is_replayed_at_pieces_evenly_chosen():
    recording = record("backprop", Digits(), (12,), 200, 8)
    seen = moments(recording)
    assert len(seen.times) <= MOST + 3
    assert seen.times[0] == 0
    assert seen.times[-1] > 180
    assert all(count <= 3 for count in np.bincount(seen.piece))
    assert of(replay(recording), "backprop").weakest == pytest.approx(1, abs=1e-9)


def test_a_network_for_mnist_is_replayed_in_seconds():
    generator = np.random.default_rng(0)
    times = np.concatenate([np.arange(3) + first for first in range(0, 140, 20)])
    shape = {"input->hidden1": (21, 128, 784), "hidden1->output": (21, 10, 128)}
    target = np.eye(10)[generator.integers(10, size=(21, 16))]
    recording = Recording(
        times.astype(float),
        {edge: generator.normal(size=size) * 0.05 for edge, size in shape.items()},
        input=generator.random((21, 16, 784)),
        target=target,
    )
    began = time.perf_counter()
    assert len(replay(recording).rows) == len(REPLAYED)
    assert time.perf_counter() - began < 10
