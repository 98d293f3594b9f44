"""Blocks of runs on the workers of a Dask cluster, from a laptop to Slurm; results never depend on where they ran.

Dask's processes trust one another: whoever reaches the scheduler's port can run code as its owner. Where others can,
use TLS. No file of a user's is ever unpickled; what travels between the processes is Dask's own.
"""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import torch

from metarule.inner import Arrived, Job, Map, Result, unheard
from metarule.plugins import load_installed, load_plugin
from metarule.records import ClusterLost, WorkersDied

RETRIES = 3
"""How often Dask tries a block again whose function raised, as it does where its files are out of reach for a while."""

PATIENCE = 60.0
"""Seconds to wait for the scheduler, or for the file that says where it is."""

HERE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Cluster:
    """Where the scheduler is, by its address or by the file that `dask scheduler --scheduler-file` writes.

    `tls_ca`, `tls_cert` and `tls_key` are files; without them Dask's own configuration decides.
    """

    address: str | None = None
    scheduler_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        if (self.address is None) == (self.scheduler_file is None):
            raise ValueError("give the address of Dask's scheduler or its --scheduler-file, and not both")
        files = (self.tls_ca, self.tls_cert, self.tls_key)
        if any(files) and not all(files):
            raise ValueError("TLS needs all of --tls-ca, --tls-cert and --tls-key")

    @contextlib.contextmanager
    def map(self, plugins: tuple[str, ...] = (), say: Callable[[str], None] = lambda text: None) -> Iterator[Map]:
        """A map over the cluster's workers, those that join later included; a block whose worker dies goes to another.

        Raises ValueError where the extra is missing or no scheduler answers; the map raises WorkersDied where a block
        kills worker after worker, ClusterLost where the scheduler is gone.
        """
        distributed = _distributed()
        client = self._connected(distributed)
        try:
            say(_welcome(client))
            client.register_worker_callbacks(functools.partial(_settle, plugins))
            yield functools.partial(_mapped, distributed, client)
        finally:
            with contextlib.suppress(OSError, TimeoutError):
                client.close(timeout=5)

    def _connected(self, distributed: ModuleType) -> Any:
        security = None
        if self.tls_ca is not None:
            security = distributed.Security(
                tls_ca_file=str(self.tls_ca),
                tls_client_cert=str(self.tls_cert),
                tls_client_key=str(self.tls_key),
                require_encryption=True,
            )
        where: dict[str, Any] = {"address": self.address}
        if self.scheduler_file is not None:
            _awaited(self.scheduler_file)
            where = {"scheduler_file": str(self.scheduler_file)}
        try:
            return distributed.Client(**where, security=security, timeout=PATIENCE, set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise ValueError(f"no Dask scheduler answers at {self.address or self.scheduler_file}: {error}") from error


def _distributed() -> ModuleType:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise ValueError(
            f"a Dask cluster needs the extra 'cluster' ({error.name} is missing): pip install 'metarule[cluster]'"
        ) from None
    return distributed


def _awaited(file: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > end:
            raise ValueError(
                f"--scheduler-file {file} did not appear within {PATIENCE:.0f} s; is the scheduler running?"
            )
        time.sleep(0.2)


def _welcome(client: Any) -> str:
    address = client.scheduler.address
    count = len(client.scheduler_info(n_workers=-1)["workers"])
    sentence = f"Dask scheduler at {address}, {count} workers" + ("" if count else " yet; blocks wait for them")
    url = urlsplit(address)
    if url.scheme == "tcp" and url.hostname not in HERE:
        sentence += "; not encrypted: whoever reaches that port can run code as you (--tls-ca, --tls-cert, --tls-key)"
    return sentence


def _mapped(
    distributed: ModuleType,
    client: Any,
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    /,
    arrived: Arrived = unheard,
) -> Iterable[Result]:
    # bytes: the scheduler, which would unpack all else, knows nothing of plug-ins
    sealed = distributed.protocol.pickle
    name, mine = f"block-{uuid.uuid4().hex}", _versions()
    places = {f"{name}-{place}": place for place in range(len(jobs))}
    futures = [
        client.submit(_computed, sealed.dumps((function, job)), mine, key=key, retries=RETRIES, pure=False)
        for key, job in zip(places, jobs, strict=True)
    ]
    results: dict[int, Result] = {}
    try:
        for future, result in distributed.as_completed(futures, loop=client.loop, with_results=True):
            if isinstance(result, BaseException):  # what is yielded where the scheduler is gone
                raise ClusterLost(f"Dask's scheduler at {client.scheduler.address} is gone ({result})")
            place = places[future.key]
            results[place] = result
            future.release()  # a result that stays in a worker's memory is computed again when that worker dies
            arrived(place, result)
    except distributed.KilledWorker as error:
        raise WorkersDied(
            f"block {places.get(error.task, error.task)} killed its worker again and again; most likely memory ran "
            "out: lower inner.block_runs"
        ) from error
    except (distributed.CancelledError, OSError) as error:
        raise ClusterLost(f"Dask's scheduler at {client.scheduler.address} is gone ({error})") from error
    finally:
        for future in futures:
            future.release()
    return [results[place] for place in range(len(jobs))]


def _computed(sealed: bytes, theirs: dict[str, str]) -> Any:
    if (mine := _versions()) != theirs:
        raise ValueError(f"a worker has {mine} and the search {theirs}: their results would not agree")
    torch.set_num_threads(1)
    function, job = _distributed().protocol.pickle.loads(sealed)
    return function(job)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("metarule", "torch")}


def _settle(plugins: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    load_installed()
    for path in plugins:
        load_plugin(path)
