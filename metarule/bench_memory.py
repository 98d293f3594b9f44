"""Memory of a meta-gradient: how much the process grows, each in one of its own.

Cells with more and more steps, with more and more runs, and a wide network that sees one image a step. `reverse`
stores every step, `segments` the root of them, the engines that go back by hand what flowed through the network but no
weights; `forward` and `differences` store none. Peaks are the system's own, above what a first, short walk left in
place; with glibc's threshold for large blocks held down, without which freed memory may look used.
"""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metarule.bench_process import Row, answered, apart, threads
from metarule.bench_slopes import ways
from metarule.bench_work import Cell, cell, setting

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux says what a process took at most: its `ru_maxrss` begins at the size of the process that started it."""

STEPS = (100, 500, 2000)
RUNS, BATCH = 32, 4
MORE = (
    cell("digits", 8, BATCH, STEPS[0], shared=True),
    cell("digits", 128, BATCH, STEPS[0], shared=True),
    cell("mlp784", 8, 1, 100, shared=True),
)
"""Beside `STEPS`: fewer runs, more of them, and a wide network at one image a step."""


def by_steps(steps: Sequence[int] = STEPS) -> tuple[Cell, ...]:
    """The small network's cell at numbers of steps."""
    return tuple(cell("digits", RUNS, BATCH, length, shared=True) for length in steps)


def grown(way: str, of: Cell, variant: Sequence[Any] = ()) -> float:
    """MiB by which this process grows at most while it walks a way; `variant` is JAX's, for the way `jax`."""
    with threads(1):
        short = of._replace(steps=2)
        if way == "jax":
            from metarule import bench_jax

            ready = bench_jax.gradient(bench_jax.Variant(*variant), setting(of))
        else:
            ways(setting(short))[way]()
            ready = ways(setting(of))[way]
        before = _settled()
        ready()
        return _peak() - before


def _settled() -> float:
    """MiB of this process now, with what was freed given back and its peak forgotten."""
    gc.collect()
    if STATUS.exists():
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        FORGET.write_text("5")
    return _peak()


def _peak() -> float:
    """MiB that this process took at most."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def taken(way: str, of: Cell, variant: Sequence[Any] = ()) -> float:
    """`grown` of a fresh process."""
    request = {"way": way, "of": of, "variant": variant}
    (found,) = apart("bench_memory", request, MALLOC_MMAP_THRESHOLD_="65536")
    return round(found, 1)


def measure(
    steps: Sequence[int] = STEPS, names: Sequence[str] = (), more: Sequence[Cell] = (), peer: str | None = None
) -> list[Row]:
    """MiB of each way (default all) at every number of steps, and on `more` cells."""
    cells = (*by_steps(steps), *more)
    names = names or tuple(ways(setting(cells[0])))
    return [
        {"estimator": name, "cell": of.label, "runs": of.runs, "steps": of.steps, "grown_mib": taken(name, of)}
        for name in names
        for of in cells
    ]


def _asked(way: str, of: list[Any], variant: Sequence[Any], cores: int) -> Iterator[float]:
    sizes, *rest = of
    yield grown(way, Cell(tuple(sizes), *rest), variant)


if __name__ == "__main__":
    answered(_asked)
