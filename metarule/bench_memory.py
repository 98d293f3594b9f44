"""Memory of a meta-gradient by the number of inner steps: how much the process grows, each in one of its own.

The work is that of `bench` on its smallest network. `reverse` stores every step, `segments` the root of them, `forward`
and `differences` none. Peaks are the system's own, above what two steps took; with glibc's threshold for large blocks
held down, without which freed memory may look used.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from metarule import bench
from metarule.inner import Reference, Runs
from metarule.outer.descent import Descent
from metarule.outer.estimators import Differences, Estimator, Exact

ESTIMATORS: dict[str, Estimator] = {
    "reverse": Exact(),
    "segments": Exact(),
    "forward": Exact("forward"),
    "differences": Differences(0.01),
}
STATUS = Path("/proc/self/status")
"""Where Linux says what a process itself took: its `ru_maxrss` begins at the size of the process that started it."""

STEPS = (100, 500, 2000)
RUNS, BATCH = 32, 4


def grown(name: str, steps: int) -> float:
    """MiB by which this process grows while it takes one slope through `steps` inner steps."""
    torch.set_num_threads(1)
    world = bench.setting(bench.Cell(bench.CELLS[0].sizes, RUNS, BATCH, steps))
    _slope(name, world, 2)
    before = _peak()
    _slope(name, world, steps)
    return _peak() - before


def _slope(name: str, world: bench.Setting, steps: int) -> None:
    estimator, centre = ESTIMATORS[name], Descent(world.learner.params)
    asked = 2 * len(centre.params) if name == "differences" else 1
    z = estimator.rows(centre, asked, bench.noise_for([("memory",)]), fresh=True)
    engine = Reference(block_runs=RUNS, segments=round(math.sqrt(steps)) if name == "segments" else 1)
    outcome = engine.evaluate(
        world.learner, centre.decoded(z), bench.Workload(world.cell, world.data),
        Runs(tuple(range(len(z))), tuple(range(RUNS))), range(steps), BATCH, estimator.wants,
    )  # fmt: skip
    estimator.slope(centre, outcome.loss[:, 0, 0].double(), outcome.grad)


def _peak() -> float:
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(steps: tuple[int, ...] = STEPS, names: tuple[str, ...] = tuple(ESTIMATORS)) -> list[dict[str, Any]]:
    """MiB of each of the estimators at every number of steps."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    rows = []
    for name in names:
        for length in steps:
            command = [sys.executable, "-m", "metarule.bench_memory", name, str(length)]
            found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            rows.append({"estimator": name, "steps": length, "grown_mib": round(float(found.stdout), 1)})
    return rows


if __name__ == "__main__":
    sys.stdout.write(f"{grown(sys.argv[1], int(sys.argv[2]))}\n")
