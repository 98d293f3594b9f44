"""What one core can reach: the speed of a large matrix product, and of reading the second-level cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import torch

PRODUCTS = (512, 1024, 2048)
SECOND_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
REPEATS, READS = 5, 100


class Peaks(NamedTuple):
    """Floating-point operations per second of torch's best large product, bytes read per second from L2."""

    sgemm: float
    l2: float


def peaks(cores: int = 1) -> Peaks:
    """Peaks of the torch threads that are set; `l2` is one core's, times `cores`."""
    return Peaks(sgemm(), cores * l2_bandwidth())


def sgemm() -> float:
    """Operations per second of torch.mm at the best of 512, 1024 and 2048: what a step could reach at most."""
    best = 0.0
    for size in PRODUCTS:
        left, right = torch.rand(2, size, size)
        for _ in range(2):
            began = time.perf_counter()
            torch.mm(left, right)
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def l2_bandwidth() -> float:
    """Bytes per second that torch.dot reads of buffers in the second-level cache, on one thread.

    From the shortest times of two sizes, half and a quarter of that cache: their difference leaves out what a call
    costs, and what the first level serves of either. A dot product reads two vectors and does next to nothing else; it
    is the fastest reader that torch has (sum and mv reach .7 and .4 of it).
    """
    large, small = second_level() // 2, second_level() // 4
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        apart = [_read(large) - _read(small) for _ in range(REPEATS)]
    finally:
        torch.set_num_threads(threads)
    return (large - small) / sorted(apart)[REPEATS // 2]


def _read(size: int) -> float:
    """Seconds of a pass over two buffers that together have `size` bytes."""
    one, other = torch.rand(2, size // 8)
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(READS):
            torch.dot(one, other)
        best = min(best, (time.perf_counter() - began) / READS)
    return best


def second_level() -> int:
    """Bytes of one core's second-level cache; 1 MiB where the system does not say."""
    try:
        said = SECOND_LEVEL.read_text().strip()
    except OSError:
        return 1 << 20
    return int(said[:-1]) * {"K": 1 << 10, "M": 1 << 20}[said[-1]] if said[-1:] in "KM" else int(said)


def processor() -> str:
    """The processor's name, as the system says it; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
