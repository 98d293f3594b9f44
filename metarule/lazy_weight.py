"""LazyWeight: a weight as what it was and the factors added since, so that a gradient need not be as large per step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

METADATA = frozenset(
    {
        *(getattr(torch.Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout")),
        *(getattr(torch.Tensor, name) for name in ("size", "dim", "is_floating_point", "new_ones", "new_zeros")),
    }
)
"""What is asked of a tensor without reading it."""


@dataclass(frozen=True, eq=False)
class Parts:
    """W = scale base + left^T right. `pairs` fills on the way back: the gradient that reached base past autograd.

    `token` stands for base in autograd's graph; None where no gradient of base is wanted.
    """

    base: Float[Tensor, "R I J"]
    token: Tensor | None = None
    scale: Float[Tensor, "R 1 1"] | None = None
    left: Float[Tensor, "R N I"] | None = None
    right: Float[Tensor, "R N J"] | None = None
    pairs: list[tuple[Float[Tensor, "R B I"], Float[Tensor, "R B J"]]] = field(default_factory=list)

    def whole(self) -> Float[Tensor, "R I J"]:
        """The weight written out; base itself where nothing was added."""
        total = self.base if self.scale is None else self.base * self.scale
        if self.left is None or self.right is None:
            return total
        return torch.baddbmm(total, self.left.transpose(1, 2), self.right)

    def added(self, left: Tensor, right: Tensor) -> Parts:
        """W + left^T right."""
        if self.left is None or self.right is None:
            return replace(self, left=left, right=right)
        return replace(self, left=torch.cat((self.left, left), 1), right=torch.cat((self.right, right), 1))

    def shrunk(self, keep: Float[Tensor, "R 1 1"]) -> Parts:
        """keep W."""
        scale = keep if self.scale is None else self.scale * keep
        return replace(self, scale=scale, right=None if self.right is None else self.right * keep)

    def multiplied(self, x: Tensor, turned: bool) -> Tensor:
        """x W (R B J), or x W^T (R B I) where `turned`."""
        out = _Through.apply(x, self.base.detach(), self.token, self.pairs, turned)
        out = out if self.scale is None else out * self.scale
        if self.left is None or self.right is None:
            return out
        first, second = (self.right, self.left) if turned else (self.left, self.right)
        return torch.baddbmm(out, torch.bmm(x, first.transpose(1, 2)), second)

    def gradient(self, found: Float[Tensor, "R I J"]) -> Float[Tensor, "R I J"]:
        """The whole gradient of base: what autograd `found` and the pairs, in one pass."""
        if not self.pairs:
            return found
        left, right = (torch.cat(side, dim=1) for side in zip(*self.pairs, strict=True))
        return torch.baddbmm(found, left.transpose(1, 2), right)


class _Through(torch.autograd.Function):
    """x base or x base^T, whose gradient of base is written down as a pair instead of a matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Tensor, token: Tensor | None, pairs: list[Any], turned: bool) -> Tensor:
        ctx.save_for_backward(x, base)
        ctx.pairs, ctx.turned = pairs, turned
        return torch.bmm(x, base.transpose(1, 2) if turned else base)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, base = ctx.saved_tensors
        (gradient,) = gradients
        back = None
        if ctx.needs_input_grad[0]:
            back = torch.bmm(gradient, base if ctx.turned else base.transpose(1, 2))
        if ctx.needs_input_grad[2]:
            ctx.pairs.append((gradient, x) if ctx.turned else (x, gradient))
        return back, None, None, None, None


class LazyWeight(Tensor):
    """Products with it, additions of factors to it and shrinking never write it out; anything else does.

    To all who use it a tensor like any other.
    """

    parts: Parts
    turned: bool

    @staticmethod
    def of(parts: Parts, turned: bool = False) -> LazyWeight:
        """The weight of `parts`, or its transpose."""
        shown = parts.base.detach()
        made = torch.Tensor._make_subclass(LazyWeight, shown.transpose(1, 2) if turned else shown)
        made.parts, made.turned = parts, turned
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in _LAZY and not kwargs:
            with torch._C.DisableTorchFunctionSubclass():
                answer = _LAZY[func](*args)
            if answer is not None:
                return answer
        with torch._C.DisableTorchFunctionSubclass():
            return func(*map(written, args), **{name: written(value) for name, value in kwargs.items()})


def written(value: Any) -> Any:
    """A weight written out; everything else, lists of weights apart, as it is."""
    if type(value) is LazyWeight:
        whole = value.parts.whole()
        return whole.transpose(1, 2) if value.turned else whole
    return type(value)(map(written, value)) if type(value) in (list, tuple) else value


def _lazy(*values: Any) -> bool:
    return any(type(value) is LazyWeight for value in values)


def _transpose(weight: Any, first: int, second: int) -> LazyWeight | None:
    return LazyWeight.of(weight.parts, not weight.turned) if {first % 3, second % 3} == {1, 2} else None


def _bmm(x: Any, weight: Any) -> Tensor | None:
    return None if _lazy(x) else weight.parts.multiplied(x, weight.turned)


def _baddbmm(total: Any, left: Any, right: Any) -> Tensor | None:
    if _lazy(total) and not total.turned and not _lazy(left, right):
        return LazyWeight.of(total.parts.added(left.transpose(1, 2), right))
    if _lazy(right) and not _lazy(total, left):
        return total + right.parts.multiplied(left, right.turned)
    return None


def _mul(weight: Any, keep: Any) -> LazyWeight | None:
    per_run = isinstance(keep, Tensor) and not _lazy(keep) and keep.dim() == 3 and keep.shape[1:] == (1, 1)
    return LazyWeight.of(weight.parts.shrunk(keep), weight.turned) if _lazy(weight) and per_run else None


_LAZY: dict[Any, Callable[..., Tensor | None]] = {
    torch.Tensor.transpose: _transpose,
    torch.bmm: _bmm,
    torch.baddbmm: _baddbmm,
    torch.Tensor.mul: _mul,
}
