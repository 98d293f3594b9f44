"""Does a result depend on who computed it? One search on 1, 2 and 3 processes and on a Dask cluster of two workers.

Prints the SHA-256 of the log, of the result (the battery with it) and of theta, which must be the same in every row.

    python analysis/workers.py first_rule outer.generations=3 battery.episodes=20
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from metarule import jobs, reading
from metarule.cluster import Cluster
from metarule.runs import RunFolder

Digests = dict[str, str]


def digests(folder: Path) -> Digests:
    """SHA-256 of what a search concludes."""
    content = {name: (folder / name).read_bytes() for name in ("log.jsonl", "result.json")}
    content["theta"] = json.dumps(json.loads(content["result.json"])["theta"]).encode()
    return {name: hashlib.sha256(found).hexdigest() for name, found in content.items()}


def measured(search: str, overrides: tuple[str, ...], **where: Any) -> Digests:
    """What a search concludes in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        jobs.start(folder, *reading.read(reading.find(search), overrides), **where)
        return digests(folder.path)


@contextlib.contextmanager
def dask_cluster() -> Iterator[Cluster]:
    """A scheduler and two workers on this machine."""
    import distributed

    settings: Any = {"dashboard_address": None, "host": "127.0.0.1", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **settings) as local:
        here: Any = local
        yield Cluster(here.scheduler_address)


def numbers(search: str, overrides: tuple[str, ...], processes: tuple[int, ...] = (1, 2, 3)) -> dict[str, Digests]:
    """Digests by who computed."""
    found = {f"{count} processes": measured(search, overrides, workers=count) for count in processes}
    with dask_cluster() as cluster:
        found["Dask, 2 workers"] = measured(search, overrides, cluster=cluster)
    return found


def table(found: dict[str, Digests]) -> str:
    """One row per kind of workers, and the verdict."""
    lines = [
        f"{who:<16} " + "  ".join(f"{name} {digest[:12]}" for name, digest in row.items()) for who, row in found.items()
    ]
    same = len({tuple(row.values()) for row in found.values()}) == 1
    return "\n".join([*lines, "identical, bit for bit" if same else "DIFFERENT"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table(numbers(sys.argv[1], tuple(sys.argv[2:]))))
