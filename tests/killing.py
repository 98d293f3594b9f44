"""Kill searches and compare what is left: `python tests/killing.py` runs the whole set, the suite a sample of it.

A child process runs or resumes a small search and dies by SIGKILL: after a seeded delay, or at one of the boundaries
of its writes (before and after a temporary file, a rename, a line of the log, and half-way through each). Whatever
happened, `--resume` must end with the log, theta and result of the uninterrupted run, byte for byte. With `--workers`
it is the workers that die, while the search goes on: of a pool of two, and of a Dask cluster of two.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarule.cli.starting import importing

OUTER = {
    "cma_es": 'kind = "cma_es"\ncandidates = 6',
    "meta_gradient": 'kind = "meta_gradient"\ncandidates = 1',
    "optuna": 'kind = "optuna"\ncandidates = 4',
}
GENERATIONS = 150
"""Long enough for many kills within one search."""

SEARCH = """
[task]
kind = "few_shot"
ways = 3
shots = 8
queries = 4
[network]
hidden = [12]
[credit]
kind = "feedback_alignment"
[rule]
kind = "terms"
start = {{ error_pre = 0.1 }}
[inner]
episodes = 2
block_runs = 4
[outer]
{outer}
generations = {generations}
[battery]
episodes = {episodes}
"""


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of what must not depend on interruptions."""
    theta = json.loads((folder / "result.json").read_text())["theta"]
    found = {name: (folder / name).read_bytes() for name in ("log.jsonl", "result.json", "episodes.json")}
    found["theta"] = json.dumps(theta, sort_keys=True).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def child(folder: Path, mode: str, value: str) -> int:
    """Run or resume the search in `folder` in a process of its own; returns its exit status (-9: killed)."""
    command = [sys.executable, __file__, "child", str(folder), mode, value]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, -signal.SIGKILL):
        print(done.stderr, file=sys.stderr)
    return done.returncode


def prepared(folder: Path, outer: str, generations: int = 8, episodes: int = 4) -> Path:
    """A folder that holds nothing but the search file to run."""
    folder.mkdir(parents=True)
    text = SEARCH.format(outer=OUTER[outer], generations=generations, episodes=episodes)
    (folder / "asked.toml").write_text(text)
    return folder


def finished(folder: Path, tries: int = 3) -> dict[str, str]:
    """Resume without killing until done."""
    for _ in range(tries):
        if child(folder, "whole", "0") == 0:
            return digests(folder)
    raise AssertionError(f"{folder} did not finish")


def whole(folder: Path, outer: str, generations: int = 8) -> dict[str, str]:
    """What the uninterrupted search leaves."""
    return finished(prepared(folder / "whole" / "run", outer, generations), tries=1)


def killed_at_moments(folder: Path, outer: str, kills: int, seed: int, generations: int = 8) -> dict[str, str]:
    """What is left after `kills` seeded kills of the same run, then a last resume."""
    run = prepared(folder / "moments" / "run", outer, generations)
    delays = random.Random(seed)
    done = 0
    while done < kills:
        # short enough that many kills fall into one search
        done += child(run, "after", str(delays.uniform(0.0, 0.25))) == -signal.SIGKILL
        if (run / "result.json").exists():  # it got away: the next kills need a new one
            (run / "result.json").unlink()
    return finished(run)


def boundaries(folder: Path, outer: str) -> int:
    """How many write boundaries the uninterrupted search passes."""
    run = prepared(folder / "count" / "run", outer, generations=2)
    assert child(run, "count", "0") == 0
    return int((run / "boundaries").read_text())


def killed_at_boundary(folder: Path, outer: str, number: int) -> dict[str, str]:
    """What is left after a kill at write boundary `number` and a resume."""
    run = prepared(folder / f"boundary{number}" / "run", outer, generations=2)
    status = child(run, "boundary", str(number))
    assert status == -signal.SIGKILL, f"boundary {number}: exit status {status}"
    return finished(run)


def killed_workers(folder: Path, kills: int, seed: int, generations: int) -> list[dict[str, str]]:
    """What searches leave whose two workers were killed, `kills` times in all; none is resumed."""
    return _besieged(folder, kills, seed, generations, "workers", "2", None)


def killed_on_a_cluster(folder: Path, kills: int, seed: int, generations: int) -> list[dict[str, str]]:
    """The same on a Dask cluster of two workers, which belong to this process."""
    import dask.config
    import distributed

    quiet: Any = {"dashboard_address": None, "host": "127.0.0.1", "silence_logs": 50}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": kills}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **quiet) as local,
    ):
        here: Any = local
        return _besieged(folder, kills, seed, generations, "cluster", here.scheduler_address, os.getpid())


def _besieged(
    folder: Path, kills: int, seed: int, generations: int, mode: str, value: str, owner: int | None
) -> list[dict[str, str]]:
    moments = random.Random(seed)
    left = []
    done = 0
    while done < kills:
        run = prepared(folder / f"{mode}{len(left)}" / "run", "cma_es", generations)
        command = [sys.executable, __file__, "child", str(run), mode, value]
        search = subprocess.Popen(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
        )
        log, size = run / "log.jsonl", 0
        while done < kills and search.poll() is None:
            if not log.exists() or log.stat().st_size == size:  # a start takes longer than a block: let it get on
                time.sleep(0.01)
                continue
            time.sleep(moments.uniform(0.0, 0.5))
            size = log.stat().st_size
            workers = workers_of(owner or search.pid)
            if workers:
                os.kill(moments.choice(workers), signal.SIGKILL)
                done += 1
        _, said = search.communicate()
        assert search.returncode == 0, f"exit status {search.returncode}: {said[-2000:]}"
        left.append(digests(run))
    return left


def workers_of(process: int) -> list[int]:
    """The worker processes of a process."""
    found = []
    for child in Path(f"/proc/{process}/task").glob("*/children"):
        for number in child.read_text().split():
            command = Path(f"/proc/{number}/cmdline").read_bytes()
            if b"spawn_main" in command:
                found.append(int(number))
    return sorted(found)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _watch(reached: Callable[[], None]) -> None:
    """Call `reached` at every boundary of every write, half-way points included."""
    from metarule import archive, runs

    aside, append, replace = archive.write_aside, runs.RunFolder.append, Path.replace

    def watched_aside(path, content, sync=True):
        reached()
        half = path.with_name(f".{path.name}.new")
        half.write_bytes(content[: len(content) // 2])
        reached()
        found = aside(path, content, sync)
        reached()
        return found

    def watched_append(self, name, line):
        reached()
        path = self.path / name
        before = path.read_bytes() if path.exists() else b""
        with path.open("ab") as handle:
            handle.write(json.dumps(line).encode()[:20])
        reached()
        path.write_bytes(before)
        append(self, name, line)
        reached()

    def watched_replace(self, target):
        reached()
        found = replace(self, target)
        reached()
        return found

    archive.write_aside, runs.RunFolder.append = watched_aside, watched_append
    Path.replace = watched_replace


def _child(folder: Path, mode: str, value: str) -> None:
    with importing():
        import cmaes  # noqa: F401 - before the clock runs: kills are to fall into the search
        import torch

        from metarule import jobs, reading
        from metarule.cluster import Cluster
        from metarule.runs import RunFolder

    torch.set_num_threads(1)
    count = 0

    def reached() -> None:
        nonlocal count
        count += 1
        if mode == "boundary" and count == int(value):
            _die()

    if mode in ("boundary", "count"):
        _watch(reached)
    if mode == "after":
        threading.Timer(float(value), _die).start()
    workers = int(value) if mode == "workers" else 1
    cluster = Cluster(value) if mode == "cluster" else None
    search, text = reading.read(folder / "asked.toml")
    jobs.carry_on(RunFolder(folder), search, text, workers, cluster=cluster)
    if mode == "count":
        (folder / "boundaries").write_text(str(count))


def workers_main() -> None:
    """20 seeded kills of the workers of a pool, 5 of those of a Dask cluster."""
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        reference = whole(folder, "cma_es", GENERATIONS)
        for name, killed, kills in (("pool", killed_workers, 20), ("Dask", killed_on_a_cluster, 5)):
            left = killed(folder, kills, 0, GENERATIONS)
            different = sum(found != reference for found in left)
            print(f"{name}: {kills} workers killed in {len(left)} searches: {different} different", flush=True)
            wrong += different
    sys.exit(1 if wrong else 0)


def main() -> None:
    """20 seeded kills per outer loop, then one at every write boundary."""
    wrong = 0
    for outer in OUTER:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            same = killed_at_moments(folder, outer, kills=20, seed=0, generations=300) == whole(folder, outer, 300)
            print(f"{outer}: 20 seeded kills: {'identical' if same else 'DIFFERENT'}", flush=True)
            wrong += not same
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            reference = finished(prepared(folder / "whole" / "run", outer, generations=2), tries=1)
            numbers = range(1, boundaries(folder, outer) + 1)
            different = [number for number in numbers if killed_at_boundary(folder, outer, number) != reference]
            print(f"{outer}: {len(numbers)} write boundaries: {len(different)} different {different or ''}", flush=True)
            wrong += len(different)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    elif sys.argv[1:] == ["--workers"]:
        workers_main()
    else:
        main()
