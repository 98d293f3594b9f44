"""Expression rules: programs on hand-made rows, against what they say; known optimizers and rules as programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import sympy
import torch
from building import address, random_signals, random_theta
from test_rules import change_of, evaluated
from torch import Tensor

from metarule.collect import load_file
from metarule.programs import OPERATORS
from metarule.rules.expression import Expression
from metarule.signals import Signals
from metarule.terms import FACTORS, spelled

analysis = load_file(Path(__file__).parent.parent / "analysis" / "expressible.py")

ALL = Expression(("pre", "post", "weight", "error", "reward"), tuple(OPERATORS), nodes=10, constants=2)
DTYPE = torch.float64


def one_by_one(rule: Expression, theta: Tensor, signals: Signals) -> Tensor:
    """What the programs say, run by run and node by node, everything whole."""
    runs, size_out, size_in = signals.weight.shape
    found = []
    for r in range(runs):
        slots = []
        for name in rule.inputs:
            value = FACTORS[name].value(signals)[r]
            axis = {"synapse": 0, "pre": 1}.get(FACTORS[name].side, -1)
            slots.append(value.unsqueeze(axis).expand(signals.read("pre").shape[1], size_out, size_in))
        real = theta[r, 3 * rule.nodes + 1 :]
        slots += [torch.full_like(slots[0], float(real[k])) for k in range(rule.constants)]
        for n in range(rule.nodes):
            gene, a, b = (int(number) for number in theta[r, 3 * n : 3 * n + 3])
            operator = OPERATORS[rule.operators[gene]]
            slots.append(operator.value(*(slots[a], slots[b])[: operator.arity]))
        found.append(real[-1] * slots[int(theta[r, 3 * rule.nodes])].mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 3, 5), (12, 9, 7)])
def test_programs_of_many_runs_at_once_are_each_what_its_genes_say(sizes):
    size_out, size_in, events = sizes
    noise = address("many programs", runs=60)
    signals = random_signals(noise, size_out, size_in, events, ALL.reads)
    theta = random_theta(ALL.params, noise)
    expected = one_by_one(ALL, theta, signals)
    torch.testing.assert_close(change_of(ALL, theta, signals), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_the_gradient_reaches_the_constants_of_every_run():
    rule = Expression(("pre", "post"), constants=2)
    row = rule.row({"out": "b * post * (pre - k)"}, {"b": 2.0, "k": 0.5}, rate=0.1)
    theta = row.repeat(3, 1).requires_grad_()
    signals = random_signals(address("constants", runs=3), 20, 7, 3, rule.reads)
    change_of(rule, theta, signals).sum().backward()
    assert theta.grad is not None
    outer = torch.einsum("rbi,rbj->r", signals.read("post"), signals.read("pre") - 0.5) / 3
    torch.testing.assert_close(theta.grad[:, -3], 0.1 * outer)
    torch.testing.assert_close(theta.grad[:, -2], -0.1 * 2.0 * 7 * signals.read("post").mean(1).sum(1))
    torch.testing.assert_close(theta.grad[:, -1], 2.0 * outer)


def test_every_operator_is_the_expression_that_it_prints():
    signals = random_signals(address("operators"), 4, 3, 2, ALL.reads)
    for name, operator in OPERATORS.items():
        row = ALL.row({"out": f"{name}({', '.join(('pre', 'weight')[: operator.arity])})"})
        expression = ALL.equation(row, (4, 3))
        assert expression is not None
        torch.testing.assert_close(
            evaluated(expression, signals), change_of(ALL, row[None], signals), rtol=1e-12, atol=0
        )


def test_nothing_times_a_quotient_by_zero_is_nothing_and_what_is_no_number_stays_none():
    rule = Expression(("pre", "post"), tuple(OPERATORS))
    signals = Signals(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.zeros(1, 1, 1))
    quotient = rule.row({"out": "pre / post"})[None].float().requires_grad_()
    change = change_of(rule, quotient, signals)
    change.sum().backward()
    assert change.item() == 0.0
    assert quotient.grad is not None
    assert torch.isfinite(quotient.grad).all()
    endless = rule.row({"out": "exp(exp(exp(exp(pre + pre))))"})[None].float()
    assert not torch.isfinite(change_of(rule, endless, signals)).any()


def test_complexity_counts_the_nodes_that_an_output_needs():
    rule = Expression(("pre", "post", "weight"), memory=1)
    rows = [
        rule.row({"out": "pre"}),
        rule.row({"out": "post * (pre - post * weight)"}),
        rule.row({"m0": "pre * post", "out": "m0"}),
    ]
    assert rule.complexity(torch.stack(rows)).tolist() == [0.0, 3.0, 1.0]
    idle = rows[0].clone()
    idle[:3] = torch.tensor([2.0, 1.0, 1.0])  # a node that nobody reads
    assert rule.complexity(idle[None]).item() == 0.0


def test_a_program_read_from_text_is_written_back():
    rule = Expression(("pre", "post", "weight"), ("add", "sub", "mul"), constants=2)
    row = rule.row({"y2": "post ** 2", "out": "k * (pre * post - y2 * weight) + 2 * 0.5"}, {"k": 3.0}, rate=1.0)
    pre, post, weight = sympy.symbols("pre post weight")
    found = rule.equation(row, (3, 3))
    assert sympy.simplify(found - (3 * (pre * post - post**2 * weight) + 1)) == 0
    start = torch.tensor([param.start for param in Expression(program={"out": "post * pre"}).params], dtype=DTYPE)
    assert spelled(Expression().expressions(start)["dW"]) == "0.01·post·pre"


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Expression(("pree",)), "did you mean 'pre'"),
        (lambda: Expression(("pre", "pre")), "twice"),
        (lambda: Expression(operators=("ad",)), "did you mean 'add'"),
        (lambda: Expression(operators=()), "rule.operators is empty"),
        (lambda: Expression(nodes=0), "must be at least 1"),
        (lambda: Expression(rate=0.0), "must be positive"),
        (lambda: Expression().row({"m0": "pre"}), "has no 'out'"),
        (lambda: Expression().row({"out": "pre +"}), "is not an expression"),
        (lambda: Expression().row({"out": "prre * post"}), "did you mean 'pre'"),
        (lambda: Expression().row({"out": "tanh(pre)"}), "an operator = 'tanh'"),
        (lambda: Expression().row({"out": "cosh(pre)"}), "a call"),
        (lambda: Expression().row({"out": "pre.sum"}), "is not understood"),
        (lambda: Expression(nodes=1).row({"out": "pre * post * weight"}), "needs 2 nodes"),
        (lambda: Expression().row({"out": "2 * pre + 3 * post"}), "needs 2 numbers"),
        (lambda: Expression().row({"out": "10 ** 400 * pre"}), "has a number that is too large"),
        (lambda: Expression().row({"out": "1e200 * 1e200 * pre"}), "has a number that is too large"),
        (lambda: Expression().row({"out": "pre + True"}), "'True' is not understood"),
        (lambda: Expression().row({"pre": "2 * post", "out": "pre"}), "program.pre is an input or a constant"),
        (lambda: Expression(memory=1).row({"m1": "pre", "out": "m0"}), "program.m1 is a memory, and rule.memory = 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


@pytest.mark.parametrize("name", analysis.KNOWN)
def test_known_optimizers_and_rules_are_programs(name):
    gap, moved = analysis.difference(analysis.KNOWN[name], seeds=2, steps=25)
    assert gap < 1e-12  # the target is 1e-6; float64 leaves rounding
    assert moved > 0.01
