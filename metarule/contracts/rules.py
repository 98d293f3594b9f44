"""The contract of a rule (design.md §7): shapes, locality, independence of runs, gradient, equation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.contracts import probes
from metarule.contracts.base import Broken, Check, has_source, require, verified
from metarule.contracts.probes import POST_SIDE, PRE_SIDE, RUNS, SIZE_IN, SIZE_OUT, SYNAPSE_SIDE
from metarule.params import Param
from metarule.rng import Noise
from metarule.rules import Rule
from metarule.signals import SIGNALS, Signals
from metarule.terms import FACTORS


def check_rule(rule: Rule) -> Iterator[Check]:
    """Every property of one rule."""
    return verified(f"rule.{rule.kind}", rule, PROPERTIES)


def declares(rule: Rule) -> str:
    """declares its parameters and signals"""
    names = [param.name for param in rule.params]
    require(all(isinstance(param, Param) for param in rule.params), "params must be a tuple of Param")
    require(len(set(names)) == len(names), f"params has a name twice: {', '.join(names)}")
    for name in rule.reads:
        require(name in SIGNALS, unknown("a signal in reads", name, SIGNALS))
    for given in ("scales", "units"):
        count = len(getattr(rule, given)((SIZE_OUT, SIZE_IN)))
        require(not names or count == len(names), f"{given} gives {count} numbers for {len(names)} parameters")
    return f"{', '.join(names) or 'no parameters'}; reads {', '.join(sorted(rule.reads))}"


def shapes(rule: Rule) -> None:
    """gives finite changes of the weight's shape and dtype, and a state that leads with R"""
    for dtype in (torch.float64, torch.float32):
        theta, signals, stream = _given(rule, dtype)
        before = theta.clone(), {name: getattr(signals, name).clone() for name in _names(signals)}
        state = rule.init(theta, signals.weight)
        probes.check_state(state, RUNS)
        change, state = rule.delta(theta, signals, state, stream)
        probes.check_state(state, RUNS)
        probes.check_tensor("the change", change.tensor(signals.weight), tuple(signals.weight.shape), dtype)
        same = torch.equal(before[0], theta)
        same &= all(torch.equal(value, getattr(signals, name)) for name, value in before[1].items())
        require(same, "delta changed its inputs in place")


def without_autograd(rule: Rule) -> None:
    """uses no autograd inside"""
    theta, signals, stream = _given(rule)
    with torch.inference_mode():
        change = _steps(rule, theta, signals, stream)
    require(not change.requires_grad, "the change requires a gradient that nobody asked for")


def local(rule: Rule) -> str:
    """is local where it says so: dW_ij depends on units i and j, w_ij and scalars only"""
    if not rule.local:
        return "declares that it is not local"
    theta, signals, _ = _given(rule)
    theta, signals = theta[:1], probes.some(signals, slice(0, 1))
    names = [name for name in _names(signals) if name in (*PRE_SIDE, *POST_SIDE, *SYNAPSE_SIDE)]
    state = rule.init(theta, signals.weight)

    def change(*values: Tensor) -> Tensor:
        moved = dataclasses.replace(signals, **dict(zip(names, values, strict=True)))
        stream = probes.noise("delta", runs=range(1))
        return rule.delta(theta, moved, state, stream)[0].tensor(moved.weight)[0]

    jacobians = torch.autograd.functional.jacobian(change, tuple(getattr(signals, name) for name in names))
    for name, jacobian in zip(names, jacobians, strict=True):
        elsewhere = torch.ones(jacobian[:, :, 0].shape, dtype=torch.bool)
        for i in range(SIZE_OUT):
            for j in range(SIZE_IN):
                if name in SYNAPSE_SIDE:
                    elsewhere[i, j, i, j] = False
                else:
                    elsewhere[i, j, :, i if name in POST_SIDE else j] = False
        leak = float((jacobian[:, :, 0] * elsewhere).abs().max())
        require(leak == 0.0, f"dW_ij depends on {name} of other units or synapses; declare local = False")
    return f"Jacobian of {', '.join(names)}"


def own_row(rule: Rule) -> None:
    """row r of theta moves run r only"""
    theta, signals, stream = _given(rule)
    before = _steps(rule, theta, signals, stream)
    moved = theta.clone()
    moved[1] = probes.random_theta(rule.params, probes.noise("other", runs=range(1)))[0]
    after = _steps(rule, moved, signals, stream)
    require(torch.equal(before[[0, 2]], after[[0, 2]]), "another run's change moved too")
    require(not rule.params or not torch.equal(before[1], after[1]), "its own change did not move: theta has no effect")


def alone(rule: Rule) -> str:
    """run r of a batch equals run r alone"""
    theta, signals, stream = _given(rule)
    whole = _steps(rule, theta, signals, stream)
    single = _steps(rule, theta[1:2], probes.some(signals, slice(1, 2)), probes.noise("delta", runs=(1,)))
    return probes.check_equal("the changes", single[0], whole[1])


def gradient(rule: Rule) -> str:
    """theta's gradient equals finite differences"""
    real = [place for place, param in enumerate(rule.params) if not param.choices]
    if not real:
        return "no real parameters"
    theta, signals, stream = _given(rule)
    weights = probes.noise("cotangent").normal(SIZE_OUT, SIZE_IN)

    def projected(rows: Tensor) -> Tensor:
        return (_steps(rule, rows, signals, stream) * weights).sum((1, 2))

    rows = theta.clone().requires_grad_()
    value = projected(rows)
    require(value.requires_grad, "the change does not depend on theta through differentiable operations")
    found = torch.autograd.grad(value.sum(), rows)[0]
    expected = probes.central_differences(projected, theta)
    return probes.check_equal("gradient and finite differences", found[:, real], expected[:, real], 1e-5)


def equation(rule: Rule) -> str:
    """its equation, where it has one, evaluates to its change"""
    theta, signals, stream = _given(rule)
    theta, signals = theta[:1], probes.some(signals, slice(0, 1))
    expression = rule.equation(theta[0], (SIZE_OUT, SIZE_IN))
    if expression is None:
        return "no closed form"
    state = rule.init(theta, signals.weight)
    if state:
        raise Broken("a rule with a state of its own has no closed form in one event's signals; return None")
    change = rule.delta(theta, signals, state, stream.at())[0].tensor(signals.weight)
    probes.check_equal("equation and change", evaluated(expression, signals), change, 1e-9)
    return f"dW = {expression}"


def evaluated(expression: sympy.Expr, signals: Signals) -> Float[Tensor, "R I J"]:
    """An equation in the symbols of `terms.FACTORS` at every synapse, the mean over events; Broken on other symbols."""
    symbols = sorted(expression.free_symbols, key=str)
    values = []
    for symbol in symbols:
        name = str(symbol)
        require(name in FACTORS, unknown("a symbol of the equation", name, FACTORS))
        value = FACTORS[name].value(signals)
        side = FACTORS[name].side  # aligned to R B I J
        place = {"synapse": (slice(None), None), "pre": (slice(None), slice(None), None)}.get(side, (..., None))
        values.append(value[place].numpy())
    found = sympy.lambdify(symbols, expression, "numpy")(*values)
    runs, size_out, size_in = signals.weight.shape
    whole = torch.as_tensor(found, dtype=signals.weight.dtype)
    if whole.dim() < 4:
        return whole.expand(runs, size_out, size_in)
    return whole.expand(runs, whole.shape[1], size_out, size_in).mean(1)


def _given(rule: Rule, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Signals, Noise]:
    theta = probes.random_theta(rule.params, probes.noise("theta", dtype=dtype))
    stream = probes.noise("delta", dtype=dtype)
    signals = probes.random_signals(rule.reads, 3, probes.noise("signals", dtype=dtype))
    try:
        rule.delta(theta, signals, rule.init(theta, signals.weight), stream)
    except ValueError:  # a rule with an eligibility of its own may refuse more than one event
        signals = probes.random_signals(rule.reads, 1, probes.noise("signals", dtype=dtype))
    return theta, signals, stream


def _steps(rule: Rule, theta: Tensor, signals: Signals, stream: Noise) -> Float[Tensor, "R I J"]:
    """The sum of two changes in a row, the state carried between them."""
    state = rule.init(theta, signals.weight)
    first, state = rule.delta(theta, signals, state, stream.at(0))
    second, state = rule.delta(theta, signals, state, stream.at(1))
    return first.tensor(signals.weight) + 0.5 * second.tensor(signals.weight)


def _names(signals: Signals) -> list[str]:
    return [name for name in SIGNALS if getattr(signals, name) is not None]


PROPERTIES = (has_source, declares, shapes, without_autograd, local, own_row, alone, gradient, equation)
