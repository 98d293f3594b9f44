"""Every built-in plug-in keeps the contract that `metarule check` puts to a stranger's."""

from __future__ import annotations

import dataclasses

import pytest
import sympy
import torch
from building import make

from metarule.contracts import CHECKS
from metarule.contracts.base import verified
from metarule.params import Param
from metarule.plugins import ROOMS
from metarule.rules import Rule
from metarule.signals import outer

MEMBERS = [(room, kind) for room, (registry, _) in ROOMS.items() for kind in registry]


@pytest.mark.parametrize(("room", "kind"), MEMBERS)
def test_every_plugin_keeps_its_contract(room, kind):
    checks = list(CHECKS[room](make(ROOMS[room][0][kind])))
    assert [check for check in checks if not check.ok] == []
    assert len(checks) >= 4


@dataclasses.dataclass(frozen=True)
class Wrong(Rule):
    """A rule that may be wrong in one way."""

    kind = "wrong"
    source = "made for the tests"
    reads = frozenset({"error", "pre"})  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    params = (Param("rate", 0.5),)  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    fault: str = ""

    def delta(self, theta, signals, state, noise):
        error, pre = signals.read("error"), signals.read("pre")
        rate = theta[:, :1, None]
        if self.fault == "mixes runs":
            rate = theta[:1, :1, None].expand_as(rate)
        if self.fault == "not local":
            error = error - error.mean(-1, keepdim=True)
        if self.fault == "detached":
            rate = rate.detach()
        if self.fault == "in place":
            theta.mul_(1.0001)
        if self.fault == "dtype":
            pre, error, rate = pre.double(), error.double(), rate.double()
        if self.fault == "autograd":
            with torch.enable_grad():
                leaf = error.clone().requires_grad_()
                error = torch.autograd.grad(leaf.square().sum() / 2, leaf)[0]
        return outer(error * rate, pre), state

    def equation(self, theta, shape):
        name = "eror" if self.fault == "symbol" else "error"
        factor = 2 if self.fault == "equation" else 1
        return factor * float(theta[0]) * sympy.Symbol(name) * sympy.Symbol("pre")


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ("", ""),
        ("mixes runs", "row r of theta moves run r only"),
        ("not local", "is local where it says so"),
        ("detached", "theta's gradient equals finite differences"),
        ("in place", "gives finite changes"),
        ("dtype", "gives finite changes"),
        ("autograd", "uses no autograd inside"),
        ("symbol", "evaluates to its change"),
        ("equation", "evaluates to its change"),
    ],
)
def test_a_contract_finds_the_fault_that_was_planted(fault, broken):
    names = [check.name for check in CHECKS["rule"](Wrong(fault)) if not check.ok]
    assert bool(names) == bool(fault), names
    assert not fault or any(broken in name for name in names)


def test_what_a_plugin_raises_is_a_broken_property_with_its_name():
    def fails(plugin):
        """does not fail"""
        raise KeyError("spectrum")

    (check,) = verified("rule.x", None, [fails])
    assert check == ("rule.x", "does not fail", False, "KeyError: 'spectrum'")
