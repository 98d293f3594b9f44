"""How an exported learner makes a weight of a change: the body of `taken`, per synapse model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from metarule.exporting.torch_code import OpaqueError
from metarule.synapses import SynapseModel


class Step(NamedTuple):
    """`constants` by name, the `lines` that come before, and what is added to the weight at rate 1."""

    says: str
    constants: dict[str, float]
    lines: list[str]
    result: str


def _decay(synapse: Any) -> tuple[dict[str, float], list[str]]:
    if not synapse.weight_decay:
        return {}, []
    return {"WEIGHT_DECAY": synapse.weight_decay}, ["change = change - WEIGHT_DECAY * weight"]


def _sgd(synapse: Any) -> Step:
    return Step("The change, less a little of the weight.", *_decay(synapse), "change")


def _momentum(synapse: Any) -> Step:
    constants, lines = _decay(synapse)
    lines = [
        *lines,
        "velocity = change + MOMENTUM * self.memory.get(key, torch.zeros_like(weight))",
        "self.memory[key] = velocity",
    ]
    result = "(change + MOMENTUM * velocity)" if synapse.nesterov else "velocity"
    return Step("Changes build up speed.", {**constants, "MOMENTUM": synapse.momentum}, lines, result)


def _adam(synapse: Any) -> Step:
    constants, lines = _decay(synapse)
    constants |= {"BETA_1": synapse.beta1, "BETA_2": synapse.beta2, "EPSILON": synapse.epsilon}
    lines = [
        *lines,
        "mean, square, steps = self.memory.get(key, (torch.zeros_like(weight), torch.zeros_like(weight), 0))",
        "mean = BETA_1 * mean + (1 - BETA_1) * change",
        "square = BETA_2 * square + (1 - BETA_2) * change**2",
        "self.memory[key] = (mean, square, steps + 1)",
        "size = torch.sqrt(square) / math.sqrt(1 - BETA_2 ** (steps + 1)) + EPSILON",
    ]
    return Step(
        "Adam: a change measured against its own recent size.", constants, lines,
        "mean / (1 - BETA_1 ** (steps + 1)) / size",
    )  # fmt: skip


STEPS: dict[str, Callable[[Any], Step]] = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}


def step_of(synapse: SynapseModel) -> Step:
    """The step of a synapse model; raises OpaqueError where an exported file does not know it."""
    if synapse.kind not in STEPS:
        raise OpaqueError(f"its synapse.kind = '{synapse.kind}' is none of {', '.join(STEPS)}")
    given: Any = synapse
    if given.bound is not None or given.dale:
        raise OpaqueError("its synapse model holds weights in bounds")
    return STEPS[synapse.kind](synapse)
