"""Simulated recordings: what is drawn and shown, what does not tell the rule, their degradation, their observables."""

from __future__ import annotations

import functools
import itertools
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from metarule.identification import simulation as simulations
from metarule.identification.degrading import Degradation, degraded, drawn
from metarule.identification.observables import columns, first_snapshot, matrix, observables, white
from metarule.identification.recording import Recording, load
from metarule.identification.reference import REFERENCE
from metarule.identification.replay import replay
from metarule.identification.simulation import Job, Simulation, read, recordings, simulated
from metarule.identification.updates import single_updates
from metarule.network import Network
from metarule.plugins import SpecError
from metarule.reading import shipped_folder

TINY = Simulation(
    ("backprop",), ("digits",), ((8,),), init_scale=(1.0,), batch=(8,), blocks=1, runs=2, updates=20, bursts=2,
    burst=3, probes=4, taught=10,
)  # fmt: skip

TOML = """
[simulation]
rules = ["backprop", "oja"]
tasks = ["digits"]
hidden = [[6]]
init_scale = [1.0]
batch = [4]
displacement = [0.01, 0.1]
taught = 2
blocks = 1
runs = 2
updates = 4
bursts = 2
burst = 2
probes = 2
observed = 0.5
weight_noise = 0.1
activity_noise = 0.01
"""


@functools.cache
def made(simulation: Simulation = TINY) -> tuple[Recording, ...]:
    return tuple(recordings(simulation))


@functools.cache
def long() -> Recording:
    """Seven bursts of three snapshots with many stimuli, two hidden layers."""
    settings = {"hidden": ((8, 8),), "tasks": ("teacher",), "bursts": 7, "probes": 150, "displacement": (0.1, 0.1)}
    return made(replace(TINY, updates=60, runs=1, **settings))[0]


def moved(recording: Recording) -> float:
    """|W(20) - W(0)| / |W(0)|, weights of always-on units included."""
    (place,) = np.flatnonzero(recording.time == simulations.TRIAL)
    arrays = [*recording.weights.values(), *recording.bias.values()]
    change = sum(np.square(array[place] - array[0]).sum() for array in arrays)
    return float(np.sqrt(change / sum(np.square(array[0]).sum() for array in arrays)))


def start(recording: Recording) -> np.ndarray:
    return np.concatenate([array[0].ravel() for array in recording.weights.values()])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rules": ("backpop",)}, "simulation.rules = 'backpop' is not one of .*; did you mean 'backprop'"),
        ({"tasks": ("digit",)}, "simulation.tasks = 'digit' is not one of .*; did you mean 'digits'"),
        ({"activation": ("tan",)}, "simulation.activation = 'tan' is not one of .*; did you mean 'tanh'"),
        *[
            ({name: ()}, f"simulation.{name} is empty; name at least one")
            for name in ("rules", "tasks", "hidden", "activation", "init_scale", "batch")
        ],
        ({"batch": (8, 0)}, r"simulation.batch = \[8, 0\] must be at least 1 each"),
        ({"displacement": (0.3, 0.1)}, r"displacement = \[0.3, 0.1\] must be two rising positive numbers"),
        ({"displacement": (0.0, 0.1)}, "must be two rising positive numbers"),
        *[({name: 0}, f"simulation.{name} = 0 must be at least 1") for name in ("blocks", "runs", "bursts", "updates")],
        ({"taught": -1}, "simulation.taught = -1 must be at least 0: updates before the rule takes over"),
        ({"probes": -1}, "simulation.probes = -1 must be at least 0: stimuli of every snapshot"),
        ({"burst": 1}, "simulation.burst = 1 must be at least 2: one update lies between two"),
        ({"updates": 17, "bursts": 7, "burst": 3}, "updates = 17 leaves no room for 7 bursts of 3; raise it"),
    ],
)
def test_what_cannot_be_simulated_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(TINY, **settings)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[simulation\n", "is not valid TOML"),
        ("", r"must hold the one table \[simulation\]; it is missing"),
        ("[simulation]\n[network]\nhidden = [3]\n", r"must hold the one table \[simulation\]; found network"),
        ("[simulation]\nrule = ['adam']\n", "did you mean 'rules'"),
        ("[simulation]\nrules = ['adm']\n", "did you mean 'adam'"),
        ("[simulation]\nhidden = [24]\n", r"simulation.hidden = \[24\] does not fit"),
        ("[simulation]\nblocks = 1.5\n", "simulation.blocks = 1.5 does not fit int"),
        ("[simulation]\ndisplacement = [0.1, inf]\n", "must be a finite number"),
        ("[simulation]\nburst = 1\n", "must be at least 2"),
    ],
)
def test_a_file_that_is_no_simulation_is_refused(tmp_path, text, sentence):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=sentence):
        read(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"cannot read .*none\.toml"):
        read(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match=r"cannot read .*bytes\.toml"):
        read(tmp_path / "bytes.toml")


def test_every_file_that_comes_with_metarule_says_all_that_it_simulates():
    found = {path.stem: read(path) for path in sorted((shipped_folder() / "simulations").glob("*.toml"))}
    assert {"bank", "wide", "test"} <= {*found}
    # networks of one are never those of another
    assert len({simulation.seed for simulation in found.values()}) == len(found)
    for simulation in found.values():
        assert len(simulation.jobs()) * simulation.runs == simulation.networks
        assert len({*simulation.jobs()}) == len(simulation.jobs())


def test_a_file_becomes_the_simulation_that_it_describes(tmp_path):
    (tmp_path / "mine.toml").write_text(TOML)
    simulation = read(tmp_path / "mine.toml")
    assert (simulation.rules, simulation.hidden, simulation.displacement) == (("backprop", "oja"), ((6,),), (0.01, 0.1))
    given = {field.name for field in fields(Simulation)} - {"activation", "seed", "own_rates"}
    assert all(getattr(simulation, name) != getattr(Simulation(), name) for name in given)


@pytest.mark.parametrize("rule", sorted(REFERENCE))
def test_every_class_of_the_reference_learns_and_is_recorded(rule):
    simulation = replace(TINY, rules=(rule,), hidden=((8, 8),))
    found = made(simulation)
    assert len(found) == simulation.networks == 2
    for recording in found:
        assert recording.meta["label"] == rule
        assert {*recording.weights} == {"input->hidden1", "hidden1->hidden2", "hidden2->output"}
        assert [*recording.structure.sizes.values()] == [64, 8, 8, 10]
        assert all(np.isfinite(array).all() for array in (*recording.weights.values(), *recording.activity.values()))
        # all hidden weights change in every single update
        assert all(np.any(np.diff(array, axis=0)[recording.singles] != 0) for array in recording.weights.values())


@pytest.mark.parametrize("displacement", [0.01, 0.1])
def test_weights_move_by_what_was_drawn_whatever_the_rule(displacement):
    # a rate is set by its effect at a tenth of the row's own rate: it holds as far as learning is linear in its rate
    ratios = {}
    for rule in REFERENCE:
        simulation = replace(TINY, rules=(rule,), displacement=(displacement, displacement))
        ratios[rule] = [moved(each) / each.meta["displacement"] for each in made(simulation)]
    assert all(0.5 < ratio < 2 for found in ratios.values() for ratio in found), ratios
    usual = np.median([ratio for found in ratios.values() for ratio in found])
    assert usual == pytest.approx(1, abs=0.1 if displacement < 0.05 else 0.2)


def test_a_walk_and_a_small_gradient_step_move_weights_exactly_as_drawn():
    for rule, tolerance in (("drift", 1e-4), ("difference_target_propagation", 0.03), ("predictive_coding", 0.03)):
        for recording in made(replace(TINY, rules=(rule,), displacement=(0.005, 0.02))):
            assert moved(recording) == pytest.approx(recording.meta["displacement"], rel=tolerance)


def test_displacements_are_drawn_log_uniformly_between_their_ends():
    simulation = replace(TINY, runs=60, updates=2, bursts=1, displacement=(0.01, 0.3), taught=0)
    met = np.sort([np.log(each.meta["displacement"]) for each in simulated(simulation.jobs()[0])])
    low, high = np.log(0.01), np.log(0.3)
    even = np.abs((met - low) / (high - low) - (np.arange(60) + 0.5) / 60).max()
    assert even < 1.63 / math.sqrt(60)  # Kolmogorov-Smirnov at 1 %
    assert low <= met[0]
    assert met[-1] <= high


def test_no_two_networks_share_a_seed():
    simulation = replace(
        TINY, rules=("backprop", "drift"), tasks=("digits", "teacher"), hidden=((4,), (5,)), blocks=2,
        updates=2, bursts=1, taught=0,
    )  # fmt: skip
    found = made(simulation)
    assert len({each.meta["network"] for each in found}) == len(found) == simulation.networks == 32
    of_size = [start(each) for each in found if each.meta["hidden"] == [4] and each.meta["task"] == "digits"]
    assert len({weights.tobytes() for weights in of_size}) == len(of_size) == 8
    assert not {each.meta["network"] for each in made(replace(simulation, seed=1))} & {
        each.meta["network"] for each in found
    }


def test_a_job_says_all_that_its_recordings_depend_on():
    job = TINY.jobs()[0]
    first, again = simulated(job)[1], simulated(Job(*job))[1]
    assert first.meta == again.meta
    for name, array in first.arrays.items():
        assert np.array_equal(array, again.arrays[name], equal_nan=True), name


def test_what_a_block_draws_is_the_same_for_every_rule():
    simulation = replace(
        TINY, rules=("backprop", "oja", "drift"), activation=("tanh", "relu"), init_scale=(0.5, 1.0, 1.5),
        batch=(4, 6, 8), blocks=6, runs=1, updates=2, bursts=1, taught=0,
    )  # fmt: skip
    drew = {rule: [] for rule in simulation.rules}
    for recording in made(simulation):
        meta = recording.meta
        assert recording.input is not None
        assert recording.input.shape[1] == meta["batch"] + simulation.probes
        drew[meta["label"]].append((meta["nonlinearity"], meta["init_scale"], meta["batch"]))
    assert drew["backprop"] == drew["oja"] == drew["drift"]
    for options in zip(*drew["oja"], strict=True):
        assert len({*options}) > 1


def test_bursts_are_spread_over_the_updates_and_never_touch():
    simulation = replace(TINY, updates=120, bursts=7, burst=3)
    assert simulation.times[0] == range(3)
    assert simulation.times[-1] == range(120, 123)
    assert [burst.start for burst in simulation.times] == [0, 20, 40, 60, 80, 100, 120]
    for updates in range(6, 60):
        for bursts in range(1, 8):
            for burst in range(2, 6):
                if burst * bursts <= updates + burst:
                    times = replace(TINY, updates=updates, bursts=bursts, burst=burst).times
                    assert all(one.stop <= other.start for one, other in itertools.pairwise(times))


def test_snapshots_are_those_of_the_bursts_with_the_batch_of_the_update_that_follows():
    recording = made()[0]
    assert recording.time.tolist() == [0, 1, 2, 20, 21, 22]
    assert recording.singles.tolist() == [0, 1, 3, 4]
    assert recording.input is not None
    assert recording.target is not None
    assert recording.meta["snapshot"] == "before"
    probes = recording.input[:, : recording.probes]
    assert (probes == probes[0]).all()
    assert np.isnan(recording.target[:, : recording.probes]).all()
    batches = recording.input[:, recording.probes :]
    assert len({batch.tobytes() for batch in batches}) == len(batches)
    # the backprop update that the batch makes, one rate throughout
    weight, bias = recording.weights["hidden1->output"], recording.bias["output"]
    hidden = recording.activity["hidden1"][:, recording.probes :]
    error = recording.target[:, recording.probes :] - recording.activity["output"][:, recording.probes :]
    rate = recording.meta["rate"]
    for before in recording.singles:
        step = rate * error[before].T @ hidden[before] / len(hidden[before])
        np.testing.assert_allclose(weight[before + 1] - weight[before], step, atol=2e-7)
        np.testing.assert_allclose(bias[before + 1] - bias[before], rate * error[before].mean(axis=0), atol=2e-7)


def test_activity_is_what_the_recorded_weights_make_of_the_input():
    recording = made()[1]
    assert recording.input is not None
    drive = recording.input @ recording.weights["input->hidden1"].transpose(0, 2, 1)
    hidden = np.tanh(drive + recording.bias["hidden1"][:, None])
    np.testing.assert_allclose(hidden, recording.activity["hidden1"], atol=1e-5)
    np.testing.assert_allclose(recording.activity["output"].sum(axis=2), 1, atol=1e-5)


@pytest.mark.parametrize("taught", [0, 10])
def test_nothing_before_the_first_update_tells_the_rule(taught):
    simulation = replace(TINY, runs=40, taught=taught, updates=2, bursts=1)
    found = {rule: made(replace(simulation, rules=(rule,))) for rule in ("backprop", "drift", "oja")}
    shown = {rule: [first_snapshot(recording) for recording in found[rule]] for rule in found}
    for name in shown["oja"][0]:
        values = {rule: np.array([each[name] for each in shown[rule]]) for rule in found}
        for rule in ("backprop", "oja"):
            one, other = values[rule], values["drift"]
            error = math.sqrt((one.var() + other.var()) / 40) + 1e-12
            # 21 numbers, two pairs, two runs of this test: 1 in 1000 for all
            assert abs(one.mean() - other.mean()) < 4.5 * error, (rule, name)
            assert 0.4 < (one.std() + 1e-9) / (other.std() + 1e-9) < 2.5, (rule, name)


def test_a_row_in_place_of_the_rules_own_starts_and_is_shown_the_same():
    job = replace(TINY, rules=("oja",)).jobs()[0]
    for own, other in zip(simulated(job), simulated(job, REFERENCE["drift"]), strict=True):
        assert own.meta["network"] == other.meta["network"]
        assert np.array_equal(start(own), start(other))
        assert np.array_equal(own.arrays["input"], other.arrays["input"])
        assert not np.array_equal(own.weights["input->hidden1"][1], other.weights["input->hidden1"][1])


def test_networks_start_between_fresh_weights_and_taught_ones(monkeypatch):
    simulation = replace(TINY, runs=6, taught=60, displacement=(1e-6, 1e-6), updates=2, bursts=1)
    fresh = simulated(replace(simulation, taught=0).jobs()[0])
    begun = simulated(simulation.jobs()[0])
    whole = simulations._taught

    def all_the_way(network, task, episodes, batch, updates, share):
        return whole(network, task, episodes, batch, updates, share * 0 + 1)

    monkeypatch.setattr(simulations, "_taught", all_the_way)
    taught = simulated(simulation.jobs()[0])
    shares = [recording.meta["taught"] for recording in begun]
    assert len({*shares}) == 6
    assert all(0 <= share <= 1 for share in shares)
    for first, mid, last, share in zip(fresh, begun, taught, shares, strict=True):
        between = start(first) + share * (start(last) - start(first))
        np.testing.assert_allclose(start(mid), between, atol=1e-6)
    # nothing is learned at such rates: what networks know, backprop taught them
    assert (
        np.mean([each.meta["accuracy"] for each in taught]) > np.mean([each.meta["accuracy"] for each in fresh]) + 0.1
    )


def test_networks_that_diverge_are_left_out():
    far = replace(TINY, displacement=(1e6, 1e6))
    assert made(far) == ()


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_noise_of_weights_has_the_promised_size_and_differs_from_snapshot_to_snapshot(noise):
    recording = long()
    noisy = degraded(recording, Degradation(weight_noise=noise), np.random.default_rng(0))
    for edge, weight in recording.weights.items():
        step = np.sqrt(np.mean(np.square(np.diff(weight, axis=0)[recording.singles])))
        added = noisy.weights[edge] - weight
        # sampling error of a standard deviation: 1 / sqrt(2 n), n = 1680 at the least
        assert added.std() == pytest.approx(noise * step, rel=4 / math.sqrt(2 * added.size))
        flat = added.reshape(len(added), -1)
        assert np.abs(np.corrcoef(flat)[np.triu_indices(len(flat), 1)]).max() < 5 / math.sqrt(flat.shape[1])
    for name, array in recording.activity.items():
        assert np.array_equal(noisy.activity[name], array)
    assert noisy.bias.keys() == recording.bias.keys()


def test_noise_of_activity_has_the_promised_size_and_spares_the_input():
    recording = replace(long(), activity={"input": long().arrays["input"], **long().activity})
    noisy = degraded(recording, Degradation(activity_noise=0.2), np.random.default_rng(0))
    for name, array in recording.activity.items():
        added = noisy.activity[name] - array
        size = 0.0 if name == "input" else 0.2 * array.std()
        assert added.std() == pytest.approx(size, rel=4 / math.sqrt(2 * added.size))
    assert np.array_equal(noisy.arrays["input"], recording.arrays["input"])
    assert np.array_equal(noisy.weights["input->hidden1"], recording.weights["input->hidden1"])


@pytest.mark.parametrize(("fraction", "left"), [(1.0, 8), (0.5, 4), (0.3, 2), (0.01, 2)])
def test_a_fraction_of_every_hidden_population_stays_and_the_rest_is_missing(fraction, left):
    poorer = degraded(long(), Degradation(fraction=fraction), np.random.default_rng(0))
    seen = {name: np.isfinite(array).all(axis=(0, 1)) for name, array in poorer.activity.items()}
    assert [seen[name].sum() for name in ("hidden1", "hidden2", "output")] == [left, left, 10]
    seen["input"] = np.ones(64, dtype=bool)
    for edge, weight in poorer.weights.items():
        source, _, target = edge.partition("->")
        there = np.outer(seen[target], seen[source])
        assert (np.isfinite(weight) == there).all()
    for name, array in poorer.bias.items():
        assert (np.isfinite(array) == seen[name]).all()


@pytest.mark.parametrize(
    ("snapshots", "times"),
    [
        (None, 21), (21, 21), (99, 21),
        (3, [0, 1, 2]), (6, [0, 1, 2, 60, 61, 62]), (5, [0, 1, 2, 60, 61]), (9, [0, 1, 2, 30, 31, 32, 60, 61, 62]),
        (2, [0, 1]),
    ],
)  # fmt: skip
def test_whole_bursts_are_kept_from_the_first_on(snapshots, times):
    poorer = degraded(long(), Degradation(snapshots=snapshots), np.random.default_rng(0))
    kept = poorer.time.tolist()
    assert (len(kept) if isinstance(times, int) else kept) == times
    places = np.flatnonzero(np.isin(long().time, kept))
    for name, array in long().arrays.items():
        assert np.array_equal(poorer.arrays[name], array[places], equal_nan=True), name


def test_without_weights_activity_alone_is_left():
    poorer = degraded(long(), Degradation(weights=False), np.random.default_rng(0))
    assert not poorer.weights
    assert not poorer.bias
    assert poorer.structure.sizes == long().structure.sizes
    assert any(name.startswith("white.") for name in observables(poorer))


def test_a_degradation_that_takes_nothing_changes_nothing():
    same = degraded(long(), Degradation(), np.random.default_rng(0))
    for name, array in long().arrays.items():
        assert np.array_equal(same.arrays[name], array, equal_nan=True), name


def test_degradations_are_drawn_from_their_ranges_log_uniformly():
    generator = np.random.default_rng(0)
    found = [drawn(generator) for _ in range(300)]
    ranges = {"fraction": (0.1, 1.0), "weight_noise": (1e-2, 1.0), "activity_noise": (1e-5, 1e-2), "snapshots": (5, 21)}
    for name, (low, high) in ranges.items():
        values = np.array([getattr(each, name) for each in found])
        assert values.min() >= low
        assert values.max() <= high
        # the sampling error of a uniform mean over 300 draws is .017 of its range
        middle = (np.log(values).mean() - math.log(low)) / math.log(high / low)
        assert middle == pytest.approx(0.5, abs=4 * 0.017)
    assert all(each.weights for each in found)
    assert not drawn(generator, weights=False).weights


def close(one: dict[str, float], other: dict[str, float], tolerance: float) -> list[str]:
    """Names of what differs."""
    assert one.keys() == other.keys()
    return [
        name for name in one if not np.isclose(one[name], other[name], rtol=tolerance, atol=tolerance, equal_nan=True)
    ]


def test_observables_do_not_depend_on_the_size_of_steps():
    updates = single_updates(long())
    assert len(white(updates)) > 100
    # no smaller ones: what keeps quotients finite is then felt
    for size in (0.1, 10.0):
        layers = tuple(layer._replace(change=size * layer.change) for layer in updates.layers)
        assert close(white(updates), white(replace(updates, layers=layers)), 1e-6) == []


def test_observables_do_not_depend_on_the_size_of_weights_where_activity_is_recorded():
    recording = long()
    # a power of two: not a bit is rounded
    larger = {
        part: {name: 4 * array for name, array in getattr(recording, part).items()} for part in ("weights", "bias")
    }
    assert close(observables(recording), observables(replace(recording, **larger)), 1e-9) == []


def test_published_statistics_do_not_depend_on_the_size_of_rates():
    recording = long()
    larger = replace(recording, activity={name: 4 * array for name, array in recording.activity.items()})
    published = observables(recording, ("published_activity",))
    assert close(published, observables(larger, ("published_activity",)), 1e-9) == []


def test_observables_have_the_same_names_whatever_the_width_and_the_depth():
    found = [
        observables(made(replace(TINY, runs=1, hidden=(hidden,)))[0]) for hidden in ((8,), (12,), (8, 6), (8, 6, 5))
    ]
    assert len({tuple(sorted(each)) for each in found}) == 1
    # and whatever populations are called
    recording = made()[0]
    called = {"input": "eye", "hidden1": "V1", "output": "motor"}

    def renamed(arrays):
        return {"->".join(called[word] for word in name.split("->")): array for name, array in arrays.items()}

    meta = {**recording.meta, "populations": list(called.values())}
    parts = {part: renamed(getattr(recording, part)) for part in ("weights", "bias", "activity")}
    assert observables(replace(recording, meta=meta, **parts)) == pytest.approx(observables(recording), nan_ok=True)


def test_units_that_nobody_observed_are_as_if_they_were_not_there():
    recording = long()
    poorer = degraded(recording, Degradation(fraction=0.5), np.random.default_rng(0))
    seen = {name: np.isfinite(array).all(axis=(0, 1)) for name, array in poorer.activity.items()}
    seen["input"] = np.ones(64, dtype=bool)
    for whole, part in zip(single_updates(recording).layers, single_updates(poorer).layers, strict=True):
        source, _, target = whole.edge.partition("->")
        rows, columns_ = seen[target], seen[source]
        np.testing.assert_allclose(part.change, whole.change[:, rows][:, :, columns_], atol=1e-7)
        assert np.array_equal(part.weight, whole.weight[:, rows][:, :, columns_])
        assert np.array_equal(part.pre, whole.pre[:, :, columns_])
        assert np.array_equal(part.post, whole.post[:, :, rows])
    values = observables(poorer)
    assert values.keys() == observables(recording).keys()
    assert all(np.isfinite(values[name]) for name, value in observables(recording).items() if np.isfinite(value))


@pytest.mark.parametrize("rule", ["backprop", "feedback_alignment", "oja"])
def test_with_many_stimuli_activity_alone_shows_what_weights_show(rule):
    simulation = replace(
        TINY, rules=(rule,), tasks=("teacher",), bursts=3, probes=150, displacement=(0.1, 0.1), runs=1, hidden=((8, 8),)
    )
    (recording,) = made(simulation)
    activity = replace(recording, weights={}, bias={})
    shown, inferred = single_updates(recording), single_updates(activity)
    assert inferred.inferred
    for one, other in zip(shown.layers, inferred.layers, strict=True):
        assert np.corrcoef(one.change.ravel(), other.change.ravel())[0, 1] > 0.999
    seen, found = observables(recording), observables(activity)
    assert {name for name in seen if name not in found} == {
        name for name in seen if name.startswith("published_weights.")
    }
    # behind a softmax readout weights are known up to their mean over units, of which feedback to the layer below tells
    apart = {name for name in found if abs(found[name] - seen[name]) > 0.02 * (1 + abs(seen[name]))}
    assert all(name.startswith("white.high.feedback.") for name in apart)


def test_a_table_of_observables_has_a_place_for_every_name_and_nothing_in_those_that_a_row_lacks():
    rows = [{"b": 1.0, "a": 2.0}, {"c": 3.0}]
    assert columns(rows) == ("a", "b", "c")
    np.testing.assert_array_equal(matrix(rows, columns(rows)), [[2, 1, np.nan], [np.nan, np.nan, 3]])


def test_simulate_writes_recordings_that_load(metarule, tmp_path):
    spec, out = tmp_path / "mine.toml", tmp_path / "out"
    spec.write_text(TOML)
    code, shown, said = metarule("simulate", spec, "--out", out)
    assert (code, shown) == (0, "")
    files = sorted(out.iterdir())
    assert len(files) == 4
    assert f"4 recordings in {out}; classify one with: metarule classify {out}" in said
    expected = {f"{each.meta['label']}-{each.meta['network']}.npz": each for each in recordings(read(spec))}
    assert {*expected} == {file.name for file in files}
    for file in files:
        recording, own = load(file), expected[file.name]
        assert recording.arrays.keys() == own.arrays.keys()
        assert all(np.array_equal(recording.arrays[k], own.arrays[k], equal_nan=True) for k in own.arrays)
        assert recording.meta["label"] in ("backprop", "oja")


def test_simulate_stops_at_its_limit_and_prints_one_document(metarule, tmp_path):
    spec, out = tmp_path / "mine.toml", tmp_path / "out"
    spec.write_text(TOML)
    code, shown, _ = metarule("simulate", spec, "--out", out, "--limit", 3, "--json")
    assert code == 0
    written = json.loads(shown)
    assert [each["label"] for each in written] == ["backprop", "backprop", "oja"]
    assert {each["file"] for each in written} == {str(path) for path in out.iterdir()}
    assert all(0 <= each["accuracy"] <= 1 for each in written)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TOML.replace("oja", "ojaa"), "did you mean 'oja'"),
        (TOML.replace("[0.01, 0.1]", "[1e6, 1e6]"), "every network diverged; lower simulation.displacement"),
    ],
)
def test_simulate_says_why_it_wrote_nothing(metarule, tmp_path, text, sentence):
    spec = tmp_path / "mine.toml"
    spec.write_text(text)
    for how in ((), ("--json",)):
        code, shown, said = metarule("simulate", spec, "--out", tmp_path / "out", *how)
        assert (code, shown) == (2, "")
        assert sentence in said


def test_with_own_rates_every_network_has_its_rules_own_rate_times_the_drawn_factor():
    rate = REFERENCE["backprop"].learner(Network.chain((64, 8, 10), bias=True)).params[0].start
    for recording in recordings(replace(TINY, own_rates=(0.5, 2.0))):
        assert 0.5 <= recording.meta["displacement"] <= 2
        assert recording.meta["rate"] == pytest.approx(rate * recording.meta["displacement"], rel=1e-6)
        (found,) = (row for row in replay(recording).rows if row.rule == "backprop")
        assert found.scale == pytest.approx(recording.meta["rate"], rel=1e-3)
    with pytest.raises(ValueError, match=r"simulation.own_rates = \[2.0, 1.0\] must be two rising"):
        replace(TINY, own_rates=(2.0, 1.0))
