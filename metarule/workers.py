"""A pool of worker processes that computes blocks of runs; results never depend on how many there are."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import torch

from metarule.inner import Arrived, Job, Map, Result, in_turn, unheard
from metarule.plugins import load_plugin
from metarule.records import WorkersDied

ATTEMPTS = 3
"""How often a block is tried before a dying worker is taken for the block's own fault."""


@contextlib.contextmanager
def pool(workers: int, plugins: tuple[str, ...] = (), say: Callable[[str], None] = lambda text: None) -> Iterator[Map]:
    """A map over `workers` processes with one torch thread each; 1 stays in this process.

    A worker that dies is replaced and the block that it had computed again, which `say` hears; raises WorkersDied
    where one block loses its worker three times.
    """
    if workers <= 1:
        yield in_turn
        return
    crew = _Crew(workers, plugins, say)
    try:
        yield crew.map
    finally:
        for seat in crew.seats:
            seat.shutdown(wait=False, cancel_futures=True)
        for seat in crew.seats:
            seat.shutdown(wait=True)


class _Crew:
    """Every worker is a pool of its own: the death of one tells which block it had, and costs no other's work."""

    def __init__(self, workers: int, plugins: tuple[str, ...], say: Callable[[str], None]) -> None:
        self.plugins = plugins
        self.say = say
        self.seats = [self._hired() for _ in range(workers)]

    def _hired(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, context, _settle, (self.plugins,))

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], /, arrived: Arrived = unheard
    ) -> Iterable[Result]:
        results: dict[int, Result] = {}
        attempts = [0] * len(jobs)
        waiting = deque(range(len(jobs)))
        free = deque(range(len(self.seats)))
        busy: dict[Future[Result], tuple[int, int]] = {}
        try:
            while len(results) < len(jobs):
                while waiting and free:
                    place, seat = waiting.popleft(), free.popleft()
                    attempts[place] += 1
                    busy[self._given(seat, function, jobs[place])] = place, seat
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    place, seat = busy.pop(future)
                    free.append(seat)
                    try:
                        results[place] = future.result()
                    except BrokenProcessPool:
                        self.seats[seat] = self._hired()
                        self._again(place, attempts[place])
                        waiting.appendleft(place)
                        continue
                    arrived(place, results[place])
        finally:
            wait(busy)  # nothing is left at work when a map ends, however it ends
        return [results[place] for place in range(len(jobs))]

    def _given(self, seat: int, function: Callable[[Job], Result], job: Job) -> Future[Result]:
        try:
            return self.seats[seat].submit(function, job)
        except BrokenProcessPool:  # it died with nothing to do, and no block is to blame
            self.seats[seat] = self._hired()
            return self.seats[seat].submit(function, job)

    def _again(self, place: int, attempt: int) -> None:
        if attempt == ATTEMPTS:
            raise WorkersDied(
                f"block {place} killed its worker {ATTEMPTS} times; most likely memory ran out: lower inner.block_runs "
                "or --workers"
            )
        self.say(f"a worker died at block {place}; the block is computed again (attempt {attempt + 1} of {ATTEMPTS})")


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
