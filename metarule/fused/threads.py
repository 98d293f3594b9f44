"""Pieces of work side by side, on threads that stay: to start one takes as long as many steps of a run."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait


def side_by_side(function: Callable[[int, int], int], count: int, threads: int) -> list[int]:
    """function(first, last) of as many even pieces of `count` things as `threads`, the last one on this thread."""
    cuts = [count * place // threads for place in range(threads + 1)]
    *others, own = itertools.pairwise(cuts)
    if others:
        _crew().leave_this_core()
    running = []
    try:
        for piece in others:
            running.append(_crew().pool.submit(function, *piece))
        last = function(*own)
        return [*(each.result() for each in running), last]
    finally:
        wait(running)  # they write into memory of ours, also where this thread is interrupted


class _Crew:
    """Threads that stay, and where they may run."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.pool = ThreadPoolExecutor(
            os.cpu_count(), initializer=lambda: self.threads.append(threading.get_native_id())
        )
        self.here = getattr(ctypes.CDLL(None), "sched_getcpu", None)

    def leave_this_core(self) -> None:
        """Keeps the threads off the core that this one runs on: the system may wake them there while others idle."""
        if self.here is None or not hasattr(os, "sched_setaffinity"):
            return
        usable = os.sched_getaffinity(0)
        with contextlib.suppress(OSError):  # where it may not be said, or a thread has ended
            for thread in self.threads:
                os.sched_setaffinity(thread, usable - {self.here()} or usable)


@functools.lru_cache(maxsize=1)
def _crew() -> _Crew:
    return _Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.cache_clear)  # a child process has none of its parent's threads
