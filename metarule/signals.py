"""All that flows between the parts of a learner: a batch, the signals at a synapse, and the change they induce.

Axis letters, used in every annotation of the package:
C candidates, E episodes, R = C*E runs (candidate-major), B events in a batch, J pre units, I post units,
P rule parameters, K terms, T inner steps, M objectives, N stacked events of several terms,
D coordinates that an optimizer moves, H units that it has for each.
R is always there, R = 1 included; no axis is ever guessed from a size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

State = dict[str, Any]
"""Nested dict of tensors whose first axis is R, counters included: blocks, carry and pruning slice it by runs."""


class Batch(NamedTuple):
    """What a task shows at one inner step.

    `x` (R B J of the input), `y` (R B I of the output: one-hot classes or real targets) and, for tasks that
    only pay a reward, `reward`: action (R B I) -> (R B 1).
    """

    x: Float[Tensor, "R B J"]
    y: Float[Tensor, "R B I"] | None = None
    reward: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Signals:
    """What one projection may see at one plasticity event; a credit assignment fills what it `gives`.

    `error` is the direction in which a unit should move: target - output at a matched output. `*_ref` is the same
    quantity in a reference condition (free phase, baseline, clean pass, trace). The last column of `pre` is the
    always-on unit where the projection has a bias; its `pre_error` is 0. `eligibility` is what a synapse remembers of
    its own activity until it is judged, one number for all events.
    """

    weight: Float[Tensor, "R I J"]
    pre: Float[Tensor, "R B J"] | None = None
    post: Float[Tensor, "R B I"] | None = None
    pre_ref: Float[Tensor, "R B J"] | None = None
    post_ref: Float[Tensor, "R B I"] | None = None
    feedback: Float[Tensor, "R B I"] | None = None
    error: Float[Tensor, "R B I"] | None = None
    pre_error: Float[Tensor, "R B J"] | None = None
    gain: Float[Tensor, "R B I"] | None = None
    reward: Float[Tensor, "R B 1"] | None = None
    weight_noise: Float[Tensor, "R I J"] | None = None
    eligibility: Float[Tensor, "R I J"] | None = None

    def read(self, name: str) -> Tensor:
        """The signal called `name`; raises ValueError where the credit assignment did not give it."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"signal '{name}' was read, but the credit assignment does not give it")
        return value


SIGNALS = tuple(name for name in Signals.__dataclass_fields__)
"""Names of all signals, in order."""


@dataclass(frozen=True, eq=False)
class Change:
    """An induced weight change, kept factored until somebody needs it whole.

    W + change = (1 - shrink) W + left^T right + full, with left (R N I), right (R N J), shrink (R 1 1) and
    full (R I J); any part may be absent. Keeping the factors saves a pass over the weights per term.
    """

    left: Float[Tensor, "R N I"] | None = None
    right: Float[Tensor, "R N J"] | None = None
    shrink: Float[Tensor, "R 1 1"] | None = None
    full: Float[Tensor, "R I J"] | None = None

    def __add__(self, other: Change) -> Change:
        return Change(
            left=_joined(self.left, other.left),
            right=_joined(self.right, other.right),
            shrink=_summed(self.shrink, other.shrink),
            full=_summed(self.full, other.full),
        )

    def scaled(self, factor: Tensor | float) -> Change:
        """The change times `factor`, a number or a tensor (R 1 1)."""
        left, right = self.left, self.right
        if left is not None and right is not None:  # the narrower side is the cheaper one
            left, right = (left * factor, right) if left.shape[2] < right.shape[2] else (left, right * factor)
        return Change(
            left=left,
            right=right,
            shrink=None if self.shrink is None else self.shrink * factor,
            full=None if self.full is None else self.full * factor,
        )

    __mul__ = __rmul__ = scaled

    def tensor(self, weight: Float[Tensor, "R I J"]) -> Float[Tensor, "R I J"]:
        """The change as one tensor."""
        total = torch.zeros_like(weight) if self.full is None else self.full
        if self.shrink is not None:
            total = total - self.shrink * weight
        if self.left is not None and self.right is not None:
            total = torch.baddbmm(total, self.left.transpose(1, 2), self.right)
        return total

    def apply(self, weight: Float[Tensor, "R I J"], in_place: bool = False) -> Float[Tensor, "R I J"]:
        """weight + change; `in_place` is for an engine that made `weight` itself and needs no gradient."""
        parts = (self.left, self.right, self.full)
        in_place = in_place and all(part is None or part.data_ptr() != weight.data_ptr() for part in parts)
        if self.shrink is not None:
            keep = 1 - self.shrink
            weight = weight.mul_(keep) if in_place else weight * keep
        if self.left is not None and self.right is not None:
            left = self.left.transpose(1, 2)
            weight = weight.baddbmm_(left, self.right) if in_place else torch.baddbmm(weight, left, self.right)
        if self.full is not None:
            weight = weight.add_(self.full) if in_place else weight + self.full
        return weight


def outer(post_side: Float[Tensor, "R B I"], pre_side: Float[Tensor, "R B J"]) -> Change:
    """Mean over events of post_side pre_side^T: the change of every two-factor rule."""
    return Change(left=post_side, right=pre_side / pre_side.shape[1])


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return torch.cat((first, second), dim=1)


def _summed(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
