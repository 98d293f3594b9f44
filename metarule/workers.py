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
from typing import Any

import torch

from metarule.inner import Arrived, Job, Map, Result, in_turn, unheard
from metarule.plugins import load_plugin
from metarule.records import WorkersDied

ATTEMPTS = 3
"""How often a block is tried before a dying worker is taken for the block's own fault."""

STILLBORN = 20
"""How many workers in a row may die before they have begun."""


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
        self.seats: list[ProcessPoolExecutor] = []
        self.starting: dict[Future[Any], int] = {}
        self.free: deque[int] = deque()
        self.stillborn = 0
        for seat in range(workers):
            self.seats.append(self._seat())
            self.starting[self.seats[seat].submit(_ready)] = seat

    def _seat(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _settle, (self.plugins,))

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], /, arrived: Arrived = unheard
    ) -> Iterable[Result]:
        results: dict[int, Result] = {}
        attempts = [0] * len(jobs)
        waiting = deque(range(len(jobs)))
        busy: dict[Future[Any], tuple[int, int]] = {}
        try:
            while len(results) < len(jobs):
                while waiting and self.free:
                    seat = self.free.popleft()
                    try:
                        busy[self.seats[seat].submit(function, jobs[waiting[0]])] = waiting[0], seat
                    except BrokenProcessPool:  # it died with nothing to do, and no block is to blame
                        self._hire(seat)
                        continue
                    attempts[waiting.popleft()] += 1
                for future in wait([*busy, *self.starting], return_when=FIRST_COMPLETED).done:
                    if future in self.starting:
                        self._begun(future)
                        continue
                    place, seat = busy.pop(future)
                    try:
                        results[place] = future.result()
                    except BrokenProcessPool:
                        self._hire(seat)
                        self._again(place, attempts[place])
                        waiting.appendleft(place)
                        continue
                    except BaseException:
                        self.free.append(seat)
                        raise
                    self.free.append(seat)
                    arrived(place, results[place])
        finally:
            wait(busy)  # nothing is left at work when a map ends, however it ends
            self.free.extend(seat for _, seat in busy.values())
        return [results[place] for place in range(len(jobs))]

    def _hire(self, seat: int) -> None:
        self.seats[seat] = self._seat()
        self.starting[self.seats[seat].submit(_ready)] = seat

    def _begun(self, future: Future[Any]) -> None:
        seat = self.starting.pop(future)
        try:
            future.result()
        except BrokenProcessPool:
            self.stillborn += 1
            if self.stillborn == STILLBORN:
                raise WorkersDied(
                    f"{STILLBORN} workers in a row died before they began; is there memory for another --workers?"
                ) from None
            self._hire(seat)
            return
        self.stillborn = 0
        self.free.append(seat)

    def _again(self, place: int, attempt: int) -> None:
        if attempt == ATTEMPTS:
            raise WorkersDied(
                f"block {place} killed its worker {ATTEMPTS} times; most likely memory ran out: lower inner.block_runs "
                "or --workers"
            )
        self.say(f"a worker died at block {place}; the block is computed again (attempt {attempt + 1} of {ATTEMPTS})")


def _ready() -> None:
    """What a worker does first: a death before it is done is no block's fault."""


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
