"""Pieces of work side by side, on threads that stay: to start one takes as long as many steps of a run."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait


def side_by_side(function: Callable[[int, int], int], count: int, threads: int) -> list[int]:
    """function(first, last) of as many even pieces of `count` things as `threads`, the last one on this thread."""
    cuts = [count * place // threads for place in range(threads + 1)]
    *others, own = itertools.pairwise(cuts)
    running = [_crew().submit(function, *piece) for piece in others]
    try:
        last = function(*own)
        return [*(each.result() for each in running), last]
    finally:
        wait(running)  # they write into memory of ours, also where this thread is interrupted


@functools.lru_cache(maxsize=1)
def _crew() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.cache_clear)  # a child process has none of its parent's threads
