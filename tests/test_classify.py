"""Classify: a user's own PyTorch model, recorded by three added lines, and files, have their rule named or rejected."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import metarule as mr
from metarule.identification.recording import Recording, RecordingError
from metarule.identification.simulation import Simulation, simulated
from metarule.identification.verdict import GAP
from metarule.tasks.digits import Digits

KEYS = {
    "verdict", "label", "family", "equivalence_class", "probabilities", "prediction_set", "novelty_p", "replay",
    "equation", "domain", "used", "warnings", "would_help", "provenance",
}  # fmt: skip


@pytest.fixture(scope="module")
def own():
    """The script that trains a user's networks, by torch alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(Path(__file__).parent.parent / "analysis")
        yield importlib.import_module("own_networks")


@pytest.mark.parametrize("hidden", [(48,), (48, 32)])
@pytest.mark.parametrize("label", ["backprop", "momentum", "adam"])
def test_the_optimizer_of_a_users_own_model_is_identified(own, label, hidden):
    verdict = mr.classify(own.trained(own.KNOWN[label], hidden), equation=False)
    assert (verdict.verdict, verdict.label) == ("identified", label)
    assert verdict.replay[0]["rule"] == label
    assert verdict.replay[0]["explained"] > 0.999


def test_three_lines_are_all_that_is_added(own):
    loop = inspect.getsource(own.trained)
    assert loop.count("# added") == 2  # and mr.classify(recorder)
    assert sum("recorder" in line.partition("#")[0] for line in loop.splitlines()) == 3


@pytest.mark.parametrize("hidden", [(48,), (48, 32)])
@pytest.mark.parametrize("direct", [False, True])
def test_feedback_alignment_written_by_other_means_is_identified(own, direct, hidden):
    label = "direct_feedback_alignment" if direct else "feedback_alignment"
    verdict = mr.classify(own.aligned(hidden, direct), equation=False)
    assert verdict.verdict == "identified"
    assert label in verdict.equivalence_class
    assert len(verdict.equivalence_class) == (2 if len(hidden) == 1 else 1)


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "Adadelta", "Adamax", "Rprop", "Nesterov"])
def test_an_optimizer_that_the_bank_does_not_know_is_unknown(own, name):
    verdict = mr.classify(own.trained(own.FOREIGN[name], (48,)), equation=False)
    assert (verdict.verdict, verdict.label, verdict.family) == ("unknown", "unknown", None)


@functools.cache
def recorded(rule: str, width: int = 32) -> Recording:
    return simulated(Simulation((rule,), ("digits",), ((width,),), blocks=1, runs=1, seed=7).jobs()[0])[0]


def test_the_document_has_everything_and_is_json():
    table = mr.classify(recorded("oja")).table()
    assert {*table} >= KEYS
    again = json.loads(json.dumps(table, allow_nan=False))
    assert again["label"] == "oja"
    assert again["family"] == "unsupervised"
    assert sum(again["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert again["summary"].endswith(GAP)
    assert "post" in again["equation"]["text"]
    assert again["provenance"]["bank_sha256"]
    assert all(entry["inside"] for entry in again["domain"].values())


@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_a_smaller_alpha_makes_no_smaller_set(alpha):
    found = mr.classify(recorded("bcm"), alpha=alpha, equation=False)
    wide = mr.classify(recorded("bcm"), alpha=0.001, equation=False)
    assert {*found.prediction_set} <= {*wide.prediction_set}
    with pytest.raises(ValueError, match=r"alpha = 1.5 must lie between 0 and 1"):
        mr.classify(recorded("bcm"), alpha=1.5)


def test_what_is_missing_switches_witnesses_off_and_would_help():
    recording = recorded("backprop")
    unprobed = {name: value for name, value in recording.meta.items() if name != "probes"}
    verdict = mr.classify(replace(recording, input=None, target=None, activity={}, meta=unprobed))
    assert verdict.verdict == "insufficient"
    assert {*verdict.used["switched_off"]} >= {"discriminative", "replay", "equation"}
    assert any("inputs of every recorded update" in said for said in verdict.would_help)
    assert verdict.equation is None
    kept = np.array([0, 3, 6, 9, 12])
    coarse = replace(
        recording,
        time=recording.time[kept],
        weights={edge: array[kept] for edge, array in recording.weights.items()},
        bias={name: array[kept] for name, array in recording.bias.items()},
        activity={},
        input=None if recording.input is None else recording.input[kept],
        target=None if recording.target is None else recording.target[kept],
    )
    verdict = mr.classify(coarse)
    assert verdict.verdict == "insufficient"
    assert "no two snapshots are one update apart" in verdict.summary
    assert any("mr.Recorder" in said for said in verdict.would_help)


@pytest.mark.parametrize("rule", ["sign_symmetry", "node_perturbation", "backprop"])
def test_without_targets_nothing_is_guessed(rule):
    unprobed = replace(recorded(rule), target=None)
    verdict = mr.classify(unprobed, equation=False)
    assert verdict.verdict == "insufficient"
    assert "/target is missing" in verdict.used["switched_off"]["discriminative"]
    assert any("targets of every recorded update" in said for said in verdict.would_help)


def test_an_equation_is_said_where_no_rule_of_the_bank_is_named():
    # Oja's rule at the readout too: no class of the bank
    verdict = mr.classify(mr.record("oja", Digits(), (12,), 20))
    assert verdict.verdict == "unknown"
    assert "Its equation is exact all the same" in verdict.summary
    assert verdict.equation is not None
    assert verdict.equation["says"]["oja"] == "contradicts"
    assert verdict.equation["text"].count("post pre - ") == 2


@pytest.mark.parametrize(("rule", "says"), [("oja", "oja"), ("backprop", "backprop")])
def test_an_exact_equation_supports_its_rule_and_contradicts_the_others(rule, says):
    equation = mr.classify(recorded(rule)).equation
    assert equation is not None
    assert equation["says"][says] == "supports"
    assert equation["says"]["direct_random_target_projection"] == "contradicts"


def test_without_a_hidden_layer_all_error_driven_rules_are_one(own):
    verdict = mr.classify(own.trained(own.KNOWN["backprop"], ()), equation=False)
    assert verdict.verdict == "identified"
    assert "backprop" in verdict.equivalence_class
    assert verdict.domain["depth"]["inside"] is False


def test_a_layer_that_is_held_speaks_for_no_rule():
    recording = recorded("backprop")
    held = {**recording.weights, "input->hidden1": np.repeat(recording.weights["input->hidden1"][:1], 21, axis=0)}
    bias = {**recording.bias, "hidden1": np.repeat(recording.bias["hidden1"][:1], 21, axis=0)}
    verdict = mr.classify(replace(recording, weights=held, bias=bias, activity={}), equation=False)
    assert verdict.verdict != "identified"
    assert any("input->hidden1: these weights never change" in said for said in verdict.warnings)


def test_what_was_not_seen_for_a_while_or_of_a_unit_costs_no_more_than_that():
    recording = recorded("backprop")
    edge = "hidden1->output"
    gap = recording.weights[edge].astype(float)
    gap[4] = np.nan
    verdict = mr.classify(replace(recording, weights={**recording.weights, edge: gap}), equation=False)
    assert verdict.label == "backprop"
    assert verdict.used["single_updates"] == 12
    for unit in (0, 9):
        weights, activity = recording.weights[edge].astype(float), recording.activity["output"].astype(float)
        weights[:, unit], activity[:, :, unit] = np.nan, np.nan
        bias = {**recording.bias, "output": recording.bias["output"].astype(float)}
        bias["output"][:, unit] = np.nan
        blind = replace(
            recording, weights={**recording.weights, edge: weights}, bias=bias,
            activity={**recording.activity, "output": activity},
        )  # fmt: skip
        assert mr.classify(blind, equation=False).prediction_set[:1] == ("backprop",), unit


def test_one_update_is_too_few():
    recording = recorded("backprop").at(np.array([0, 1]))
    verdict = mr.classify(recording, equation=False)
    assert verdict.verdict == "insufficient"
    assert "1 single updates, and 3 are needed" in verdict.summary


def test_a_network_with_a_skip_has_its_rules_replayed_and_no_more():
    recording = recorded("backprop")
    generator = np.random.default_rng(0)
    skip = {"input->output": generator.normal(size=(21, 10, 64)) * 0.01}
    verdict = mr.classify(replace(recording, weights={**recording.weights, **skip}, activity={}))
    assert verdict.equation is None
    assert "is no chain of layers" in verdict.used["switched_off"]["discriminative"]
    assert verdict.verdict == "insufficient"


def test_activity_alone_is_answered_by_trees_and_equation():
    recording = recorded("oja")
    alone = replace(recording, weights={}, bias={})
    verdict = mr.classify(alone, equation=False)
    assert verdict.replay == ()
    assert verdict.verdict in ("identified", "ambiguous")
    assert "oja" in verdict.prediction_set
    assert any("inferred from activity" in said for said in verdict.warnings)


def test_outside_of_the_bank_is_said():
    verdict = mr.classify(recorded("backprop", width=700), equation=False)
    assert verdict.domain["width"]["inside"] is False
    assert any("outside the bank's calibration domain" in said for said in verdict.warnings)
    assert "outside the bank's range in width" in verdict.summary


def test_snapshots_that_follow_their_update_are_the_same_recording_one_later():
    recording = recorded("backprop")
    assert recording.input is not None
    assert recording.target is not None
    after = replace(
        recording,
        input=np.concatenate((recording.input[:1], recording.input[:-1])),
        target=np.concatenate((recording.target[:1], recording.target[:-1])),
        meta={**recording.meta, "snapshot": "after"},
    )
    own, moved = (mr.classify(each, equation=False) for each in (replace(recording, activity={}), after))
    assert moved.replay == own.replay
    assert moved.probabilities == pytest.approx(own.probabilities, abs=1e-9)
    wrong = mr.classify(replace(after, activity={}, meta=recording.meta), equation=False)
    assert wrong.replay != own.replay


def test_the_command_says_what_was_found_and_exits_0(metarule, tmp_path):
    path = recorded("sign_symmetry").save(tmp_path / "it.h5")
    code, out, err = metarule("classify", path)
    assert (code, err) == (0, "")
    for said in ("Identified: sign_symmetry", "Discriminative", "Replay", "Domain", "Used: 21 snapshots", "dW["):
        assert said in out
    code, out, _ = metarule("classify", path, "--json", "--alpha", "0.2", "--no-equation")
    found = json.loads(out)
    assert code == 0
    assert (found["label"], found["equation"], found["provenance"]["alpha"]) == ("sign_symmetry", None, 0.2)


def test_what_a_verdict_does_not_need_is_not_imported(tmp_path):
    path = recorded("sign_symmetry").save(tmp_path / "it.npz")
    heavy = "{'sklearn', 'matplotlib', 'pandas', 'scipy.stats', 'cmaes'}"
    script = f"import sys; sys.argv = ['metarule', 'classify', {str(path)!r}, '--json', '--no-equation']\n"
    script += "from metarule.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    script += f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "sign_symmetry"


def test_a_wrong_bank_is_said(metarule, tmp_path):
    path = recorded("sign_symmetry").save(tmp_path / "it.npz")
    code, _, err = metarule("classify", path, "--bank", path)
    assert code == 2
    assert "is no bank" in err
    with pytest.raises(RecordingError, match="is no bank"):
        mr.classify(path, bank=tmp_path / "missing.npz")


@pytest.mark.parametrize(("equation", "limit"), [(False, 10), (True, 60)])
def test_a_network_for_mnist_with_21_snapshots_is_classified_in_time(tmp_path, equation, limit):
    generator = np.random.default_rng(0)
    times = np.concatenate([np.arange(3) + first for first in range(0, 140, 20)])
    x, y = generator.random((21, 16, 784)), np.eye(10)[generator.integers(10, size=(21, 16))]
    hidden, readout = generator.normal(size=(128, 784)) * 0.05, generator.normal(size=(10, 128)) * 0.1
    series = [], []
    for u in range(21):
        for whole, weight in zip(series, (hidden, readout), strict=True):
            whole.append(weight)
        rate = np.tanh(x[u] @ hidden.T)
        drive = rate @ readout.T
        raised = np.exp(drive - drive.max(axis=1, keepdims=True))
        error = y[u] - raised / raised.sum(axis=1, keepdims=True)
        hidden = hidden + 0.05 * ((error @ readout) * (1 - rate**2)).T @ x[u] / 16
        readout = readout + 0.05 * error.T @ rate / 16
    meta = {"nonlinearity": "tanh", "output": "softmax"}
    weights = {"input->hidden1": np.stack(series[0]), "hidden1->output": np.stack(series[1])}
    path = Recording(times.astype(float), weights, input=x, target=y, meta=meta).save(tmp_path / "mnist.npz")
    command = [sys.executable, "-m", "metarule", "classify", str(path), "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, *([] if equation else ["--no-equation"])], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # seconds of one core, whatever else runs beside the test
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = json.loads(done.stdout)
    assert found["replay"][0]["rule"] == "backprop"
    assert (found["equation"] is not None) == equation
    assert took < limit
