"""Are known optimizers and rules programs of the expression family? Lion, Adam, momentum, Oja and eHebb say yes.

Each is written as a program and trained beside reference code on the same minibatches of a linear regression, each
at its own weights: the largest difference of any weight after any step.

    python analysis/expressible.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarule.rng import Noise, noise_for
from metarule.rules.expression import Expression
from metarule.signals import Signals

SEEDS, STEPS, EVENTS, SIZE_OUT, SIZE_IN = 10, 200, 8, 4, 6

OPERATORS = ("add", "sub", "mul", "div", "square", "sqrt", "sign")

Reference = Callable[[Tensor], Callable[[Signals], Tensor]]
"""First weights -> a step: what was seen at the weights as they are -> the next weights."""


class Known(NamedTuple):
    """A program with the numbers it names and its rate, and what it has to equal."""

    rule: Expression
    program: dict[str, str]
    values: dict[str, float]
    rate: float
    reference: Reference


def main() -> None:
    torch.set_num_threads(1)
    for name, known in KNOWN.items():
        row = known.rule.row(known.program, known.values, known.rate)
        nodes = int(known.rule.complexity(row[None]))
        gap, moved = difference(known)
        print(f"{name}: {gap:.1e} at most, of weights that moved by {moved:.2f}; {nodes} nodes")


def difference(known: Known, seeds: int = SEEDS, steps: int = STEPS) -> tuple[float, float]:
    """The largest difference of any weight after any step, and how far the weights moved (root mean square)."""
    row = known.rule.row(known.program, known.values, known.rate)
    noise = noise_for([("expressible", seed) for seed in range(seeds)])
    start = 0.3 * noise.at("start").normal(SIZE_OUT, SIZE_IN)
    ours, theirs = start.clone(), start.clone()
    state = known.rule.init(row.expand(seeds, -1), ours)
    stepped = known.reference(theirs)
    largest = 0.0
    for step in range(steps):
        change, state = known.rule.delta(row.expand(seeds, -1), shown(ours, noise, step), state, noise)
        ours, theirs = change.apply(ours), stepped(shown(theirs, noise, step))
        largest = max(largest, float((ours - theirs).abs().max()))
    return largest, float((ours - start).square().mean().sqrt())


def shown(weight: Tensor, noise: Noise, step: int) -> Signals:
    """A minibatch of a linear regression, seen from these weights; errors go back by fixed random weights."""
    feedback = 0.1 * noise.at("feedback").normal(SIZE_OUT, SIZE_IN)
    pre = noise.at(step, "x").normal(EVENTS, SIZE_IN) * torch.linspace(0.3, 1.5, SIZE_IN, dtype=weight.dtype)
    target = torch.tanh(pre[..., :SIZE_OUT] + pre[..., -SIZE_OUT:])
    post = torch.einsum("rbj,rij->rbi", pre, weight)
    error = target - post
    return Signals(weight, pre=pre, post=post, error=error, pre_error=torch.bmm(error, feedback))


def torch_optimizer(build: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Reference:
    """An optimizer of torch on the gradient of the squared error, by autograd."""

    def prepared(weight: Tensor) -> Callable[[Signals], Tensor]:
        parameter = weight.clone().requires_grad_()
        optimizer = build([parameter])

        def stepped(signals: Signals) -> Tensor:
            optimizer.zero_grad()
            post = torch.einsum("rbj,rij->rbi", signals.read("pre"), parameter)
            target = signals.read("error") + signals.read("post")
            (0.5 * (target - post).square().sum() / EVENTS).backward()
            optimizer.step()
            return parameter.detach().clone()

        return stepped

    return prepared


def lion(
    weight: Tensor, rate: float = 1e-3, b1: float = 0.9, b2: float = 0.99, decay: float = 0.1
) -> Callable[[Signals], Tensor]:
    """Program 1 of Chen et al. (2023), with decoupled weight decay."""
    momentum = torch.zeros_like(weight)

    def stepped(signals: Signals) -> Tensor:
        nonlocal momentum
        gradient = -torch.einsum("rbi,rbj->rij", signals.read("error"), signals.read("pre")) / EVENTS
        update = torch.sign(torch.lerp(gradient, momentum, b1))
        momentum = torch.lerp(gradient, momentum, b2)
        return signals.weight - rate * (update + decay * signals.weight)

    return stepped


def oja(weight: Tensor, rate: float = 0.01) -> Callable[[Signals], Tensor]:
    """Oja (1982), one event and one unit after the other: w_i += rate y_i (x - y_i w_i), the mean over the batch."""

    def stepped(signals: Signals) -> Tensor:
        total = torch.zeros_like(signals.weight)
        for b in range(EVENTS):
            x, y = signals.read("pre")[:, b], signals.read("post")[:, b]
            for i in range(SIZE_OUT):
                total[:, i] += y[:, i, None] * (x - y[:, i, None] * signals.weight[:, i])
        return signals.weight + rate * total / EVENTS

    return stepped


def ehebb(weight: Tensor, pseudo: float = 0.0122, hebb: float = -0.0435) -> Callable[[Signals], Tensor]:
    """Equation 16 beside the pseudo-gradient, Shervani-Tabar and Rosenbaum (2023): e is output minus target there."""

    def stepped(signals: Signals) -> Tensor:
        e, e_before, y = -signals.read("error"), -signals.read("pre_error"), signals.read("pre")
        total = torch.zeros_like(signals.weight)
        for r in range(len(total)):
            for b in range(EVENTS):
                total[r] -= pseudo * torch.outer(e[r, b], y[r, b]) + hebb * torch.outer(e[r, b], e_before[r, b])
        return signals.weight + total / EVENTS

    return stepped


KNOWN = {
    "Lion": Known(
        Expression(("error_pre", "weight"), OPERATORS, nodes=16, constants=5, memory=1),
        {  # error_pre is the direction downhill, the negative gradient, and so is the memory
            "m0": "b2 * m0 + (1 - b2) * error_pre",
            "out": "sign(b1 * m0 + (1 - b1) * error_pre) - decay * weight",
        },
        {"b1": 0.9, "b2": 0.99, "decay": 0.1},
        1e-3,
        lion,
    ),
    "Adam": Known(
        Expression(("error_pre",), OPERATORS, nodes=24, constants=5, memory=4),
        {  # m2 and m3 are 1 - b1^t and 1 - b2^t
            "mean": "b1 * m0 + (1 - b1) * error_pre",
            "square": "b2 * m1 + (1 - b2) * error_pre ** 2",
            "seen1": "b1 * m2 + (1 - b1)",
            "seen2": "b2 * m3 + (1 - b2)",
            "m0": "mean",
            "m1": "square",
            "m2": "seen1",
            "m3": "seen2",
            "out": "(mean / seen1) / (sqrt(square / seen2) + epsilon)",
        },
        {"b1": 0.9, "b2": 0.999, "epsilon": 1e-8},
        1e-2,
        torch_optimizer(lambda parameters: torch.optim.Adam(parameters, lr=1e-2)),
    ),
    "SGD with momentum": Known(
        Expression(("error_pre",), OPERATORS, nodes=3, constants=1, memory=1),
        {"m0": "0.9 * m0 + error_pre", "out": "0.9 * m0 + error_pre"},
        {},
        1e-2,
        torch_optimizer(lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9)),
    ),
    "Oja": Known(
        Expression(("pre", "post", "weight"), OPERATORS, nodes=4, constants=0),
        {"out": "post * (pre - post * weight)"},
        {},
        1e-2,
        oja,
    ),
    "eHebb": Known(
        Expression(("error", "pre", "pre_error"), OPERATORS, nodes=5, constants=1),
        {"out": "error * (pre + share * pre_error)"},
        {"share": 0.0435 / 0.0122},
        0.0122,
        ehebb,
    ),
}

if __name__ == "__main__":
    main()
