"""Randomness by address: a draw is a pure function of where it is used, so nothing random is ever saved.

An address is a seed and labels: (seed, "episode", 17, "weights", "input->h1"). It is hashed to one int64 key per
run; a counter-based generator (SplitMix64, Steele et al. 2014) turns key and position into numbers. Draws therefore
do not depend on which other runs share the batch, on blocks, or on workers.
"""

from __future__ import annotations

import functools
import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Label = str | int

AT_ONCE = 1 << 15
"""Numbers that are drawn at a time: few enough to stay in cache."""

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the SplitMix64 increment, as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def seed_number(*labels: Label, bits: int = 31) -> int:
    """An integer seed below 2**bits for a library that wants one, a pure function of its labels."""
    digest = hashlib.blake2b(repr(labels).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (1 << bits)


@dataclass(frozen=True, eq=False)
class Noise:
    """A lazy stream of random numbers with one key per run.

    `keys` (U) are the distinct addresses and `index` (R) says which one each run has: candidates tried on the same
    episode share its key, and what they share is drawn once.
    """

    keys: Tensor
    index: Tensor
    dtype: torch.dtype = torch.float64
    labels: tuple[Label, ...] = ()

    @property
    def runs(self) -> int:
        """R, the number of runs."""
        return self.index.shape[0]

    def at(self, *labels: Label) -> Noise:
        """The stream at a deeper address; costs nothing until it is drawn from."""
        return Noise(self.keys, self.index, self.dtype, self.labels + labels)

    def to(self, device: torch.device) -> Noise:
        """The same stream, drawn on a device."""
        return replace(self, keys=self.keys.to(device), index=self.index.to(device))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high), (R, *shape)."""
        return self._spread(self._unit(shape).mul_(high - low).add_(low).to(self.dtype))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (R, *shape)."""
        return self._spread(torch.special.ndtri(self._unit(shape)).to(self.dtype))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), int64 (R, *shape)."""
        return self._spread((self._unit(shape) * high).to(torch.int64).clamp_(max=high - 1))

    def orthonormal(self, rows: int, columns: int) -> Tensor:
        """Orthonormal rows or columns, whichever are fewer, uniform over rotations, (R, rows, columns)."""
        tall = (max(rows, columns), min(rows, columns))
        factor, triangle = torch.linalg.qr(torch.special.ndtri(self._unit(tall)).to(self.dtype))
        # without the signs of the diagonal the directions would not be uniform
        factor = factor * triangle.diagonal(dim1=1, dim2=2).sign()[:, None, :]
        return self._spread(factor if rows >= columns else factor.transpose(1, 2)).contiguous()

    def rows(self, count: int, size: int) -> Tensor:
        """`count` distinct indices below `size` in random order, int64 (R, count); raises ValueError if too many."""
        if count > size:
            raise ValueError(f"cannot draw {count} distinct rows out of {size}")
        return self._spread(self._bits((size,)).argsort(dim=1, stable=True)[:, :count])

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        return torch.cat(list(self._drawn(math.prod(shape))), dim=1).reshape(-1, *shape)

    def _unit(self, shape: tuple[int, ...]) -> Tensor:
        # 52 bits at the centre of their cell: strictly inside (0, 1), also for ndtri
        drawn = self._drawn(math.prod(shape))
        parts = [_shifted(bits, 12).to(torch.float64).add_(0.5).mul_(2.0**-52) for bits in drawn]
        return torch.cat(parts, dim=1).reshape(-1, *shape)

    def _drawn(self, count: int) -> Iterator[Tensor]:
        """64 random bits each, int64 (streams, count), in parts that stay in cache while they are mixed."""
        keys = _mixed(self.keys + _label_key(self.labels))
        width = max(AT_ONCE // len(keys), 64)
        for first in range(0, max(count, 1), width):
            last = min(first + width, count)
            counter = torch.arange(first + 1, last + 1, dtype=torch.int64, device=keys.device) * _GOLDEN
            yield _mixed(keys[:, None] + counter)

    def _spread(self, values: Tensor) -> Tensor:
        # the index of as many runs as streams says nothing
        return values if len(self.keys) == len(self.index) else values[self.index]


def noise_for(addresses: Iterable[tuple[Label, ...]], dtype: torch.dtype = torch.float64) -> Noise:
    """One stream per run from a list of addresses, one per run; equal addresses share their draws."""
    places: dict[tuple[Label, ...], int] = {}
    index = [places.setdefault(address, len(places)) for address in addresses]
    return Noise(_integers(map(_label_key, places)), _integers(index), dtype)


def _integers(values: Iterable[int]) -> Tensor:
    held = array("q", values)  # a tensor made of a list looks at every number for its type
    return torch.frombuffer(held, dtype=torch.int64) if held else torch.empty(0, dtype=torch.int64)


@functools.lru_cache(maxsize=65536)
def _label_key(labels: tuple[Label, ...]) -> int:
    digest = hashlib.blake2b(repr(labels).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _shifted(bits: Tensor, by: int) -> Tensor:
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)  # logical shift: torch's is arithmetic


def _mixed(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)).mul_(_MIX_1)
    bits = bits.bitwise_xor_(_shifted(bits, 27)).mul_(_MIX_2)
    return bits.bitwise_xor_(_shifted(bits, 31))
