"""A pool of worker processes that computes blocks of runs; results never depend on how many there are."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from metarule.inner import Job, Map, Result, in_turn
from metarule.plugins import load_plugin
from metarule.records import WorkersDied

ATTEMPTS = 3
"""How often a block is tried before a dying worker is taken for the block's own fault."""


@contextlib.contextmanager
def pool(workers: int, plugins: tuple[str, ...] = ()) -> Iterator[Map]:
    """A map over `workers` processes with one torch thread each; 1 stays in this process.

    A worker that dies is replaced and its block computed again; raises WorkersDied where a block kills its worker
    three times.
    """
    if workers <= 1:
        yield in_turn
        return
    crew = _Crew(workers, plugins)
    try:
        yield crew.map
    finally:
        crew.executor.shutdown(wait=True, cancel_futures=True)


class _Crew:
    def __init__(self, workers: int, plugins: tuple[str, ...]) -> None:
        self.workers = workers
        self.plugins = plugins
        self.executor = self._hired()

    def _hired(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, context, _settle, (self.plugins,))

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job], /) -> Iterable[Result]:
        results: dict[int, Result] = {}
        for attempt in range(1, ATTEMPTS + 1):
            futures: dict[int, Future[Result]] = {}
            try:
                for place, job in enumerate(jobs):
                    if place not in results:
                        futures[place] = self.executor.submit(function, job)
                for place, future in futures.items():
                    results[place] = future.result()
                return [results[place] for place in range(len(jobs))]
            except BrokenProcessPool:
                done = {p: f for p, f in futures.items() if f.done() and not f.cancelled() and f.exception() is None}
                results |= {place: future.result() for place, future in done.items()}
                self.executor.shutdown(wait=False, cancel_futures=True)
                self.executor = self._hired()
                if attempt == ATTEMPTS:
                    raise WorkersDied(
                        f"a block of runs killed its worker {ATTEMPTS} times; most likely memory ran out: "
                        "lower inner.block_runs or --workers"
                    ) from None
        raise AssertionError("unreachable")


def _settle(plugins: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the driver decides when to stop
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    for path in plugins:
        load_plugin(path)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
