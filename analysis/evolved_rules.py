"""Which rules did evolution write? Simplified, and compared with the published ones, over seeds.

Error-driven: does the rule have the factor (post - post_ref) pre of Urbanczik and Senn? Reward-driven: is it
eligibility (reward - 1) times a positive number where the reward is 1 or -1?

    python analysis/evolved_rules.py runs/error_driven-seed* runs/reward_driven-seed*
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import sympy
import torch

import metarule as mr
from metarule.symbolic import equivalent, parsed, simplified

REWARD = {"reward": (-1.0, 1.0)}
KNOWN = {"error_driven": parsed("(post - post_ref) * pre"), "reward_driven": parsed("eligibility * (reward - 1)")}


class Finding(NamedTuple):
    """One run: the rule as found, whether it is the published one, its loss and when that was reached."""

    run: str
    rule: sympy.Expr
    same: bool
    loss: float
    generation: int
    evaluations: int


def has_factor(rule: sympy.Expr, factor: sympy.Expr) -> bool:
    """True where the rule is 0 wherever one of the factors is, and not everywhere."""
    exact = rule.xreplace({number: sympy.Rational(str(number)) for number in rule.atoms(sympy.Float)})
    numerator, _ = sympy.fraction(sympy.together(exact))
    whole = sympy.expand(numerator)
    roots = [(symbol, root) for part in sympy.Mul.make_args(factor) for symbol, root in _root(part)]
    return whole != 0 and all(sympy.expand(whole.subs(symbol, root)) == 0 for symbol, root in roots)


def _root(part: sympy.Expr) -> list[tuple[sympy.Basic, sympy.Expr]]:
    """Where a part that is linear in its symbols is 0, by the first of them."""
    symbols = sorted(part.free_symbols, key=str)
    return [(symbols[0], root) for root in sympy.solve(part, symbols[0])] if symbols else []


def is_published(question: str, rule: sympy.Expr) -> bool:
    """The criterion of each question."""
    if question == "reward_driven":
        return equivalent(rule, KNOWN[question], REWARD)
    return has_factor(rule, KNOWN[question])


def question_of(search: mr.Search) -> str:
    """Which of the two a run asked, by its task."""
    kind = search.task.kind
    names = {"leaky_neuron": "error_driven", "rewarded_patterns": "reward_driven"}
    if kind not in names:
        raise ValueError(f"task.kind = '{kind}' asks neither question; give runs of error_driven or reward_driven")
    return names[kind]


def finding(path: str) -> tuple[str, Finding]:
    """What one run found."""
    run = mr.load(path)
    question = question_of(run.search)
    theta = torch.tensor(list(run.theta.values()), dtype=torch.float64)[None]
    rule = run.rule.expressions(run.learner.columns(theta).rules["forward"][0])["dW"]  # pyright: ignore
    short = simplified(rule, REWARD if question == "reward_driven" else None)
    bests = [math.inf if line["loss_best"] is None else line["loss_best"] for line in run.log]
    best = min(bests)
    place = bests.index(best)
    evaluations = sum(len(line["loss"]) for line in run.log)
    return question, Finding(path, short, is_published(question, short), best, place + 1, evaluations)


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    found: dict[str, list[Finding]] = {}
    for path in paths:
        question, one = finding(path)
        found.setdefault(question, []).append(one)
    for question, findings in found.items():
        print(f"{question}: {sum(one.same for one in findings)} of {len(findings)} runs found {KNOWN[question]}")
        for one in sorted(findings, key=lambda each: each.loss):
            mark = "+" if one.same else "-"
            print(f"  {mark} {one.run}: loss {one.loss:.4f} at generation {one.generation}: {one.rule}")


if __name__ == "__main__":
    main(sys.argv[1:])
