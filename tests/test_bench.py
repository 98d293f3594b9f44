"""The bench: everybody does the same work, is compared before it is timed, and a peer that is absent is asked for."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path

# before JAX is imported, here or anywhere: a device for each of two cores
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import pytest
import torch

from metarule import bench, bench_gradient, bench_process, bench_roofline, bench_slopes
from metarule.bench_work import CELLS, GRADIENT_CELLS, ON_TWO_CORES, Cell, chosen, setting
from metarule.collect import load_file
from metarule.fused import library
from metarule.inner import Reference
from metarule.inspection.figures import keep

scaling = load_file(Path(__file__).parent.parent / "analysis" / "scaling.py")

SMALL = Cell((12, 8, 4), 6, 4, 5)
SHARED = Cell((12, 8, 4), 4, 3, 6, shared=True)
HERE = library.reason() is None
KERNEL = ["fused"] if HERE else []
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX, the extra 'bench', is absent")


def test_cells_have_as_many_runs_as_candidates_on_episodes():
    for each in (*CELLS, *GRADIENT_CELLS, SMALL, Cell((3, 2), 7, 1, 1), Cell((3, 2), 22, 1, 1)):
        assert each.candidates * each.episodes == each.runs
    assert set(ON_TWO_CORES) < set(CELLS)
    assert all(each.candidates == 1 for each in GRADIENT_CELLS)
    labels = [each.label for each in (*CELLS, *GRADIENT_CELLS)]
    assert len(set(labels)) == len(labels)


def test_cells_are_chosen_by_how_their_names_begin():
    assert {each.network for each in chosen(CELLS, ["shervani"])} == {"shervani"}
    assert chosen(CELLS, []) == CELLS
    with pytest.raises(ValueError, match=r"--cells = 'digit R64' is not one of .*; did you mean 'digits R64"):
        chosen(CELLS, ["digit R64"])


def test_candidates_of_an_episode_share_its_data_and_weights():
    world = setting(SMALL)
    assert len(world.theta) == SMALL.candidates == 1
    world = setting(Cell((12, 8, 4), 16, 4, 5))
    first, second = world.weights[0].unflatten(0, (2, 8))
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(world.theta[0], world.theta[1])


def test_engines_and_what_is_written_by_hand_come_to_the_same_losses():
    rows = bench.measure(repeats=2, cells=(SMALL, Cell((12, 8, 4), 16, 1, 5)))
    assert [row["engine"] for row in rows] == 2 * ["naive", "loop", "vmap", "reference", *KERNEL]
    for row in rows:
        assert row["loss_apart"] < 1e-4
        assert all(math.isfinite(row[f"ratio_to_{base}"]) for base in bench.BASES)
        assert row[f"ratio_to_{row['engine']}"] == 1.0 if row["engine"] in bench.BASES else True
    assert not HERE or rows[4]["ran"] == f"fused ({library.library().variant})"


@pytest.mark.parametrize("oja", [0.99, math.nan])
def test_an_engine_that_does_something_else_is_not_timed(monkeypatch, oja):
    def forgetful(world):
        return bench.ENGINES["reference"](world._replace(theta=world.theta * torch.tensor([1.0, 1.0, oja])))

    monkeypatch.setitem(bench.WRITTEN, "naive", forgetful)
    with pytest.raises(RuntimeError, match="losses differ by"):
        bench.measure(repeats=1, cells=(SMALL,))


def test_on_two_cores_those_are_measured_that_can_use_them():
    rows = bench.measure(repeats=1, cells=(SMALL,), cores=2)
    assert [row["engine"] for row in rows] == ["reference", *KERNEL]
    assert torch.get_num_threads() == 1


def test_least_operations_and_bytes_are_those_counted_by_hand():
    # 3 x 2 weights, 5 images, 7 steps, 4 runs: forward, feedback, reconstruction 2 B W each, update (4 B + 2) W
    counted = Cell((3, 2), 4, 5, 7)
    assert counted.operations == 4 * (7 * (3 * 2 * 5 * 6 + (4 * 5 + 2) * 6) + 2 * 64 * 6)
    assert counted.bytes == 4 * 4 * 6 * (7 * 5 + 2)


def test_the_second_level_cache_is_read_faster_than_memory():
    assert bench_roofline.second_level() >= 1 << 17
    assert 1e9 < bench_roofline.l2_bandwidth() < 1e12


def test_rows_shown_have_the_ratios_that_all_of_them_have():
    rows = bench.measure(repeats=1, cells=(SMALL,))
    shown = bench.shown(rows)
    assert {"to naive", "to loop", "to reference", "of sgemm", "of L2"} <= shown[0].keys()
    assert "to peer" not in shown[0]
    assert [row["engine"] for row in shown] == [row["ran"] for row in rows]


def test_cells_are_measured_in_processes_of_their_own_and_told_one_by_one(monkeypatch):
    monkeypatch.setattr(bench, "CELLS", (SMALL,))
    monkeypatch.setattr(bench, "ON_TWO_CORES", (SMALL,))
    heard = []
    rows = bench.compared(1, (), None, bench_process.check_cores(None), heard.append)
    assert [part[0]["cores"] for part in heard] == list(bench_process.check_cores(None))
    assert rows == [row for part in heard for row in part]
    assert all(("ratio_to_one_core" in row) == (row["cores"] == 2) for row in rows)


def test_scaling_is_measured_cell_by_cell_and_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_process.importlib.util, "find_spec", lambda name: None)
    cells = {4: Cell((12, 8, 4), 4, 2, 3), 8: SMALL}
    found = scaling.numbers(dict.fromkeys(scaling.PANELS, cells), repeats=1)
    for along in found.values():
        assert [each["at"] for each in along] == [4, 8]
        assert [row["engine"] for row in along[1]["rows"]] == ["reference", *KERNEL]
        assert [row["cell"] for row in along[1]["rows"]] == len(along[1]["rows"]) * [SMALL.label]
        assert 0 < along[1]["rows"][0]["run_steps_per_second"] < along[1]["roofline"]
    assert scaling.table(found).count("width n 8: reference") == 1
    assert all(file.stat().st_size > 0 for file in keep(tmp_path, "scaling", found, scaling.figure))


def test_what_ends_a_process_is_what_is_said():
    with pytest.raises(RuntimeError, match=r"No module named metarule\.nonsense"):
        list(bench_process.apart("nonsense", {}))


def test_an_absent_peer_is_asked_for_with_the_command_that_installs_it(metarule, monkeypatch):
    monkeypatch.setattr(bench_process.importlib.util, "find_spec", lambda name: None)
    code, out, err = metarule("bench", "--peer", "jax")
    assert (code, out) == (2, "")
    assert "pip install -c constraints.txt 'metarule[bench]'" in err
    code, _, err = metarule("bench", "--peer", "numpy")
    assert code == 2
    assert "'numpy' is not one of jax" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--memory", "--peer", "jax"), "go with populations, or with --gradient"),
        (("--gradient", "--cores", "2"), "measures on one core"),
        (("--cores", "3"), "is not one of 1"),
        (("--cells", "letters"), "--cells = 'letters' is not one of"),
        (("--gradient", "--cells", "letters"), "--cells = 'letters' is not one of"),
    ],
)
def test_options_that_do_not_fit_are_refused(metarule, monkeypatch, options, sentence):
    monkeypatch.setattr(bench_process.importlib.util, "find_spec", lambda name: name)
    code, out, err = metarule("bench", *options)
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.split())


def test_all_ways_to_a_gradient_agree():
    rows = bench_gradient.measure(repeats=1, cells=(SHARED,))
    found = {row["way"]: row for row in rows}
    assert {"reverse", "segments", "forward", "differences"} <= found.keys()
    assert {"adjoint", *KERNEL} <= found.keys()
    exact = [row for name, row in found.items() if name != "differences"]
    assert max(row["apart"] for row in exact) < 1e-4
    assert found["differences"]["apart"] < 0.02
    exactly = setting(SHARED, torch.float64).evaluated(Reference(dtype=torch.float64), bench_slopes.GRADIENT).grad
    assert exactly is not None
    assert max(bench_gradient.distance(torch.tensor(row["gradient"]).double(), exactly[0]) for row in exact) < 1e-4


def test_a_gradient_that_is_wrong_is_not_timed(monkeypatch):
    right = bench_slopes.ways

    def wrong(world):
        found = right(world)
        slope = found["segments"]()
        return {**found, "segments": lambda: slope._replace(gradient=slope.gradient * 1.01)}

    monkeypatch.setattr(bench_gradient, "ways", wrong)
    with pytest.raises(RuntimeError, match="the gradient of 'segments' differs"):
        bench_gradient.measure(repeats=1, cells=(SHARED,))


@needs_jax
@pytest.mark.parametrize("order", ["vmap", "nested", "map", "map of vmap"])
def test_the_peer_comes_to_the_same_losses_in_every_order(order):
    from metarule import bench_jax

    world = setting(Cell((12, 8, 4), 16, 3, 4))
    expected = world.evaluated(Reference()).loss.reshape(-1)
    for variant in (
        bench_jax.Variant(order, unroll=2, turned=True),
        *([bench_jax.Variant(order, devices=2)] if len(bench_jax.jax.devices()) > 1 else []),
    ):
        found = torch.tensor(bench_jax.losses(variant, world)(), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@needs_jax
def test_the_peers_weights_are_ours():
    from metarule import bench_jax

    world = setting(SMALL)
    for variant in (bench_jax.Variant("nested"), bench_jax.Variant("nested", remat=True)):
        tables, given = bench_jax.inputs(variant, world)
        _, weights = bench_jax.each_run(variant, lambda *run: bench_jax.trained(variant, tables, *run), given)  # noqa: B023
        outcome = world.evaluated(Reference(), frozenset({"carry"}))
        assert outcome.carry is not None
        for projection, found in zip(world.learner.network.projections, weights, strict=True):
            ours = outcome.carry["weights"][projection.name]
            found = torch.tensor(bench_jax.np.asarray(found)).flatten(0, 1)
            torch.testing.assert_close(found, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))


@needs_jax
def test_the_peers_gradients_are_ours():
    from metarule import bench_jax

    world = setting(SHARED)
    expected = bench_slopes.ways(world)["reverse"]().gradient
    for variant in (bench_jax.Variant("vmap", remat=True), bench_jax.Variant("map", turned=True)):
        found = torch.tensor(bench_jax.gradient(variant, world)(), dtype=torch.float64)
        assert bench_gradient.distance(found, expected) < 1e-4


@needs_jax
def test_a_peer_is_the_fastest_of_what_was_tried_and_everybody_is_compared_with_it():
    rows = bench.measure(repeats=2, cells=(SMALL,), peer="jax", thorough=False)
    assert [row["engine"] for row in rows] == ["naive", "loop", "vmap", "reference", *KERNEL, "jax"]
    peer = rows[-1]
    assert (peer["engine"], peer["ratio_to_peer"]) == ("jax", 1.0)
    assert peer["ran"] == f"jax {peer['peer_variant']}"
    assert peer["variants"].keys() == {"vmap", "nested", "map", "map of vmap"}
    assert all(row["ratio_to_peer"] > 0 and row["jax"] for row in rows)
