"""A rule that is a small network as lines of torch: the same network at every event and synapse."""

from __future__ import annotations

from typing import Any

from metarule.exporting.torch_code import VIEWS, OpaqueError
from metarule.terms import FACTORS

SIZED = "math.sqrt(2 / sum(weight.shape))  # of the layer's weights, whatever its width"

ACTIVATIONS = {"tanh": "torch.tanh({})", "relu": "torch.relu({})", "sigmoid": "torch.sigmoid({})", "linear": "{}"}
"""Nonlinearity of the rule's network -> how torch says it."""


def mlp_code(rule: Any, numbers: list[float]) -> tuple[dict[str, Any], list[str], str]:
    """Constants, the lines that come first, and the change, of an `mlp` rule with hidden layers."""
    if rule.activation not in ACTIVATIONS:
        raise OpaqueError(f"its network has the nonlinearity '{rule.activation}'")
    if all(FACTORS[name].side in ("synapse", "event") for name in rule.inputs):
        raise OpaqueError("its network sees neither of the two ends of a synapse")
    constants: dict[str, Any] = {"STEP": rule.rate}
    # every number of a synapse is seen beside those of all others, (B I J inputs)
    seen = [f"{name}{VIEWS.get(FACTORS[name].side, ' / scale' if rule.normalise else '')}" for name in rule.inputs]
    lines = [f"scale = {SIZED}"] if rule.normalise else []
    lines += [
        f"seen = torch.broadcast_tensors({', '.join(seen)})",
        "units = torch.stack(seen, dim=-1)",
    ]
    first, sources = 0, len(rule.inputs)
    for place, count in enumerate((*rule.hidden, 1)):
        name = "OUTPUT" if place == len(rule.hidden) else f"HIDDEN_{place + 1}"
        rows = [numbers[first + unit * (sources + 1) :][: sources + 1] for unit in range(count)]
        constants[name] = [row[:-1] for row in rows]
        constants[f"{name}_BIAS"] = [row[-1] for row in rows]
        driven = f"units @ weight.new_tensor({name}).T + weight.new_tensor({name}_BIAS)"
        lines.append(f"units = {driven if name == 'OUTPUT' else ACTIVATIONS[rule.activation].format(driven)}")
        first, sources = first + count * (sources + 1), count
    result = f"STEP * {'scale * ' if rule.normalise else ''}units[..., 0].mean(0)"
    sides = {FACTORS[name].side for name in rule.inputs}
    return (
        constants,
        lines,
        result if sides >= {"pre", "post"} or "synapse" in sides else f"({result}).expand_as(weight)",
    )
