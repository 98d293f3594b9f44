"""Dask: the same numbers wherever blocks are computed, dead workers included, and a sentence where there is nobody."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import killing
import pytest
from building import Job, doubled

from metarule import cluster as module
from metarule import jobs, reading
from metarule.cluster import Cluster
from metarule.collect import load_file
from metarule.records import ClusterLost, WorkersDied
from metarule.runs import RunFolder

distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
pytest.importorskip("cryptography", reason="the extra 'cluster' is not installed")

ROOT = Path(__file__).parent.parent
analysis = load_file(ROOT / "analysis" / "workers.py")

DEATHS = 1
"""How many workers a block may cost here, so that the test of one that costs all is short."""

QUIET: Any = {"dashboard_address": None, "host": "127.0.0.1", "silence_logs": 50}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler and two workers, each a process of its own, as they are on a cluster."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(DEATHS), "OMP_NUM_THREADS": "1", **paths}
    commands = (
        ("scheduler", "--port", "0", "--host", "127.0.0.1", "--scheduler-file", file, "--no-dashboard"),
        ("worker", "--scheduler-file", file, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"),
    )
    with (folder / "log").open("w") as log, contextlib.ExitStack() as processes:
        for role, *options in commands:
            command = [sys.executable, "-m", f"distributed.cli.dask_{role}", *map(str, options)]
            process = subprocess.Popen(command, cwd=folder, env={**os.environ, **settings}, stdout=log, stderr=log)
            processes.callback(process.wait)
            processes.callback(process.terminate)
            _until(file)
        yield json.loads(file.read_text())["address"]


@pytest.fixture
def nobody():
    """A scheduler without workers."""
    with distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp", **QUIET) as local:
        yield local


def test_a_search_on_a_cluster_ends_as_in_one_process_plug_ins_included(address):
    file = str(ROOT / "docs" / "my_rule.toml")
    sizes = ("outer.generations=2", "outer.candidates=4", "inner.steps=5", "inner.block_runs=4", "network.hidden=[8]")
    settings = (*sizes, "battery.episodes=0")
    found = {
        "one process": analysis.measured(file, settings, workers=1),
        "Dask": analysis.measured(file, settings, cluster=Cluster(address)),
    }
    assert analysis.table(found).endswith("identical, bit for bit")
    found["Dask"] = found["Dask"] | {"theta": "another"}
    assert analysis.table(found).endswith("DIFFERENT")


def test_a_worker_that_dies_is_replaced_and_every_block_is_heard_of_once(address, tmp_path):
    flag, heard = tmp_path / "died", []
    with Cluster(address).map() as map:
        given: Any = [Job(0), Job(1), Job(2, flag), Job(3)]
        results = list(map(doubled, given, arrived=lambda place, result: heard.append((place, result))))
    assert results == [0, 2, 4, 6]
    assert sorted(heard) == [(0, 0), (1, 2), (2, 4), (3, 6)]
    assert flag.read_text() == "died\n"


def test_a_block_that_always_kills_is_given_up(address, tmp_path):
    flag = tmp_path / "died"
    given: Any = [Job(0, flag, once=False)]
    with Cluster(address).map() as map, pytest.raises(WorkersDied, match="block 0 killed its worker again and again"):
        map(doubled, given)
    assert flag.read_text() == "died\n" * (DEATHS + 1)


def test_a_scheduler_that_is_gone_leaves_a_run_that_goes_on_elsewhere(nobody, tmp_path):
    folder = RunFolder(killing.prepared(tmp_path / "run", "cma_es", generations=2))
    said = []
    leave = threading.Thread(target=lambda: (_until(folder.path / "spec.json"), nobody.close()))
    leave.start()
    with pytest.raises(ClusterLost, match="is gone"):
        jobs.start(
            folder,
            *reading.read(folder.path / "asked.toml"),
            listener=jobs.Listener(message=said.append),
            cluster=Cluster(nobody.scheduler_address),
        )
    leave.join()
    assert "0 workers yet; blocks wait for them" in said[0]
    jobs.resume(folder)
    whole = RunFolder(killing.prepared(tmp_path / "whole" / "run", "cma_es", generations=2))
    jobs.start(whole, *reading.read(whole.path / "asked.toml"))
    assert killing.digests(folder.path) == killing.digests(whole.path)


def _until(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def test_the_scheduler_is_found_by_its_file_and_spoken_to_by_tls_only(tmp_path):
    security = distributed.Security.temporary()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    for name, content in (("ca", "tls_ca_file"), ("cert", "tls_client_cert"), ("key", "tls_client_key")):
        files[name].write_text(getattr(security, content))
    found = tmp_path / "scheduler.json"
    with distributed.LocalCluster(n_workers=0, processes=False, security=security, protocol="tls", **QUIET) as local:
        found.write_text(f'{{"address": "{local.scheduler_address}"}}')
        said: list[str] = []
        with Cluster(None, found, files["ca"], files["cert"], files["key"]).map((), said.append):
            assert said[0].startswith("Dask scheduler at tls://")
        with pytest.raises(ValueError, match="no Dask scheduler answers"), Cluster(local.scheduler_address).map():
            pass


def test_what_cannot_be_is_refused_in_a_sentence(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="and not both"):
        Cluster("tcp://127.0.0.1:1", tmp_path / "scheduler.json")
    with pytest.raises(ValueError, match="TLS needs all of"):
        Cluster("tls://127.0.0.1:1", tls_ca=tmp_path / "ca.pem")
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    with pytest.raises(ValueError, match="no Dask scheduler answers at tcp://127"), Cluster("tcp://127.0.0.1:1").map():
        pass
    with pytest.raises(ValueError, match="did not appear"), Cluster(None, tmp_path / "scheduler.json").map():
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'metarule\[cluster\]'"), Cluster("tcp://127.0.0.1:1").map():
        pass


def test_an_open_port_is_called_open():
    class Client:
        class scheduler:  # noqa: N801 - as Dask's client has it
            address = "tcp://10.0.0.5:8786"

        def scheduler_info(self, n_workers: int) -> dict[str, Any]:
            return {"workers": {"one": {}}}

    assert "not encrypted: whoever reaches that port can run code as you" in module._welcome(Client())
