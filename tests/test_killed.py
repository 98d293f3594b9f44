"""Nothing is lost: a sample of the killings in killing.py; the whole set is `python tests/killing.py`."""

from __future__ import annotations

import json

import killing
import pytest

from metarule import jobs, reading
from metarule.plugins import SpecError
from metarule.runs import CHECKPOINT, PREVIOUS, RunError, RunFolder


@pytest.mark.parametrize("outer", killing.OUTER)
def test_a_search_killed_at_seeded_moments_ends_as_if_it_had_not_been(outer, tmp_path):
    left = killing.killed_at_moments(tmp_path, outer, kills=2, seed=1, generations=20)
    assert left == killing.whole(tmp_path, outer, 20)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What the search leaves that is killed at a boundary below."""
    return killing.whole(tmp_path_factory.mktemp("uninterrupted"), "cma_es", 2)


# in the writing of the spec, of the first generation's second block, of its checkpoint
@pytest.mark.parametrize("boundary", [8, 18, 29])
def test_a_search_killed_at_a_write_boundary_ends_as_if_it_had_not_been(boundary, tmp_path, uninterrupted):
    assert killing.killed_at_boundary(tmp_path, "cma_es", boundary) == uninterrupted


def test_a_search_whose_workers_are_killed_at_seeded_moments_ends_as_in_one_process(tmp_path):
    reference = killing.whole(tmp_path, "cma_es", 40)
    assert all(left == reference for left in killing.killed_workers(tmp_path, kills=2, seed=3, generations=40))


@pytest.fixture
def run(tmp_path):
    """A finished run of three generations."""
    folder = killing.prepared(tmp_path / "run", "cma_es", generations=3, episodes=0)
    search, text = reading.read(folder / "asked.toml")
    jobs.start(RunFolder(folder), search, text)
    return RunFolder(folder)


def test_a_truncated_checkpoint_falls_back_to_the_last_good_state(run):
    newest = run.path / CHECKPOINT
    newest.write_bytes(newest.read_bytes()[:-10])
    log = (run.path / "log.jsonl").read_bytes()
    (run.path / "result.json").unlink()
    said = []
    jobs.resume(run, listener=jobs.Listener(message=said.append))
    assert "checkpoint.safetensors is damaged" in said[0]
    assert (run.path / "log.jsonl").read_bytes() == log


def test_a_flipped_bit_in_a_checkpoint_is_noticed(run):
    newest = run.path / CHECKPOINT
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert "checksum" in (run.checkpoint()[1] or "")


def test_without_a_good_checkpoint_the_run_is_refused_and_the_log_kept(run):
    log = (run.path / "log.jsonl").read_bytes()
    for name in (CHECKPOINT, PREVIOUS):
        (run.path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="cannot be resumed"):
        jobs.resume(run)
    for name in (CHECKPOINT, PREVIOUS):
        (run.path / name).unlink()
    with pytest.raises(RunError, match="no checkpoint is left"):
        jobs.resume(run)
    assert (run.path / "log.jsonl").read_bytes() == log


def test_a_changed_search_file_is_refused(run):
    with (run.path / "search.toml").open("a") as handle:
        handle.write("\n# another question\n")
    with pytest.raises(RunError, match="not the file this run was started with"):
        jobs.resume(run)


def test_a_finished_run_grows_by_generations_and_by_nothing_else(run):
    before = (run.path / "log.jsonl").read_bytes()
    with pytest.raises(SpecError, match=r"inner\.episodes cannot change"):
        jobs.resume(run, ("inner.episodes=3",))
    with pytest.raises(SpecError, match="may only grow"):
        jobs.resume(run, ("outer.generations=2",))
    jobs.resume(run, ("outer.generations=5",))
    after = (run.path / "log.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(run.log()) == json.loads((run.path / "result.json").read_text())["generations"] == 5


def test_a_folder_in_use_or_taken_is_refused(run):
    search, text = reading.read(run.path / "asked.toml")
    with pytest.raises(RunError, match="already holds a run"):
        jobs.start(run, search, text)
    with run.locked(), pytest.raises(RunError, match="in use by process"), run.locked():
        pass
