"""Measurements in a process of their own: on one core, to which it is pinned, or on two, to which it is not."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from metarule.bench_roofline import processor

PEERS = ("jax",)

PAUSE = 0.02
"""Seconds before each measurement: threads of the one before may still wait for work, and keep a core busy."""

Clock = Callable[[], float]
Row = dict[str, Any]


def check_peer(peer: str | None) -> None:
    """Raises ValueError where a peer is none that we know, or is not installed."""
    if peer is not None and peer not in PEERS:
        raise ValueError(f"--peer = '{peer}' is not one of {', '.join(PEERS)}")
    if peer is not None and importlib.util.find_spec(peer) is None:
        raise ValueError(f"--peer {peer} needs {peer}; pip install -c constraints.txt 'metarule[bench]'")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_cores(asked: Sequence[int] | None) -> tuple[int, ...]:
    """Numbers of cores to measure on, 1 and 2 where there are as many; raises ValueError for what cannot be had."""
    there = tuple(range(1, min(usable_cores(), 2) + 1))
    for count in asked or ():
        if count not in there:
            raise ValueError(f"--cores = {count} is not one of {', '.join(map(str, there))} on this machine")
    return tuple(sorted(set(asked))) if asked else there


def apart(module: str, request: Mapping[str, Any], cores: int = 1, **environment: str) -> Iterator[Any]:
    """What `answered` sends from a fresh process of a module, asked for so much, piece by piece.

    Where it may use several cores JAX finds that many devices. Raises RuntimeError with the process's last words.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    surroundings = {
        **os.environ,
        "OMP_NUM_THREADS": str(cores),
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={cores}".strip(),
        **environment,
    }
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(
        [sys.executable, "-m", f"metarule.{module}", json.dumps({**request, "cores": cores})],
        env=surroundings, text=True, stdout=subprocess.PIPE, stderr=said,
    ) as running:  # fmt: skip
        for line in running.stdout or ():
            yield json.loads(line)
        if running.wait():
            said.seek(0)
            raise RuntimeError((said.read().strip().splitlines() or [f"{module} ended: {running.returncode}"])[-1])


def answered(function: Callable[..., Iterable[Any]]) -> None:
    """The other side of `apart`: the request as arguments, each thing that comes of it sent back."""
    request = json.loads(sys.argv[1])
    if request["cores"] == 1 and hasattr(os, "sched_setaffinity"):
        # before any library starts threads: all of them inherit it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for each in function(**request):
        sys.stdout.write(json.dumps(each) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """That many threads of torch for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clock(cores: int) -> Clock:
    """Seconds of the process's own work on one core, which others' load does not lengthen; of the wall on several."""
    return time.process_time if cores == 1 else time.perf_counter


def timed(function: Callable[[], object], seconds: Clock) -> float:
    """Seconds of a call."""
    began = seconds()
    function()
    return seconds() - began


def interleaved(ways: Mapping[str, Callable[[], object]], repeats: int, seconds: Clock) -> dict[str, list[float]]:
    """Seconds of every way, one after the other, so many times over."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            time.sleep(PAUSE)
            found[name].append(timed(way, seconds))
    return found


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as fast: the median over repeats of each repeat's own ratio."""
    return round(statistics.median(one / other for one, other in zip(slow, fast, strict=True)), 3)


def machine(peer: str | None) -> Row:
    """What every row says of where it was measured."""
    row = {"processor": processor(), "torch": torch.__version__}
    return row if peer is None else {**row, peer: importlib.metadata.version(peer)}
