"""Torch: a learner as a file that needs torch only, and reads as if somebody had written it for this rule."""

from __future__ import annotations

import torch

from metarule.exporting.equations import meanings, symbols, where_from
from metarule.exporting.layout import constant, docstring, quotable, returned, wrapped
from metarule.exporting.torch_code import OpaqueError
from metarule.exporting.torch_credit import path_of
from metarule.exporting.torch_learner import Plan, learner_code
from metarule.exporting.torch_rule import finite_rate, rule_code
from metarule.exporting.torch_synapse import step_of
from metarule.learner import ANY, READOUT
from metarule.portable import Portable
from metarule.results import mean_shape, written


def as_torch(known: Portable) -> str:
    """A module with one class, which trains the nn.Linear layers of an nn.Sequential by this rule.

    Raises ValueError, naming what cannot be written so, and LocalOptimizer, which can use it all the same.
    """
    try:
        plan = _plan(known)
    except OpaqueError as error:
        raise ValueError(
            f"{known.name} cannot be exported to torch: {error}; mr.LocalOptimizer.of(model, '{known.name}') trains "
            "with it, and --to json keeps all of it"
        ) from error
    numbers = {**({} if plan.rate == 1 else {"RATE": plan.rate}), **plan.rule.constants, **plan.step.constants}
    lines = [line for name, value in numbers.items() for line in constant(name, value)]
    constants = "\n".join([*lines, "ACTIVATIONS = (nn.Tanh, nn.ReLU, nn.Sigmoid, nn.Softplus)"])
    body = [*_functions(plan), learner_code(plan)]
    top = [_head(plan), _imports("".join(body)), constants]
    return "\n\n\n".join(["\n\n".join(top), *body]) + "\n"


def _plan(known: Portable) -> Plan:
    path = path_of(known.credit)
    rules = dict(known.rules)
    back = rules.pop("feedback", None)
    if len(rules) != 1 or not set(rules) <= {"forward", ANY, READOUT}:
        raise OpaqueError(f"it has rules for {', '.join(known.rules)}")
    ((key, rule),) = rules.items()
    if path is not None and path.learns and (back is None or back.kind != "delta" or rule.kind != "delta"):
        raise OpaqueError("its feedback learns by another rule than the delta rule")
    if back is not None and (path is None or not path.learns):
        raise OpaqueError("its feedback learns by a rule of its own")
    if set(known.synapses) != {ANY}:
        raise OpaqueError(f"it has synapse models for {', '.join(known.synapses)}")
    columns = known.learner.columns(torch.zeros(1, 0, dtype=torch.float64))
    code = rule_code(rule, columns.rules[key][0].tolist())
    if path is not None and not path.learns and not {"error", "feedback", "pre_error"} & {*code.reads}:
        path = None  # what nobody reads need not be sent
    rate = finite_rate(float(columns.synapses[ANY][0, 0]))
    return Plan(known, code, path, step_of(known.synapses[ANY]), rate, key == READOUT)


def _head(plan: Plan) -> str:
    """What the rule is, where it comes from, and how the file is used."""
    known, taught = plan.known, plan.path is not None
    name = known.path.name if known.path else known.name
    title = docstring([f"{name}: a local learning rule{f', {known.summary}' if known.summary else ''}."])
    found = [each for each in written(known, torch.zeros(0)) if each.rule != "feedback"]
    sized = "scale" in plan.rule.result
    wide = (
        "in a layer of {:.0f} x {:.0f} weights, ".format(*mean_shape(known, found[0].rule)) if sized and found else ""
    )
    said = "y: classes, or as many numbers as there are outputs"
    return "\n".join(
        [
            *title.removesuffix('"""').splitlines(),
            "",
            *(line for each in found for line in wrapped(each.text, " " * 4, " " * 8)),
            *([] if found else [f"    dW = what `change` computes of {', '.join(plan.rule.reads)}"]),
            "",
            f"({wide}the mean over a batch), with",
            *(f"    {symbol}: {meaning}" for symbol, meaning in meanings(symbols(known) or plan.rule.reads).items()),
            "",
            *(line for sentence in where_from(known) for line in wrapped(quotable(sentence))),
            "",
            "    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))",
            "    learner = LocalLearner(model)",
            f"    for {'x, y' if taught else 'x'} in loader:{f'  # {said}' if taught else ''}",
            f"        learner.step({'x, y' if taught else 'x'})",
            '"""',
        ]
    )


def _imports(body: str) -> str:
    """What the code calls."""
    lines = ["from __future__ import annotations", ""]
    lines += ["import math", ""] if "math." in body else []
    lines += ["import torch"]
    lines += ["import torch.nn.functional as functional"] if "functional." in body else []
    return "\n".join([*lines, "from torch import Tensor, nn"])


def _functions(plan: Plan) -> list[str]:
    """The rule, and what the layers need."""
    arguments = ", ".join(f"{name}: Tensor" for name in plan.rule.reads)
    rule = [
        f"def change({arguments}) -> Tensor:",
        '    """What the rule changes a layer\'s weights (outputs, inputs) by, for a batch of its signals."""',
        *(f"    {line}" for line in plan.rule.lines),
        *returned(plan.rule.result, "    "),
    ]
    slope = '''def slope(activation: nn.Module, rate: Tensor) -> Tensor:
    """The derivative of an activation, as a function of its value; an input is held inside its range."""
    if isinstance(activation, nn.Tanh):
        return 1 - rate.clamp(-1, 1) ** 2
    if isinstance(activation, nn.ReLU):
        return (rate > 0).to(rate.dtype)
    if isinstance(activation, nn.Sigmoid):
        return rate.clamp(0, 1) * (1 - rate.clamp(0, 1))
    if isinstance(activation, nn.Softplus):
        return -torch.expm1(-activation.beta * rate.clamp(min=0))
    return torch.ones_like(rate)  # none follows the layer'''
    needs_slope = (plan.path is not None and not plan.readout) or "gain" in plan.rule.reads
    return ["\n".join(rule), *([slope] if needs_slope else [])]
