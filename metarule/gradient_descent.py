"""Gradient-descent training of any torch module, differentiated exactly in its learned rates: the tuned baseline.

Every local rule that a search finds is to be compared with gradient descent whose rates were learned just as
carefully. `higher` (Grefenstette et al., 2019) unrolls ordinary torch.optim training so that they can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import higher
import torch
from torch import Tensor, nn

Given = TypeVar("Given")

Learned = Tensor | Sequence[Tensor]
"""A setting of an optimizer that is learned: the same for all parameter groups, or one for each."""

UNROLLED = ("SGD", "Adam", "Adagrad", "Adadelta", "Adamax", "ASGD")
"""The optimisers of torch.optim that `higher` repeats faithfully; it warns of its own RMSprop and Rprop."""

LARGEST_EPSILON = 1e-6
"""Up to here the place of Adam's epsilon, which `higher` has inside the bias correction, makes no difference."""


def unrolled(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Given],
    loss: Callable[[nn.Module, Given], Tensor],
    learned: Mapping[str, Learned],
    track: bool = True,
    initial: Sequence[Tensor] | None = None,
    after: Callable[[int, nn.Module], None] = lambda step, module: None,
) -> nn.Module:
    """`module` after one step of `optimizer` per batch, differentiable in the tensors of `learned`.

    `loss(module, batch)` is a scalar. `learned` maps settings of the optimizer ("lr", "momentum", "weight_decay") to
    tensors that take their place: one for every parameter group, or a list of one each. Weights start from `module`,
    which stays as it was, or from `initial`, and are differentiated too where they require it. `after(step, module)`
    is called after every step, with the number of steps done.

    A module with a run axis trains R runs at once: let its parameters lead with R, sum the loss over runs, and give
    "lr" as (R 1 1) (Float[Tensor, "R 1 1"]); the gradient of a summed score in it is then one number per run.
    Memory is that of steps + 1 sets of weights; `track = False` keeps one, for scoring. Forward hooks do not fire.

    Raises ValueError for optimisers and options that `higher` 0.2.1 would get wrong, silently or not.
    """
    refused = objection(optimizer, learned)
    if refused:
        raise ValueError(refused)
    override = {name: [value] if isinstance(value, Tensor) else list(value) for name, value in learned.items()}
    with higher.innerloop_ctx(
        module, optimizer, copy_initial_weights=False, override=override, track_higher_grads=track
    ) as (trained, steps):
        if initial is not None:
            live = [each if each.requires_grad else each.detach().requires_grad_() for each in initial]
            trained.update_params(live)  # pyright: ignore[reportCallIssue] - a patched module's
        for done, batch in enumerate(batches, start=1):
            steps.step(loss(trained, batch))
            after(done, trained)
    return trained


def objection(optimizer: torch.optim.Optimizer, learned: Mapping[str, Any]) -> str | None:
    """Why this training cannot be unrolled: what was given, what is allowed, and the cure; None where it can."""
    name = type(optimizer).__name__
    if type(optimizer).__module__.startswith("torch.optim") and name not in UNROLLED:
        return (
            f"optimizer = {name} cannot be unrolled: higher 0.2.1 has no right differentiable form of it; "
            f"choose one of {', '.join(UNROLLED)}"
        )
    for group in optimizer.param_groups:
        settings = {**group, **learned}
        for key in learned:
            if key not in group:
                allowed = sorted(each for each in group if each != "params")
                return f"learned = '{key}' is not a setting of {name}; its settings are {', '.join(allowed)}"
        if settings.get("maximize"):
            return (
                f"{name}(maximize=True) cannot be unrolled: higher 0.2.1 ignores it and would minimise; "
                "give the negative loss and maximize=False"
            )
        if settings.get("decoupled_weight_decay"):
            return (
                f"{name}(decoupled_weight_decay=True) cannot be unrolled: higher 0.2.1 ignores it and would add the "
                "decay to the gradient; use weight_decay with decoupled_weight_decay=False"
            )
        if name == "Adam" and _largest(settings["eps"]) > LARGEST_EPSILON:
            return (
                f"Adam(eps={_largest(settings['eps'])}) cannot be unrolled: higher 0.2.1 adds eps "
                f"before the bias correction, which shows above {LARGEST_EPSILON}; use eps <= {LARGEST_EPSILON}"
            )
    return None


def _largest(value: Any) -> float:
    return max(float(torch.as_tensor(each).max()) for each in (value if isinstance(value, (list, tuple)) else [value]))
