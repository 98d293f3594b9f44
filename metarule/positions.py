"""Readings: how a projection sees an image whose positions are events: patches, averages, or all of it at once."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

Pair = tuple[int, int]
"""Rows and columns."""


class Reading(Protocol):
    """A linear map of the units of a population, the same for every run, and its transpose."""

    def gather(self, values: Tensor, /) -> Tensor:
        """What is read of `values`."""
        ...

    def back(self, sent: Tensor, /) -> Tensor:
        """What was sent to all that is read, summed at the units that were read: the transpose of `gather`."""
        ...


class Window(NamedTuple):
    """A window that slides over images of `size`, as in nn.Conv2d; four pairs of rows and columns."""

    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def places(self) -> Pair:
        """Rows and columns of places where it comes to lie."""
        rows, columns = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(*self, strict=True)
        )
        return rows, columns

    def cut(self, values: Float[Tensor, "R N C"]) -> Float[Tensor, "R M L"]:
        """One event per place (N = B size, M = B places) with all that the window shows there (L = C kernel)."""
        runs, _, channels = values.shape
        images = values.reshape(-1, *self.size, channels).permute(0, 3, 1, 2)
        seen = functional.unfold(images, self.kernel, self.dilation, self.padding, self.stride)
        return seen.transpose(1, 2).reshape(runs, -1, seen.shape[1])

    def laid(self, sent: Float[Tensor, "R M L"]) -> Float[Tensor, "R N C"]:
        """What was sent to every window, summed where windows overlap: the transpose of `cut`."""
        runs, _, width = sent.shape
        rows, columns = self.places
        shown = sent.reshape(-1, rows * columns, width).transpose(1, 2)
        images = functional.fold(shown, self.size, self.kernel, self.dilation, self.padding, self.stride)
        return images.flatten(2).transpose(1, 2).reshape(runs, -1, images.shape[1])


class Patches(NamedTuple):
    """Every place of a window is an event: a convolution is one weight that all of them share."""

    window: Window

    def gather(self, values: Tensor) -> Tensor:
        return self.window.cut(values)

    def back(self, sent: Tensor) -> Tensor:
        return self.window.laid(sent)


class Averages(NamedTuple):
    """The mean over every place of a window, channel by channel, as nn.AvgPool2d takes it."""

    window: Window

    @property
    def area(self) -> int:
        """Positions in a window."""
        return self.window.kernel[0] * self.window.kernel[1]

    def gather(self, values: Tensor) -> Tensor:
        return self.window.cut(values).unflatten(2, (-1, self.area)).mean(3)

    def back(self, sent: Tensor) -> Tensor:
        return self.window.laid((sent / self.area).repeat_interleave(self.area, dim=2))


class Whole(NamedTuple):
    """All positions of an image at once, channel by channel as nn.Flatten lays them out: one event per image."""

    positions: int

    def gather(self, values: Tensor) -> Tensor:
        return values.unflatten(1, (-1, self.positions)).transpose(2, 3).flatten(2)

    def back(self, sent: Tensor) -> Tensor:
        return sent.unflatten(2, (-1, self.positions)).transpose(2, 3).flatten(1, 2)
