"""The vocabulary of learning rules: factors, terms made of them, and how a sum of terms becomes a weight change.

A term is a sum of monomials, each (per-event scalar) x (post side) x (pre side) x (synapse factor). Searching,
printing and recovering rules all use the names here.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.signals import Change, Signals


class Factor(NamedTuple):
    """One quantity a monomial may contain.

    `side` says where it lives: "post" (R B I), "pre" (R B J), "event" (R B 1) or "synapse" (R I J). `summed` marks
    per-event scalars that are sums over the I post units: normalised terms use their mean.
    """

    side: str
    reads: tuple[str, ...]
    local: bool
    value: Callable[[Signals], Tensor]
    summed: bool = False


def _signal(side: str, name: str) -> Factor:
    return Factor(side, (name,), True, lambda signals: signals.read(name))


def _post_dot(post_side: str, pre_side: str) -> Callable[[Signals], Tensor]:
    def value(signals: Signals) -> Tensor:
        driven = torch.bmm(signals.read(pre_side), signals.weight.transpose(1, 2))
        return (signals.read(post_side) * driven).sum(-1, keepdim=True)

    return value


FACTORS: dict[str, Factor] = {
    "post": _signal("post", "post"),
    "post_ref": _signal("post", "post_ref"),
    "error": _signal("post", "error"),
    "feedback": _signal("post", "feedback"),
    "gain": _signal("post", "gain"),
    "post_change": Factor(
        "post", ("post", "post_ref"), True, lambda signals: signals.read("post") - signals.read("post_ref")
    ),
    "pre": _signal("pre", "pre"),
    "pre_ref": _signal("pre", "pre_ref"),
    "pre_error": _signal("pre", "pre_error"),
    # W^T post: what the layer would reconstruct of its input
    "reconstruction": Factor("pre", ("post",), False, lambda signals: torch.bmm(signals.read("post"), signals.weight)),
    "reward": _signal("event", "reward"),
    "total_post": Factor(
        "event", ("post",), False, lambda signals: signals.read("post").sum(-1, keepdim=True), summed=True
    ),
    # post . W pre_error and error . W pre
    "agreement": Factor("event", ("post", "pre_error"), False, _post_dot("post", "pre_error"), summed=True),
    "match": Factor("event", ("error", "pre"), False, _post_dot("error", "pre"), summed=True),
    "weight": Factor("synapse", (), True, lambda signals: signals.weight),
    "weight_noise": _signal("synapse", "weight_noise"),
    "eligibility": _signal("synapse", "eligibility"),
}

Monomial = tuple[tuple[str, int], ...]
"""Factors and their powers, in the order of FACTORS."""

_RANK = {name: rank for rank, name in enumerate(FACTORS)}


def monomial(**powers: int) -> Monomial:
    """A monomial from factor names and powers, monomial(post=2, weight=1)."""
    return tuple(sorted(((name, power) for name, power in powers.items() if power), key=lambda item: _RANK[item[0]]))


@dataclass(frozen=True)
class Term:
    """A named sum of monomials with fixed relative coefficients."""

    name: str
    parts: tuple[tuple[float, Monomial], ...]

    @functools.cached_property
    def factors(self) -> frozenset[str]:
        """Names of all factors in the term."""
        return frozenset(name for _, part in self.parts for name, _ in part)

    @property
    def reads(self) -> frozenset[str]:
        """Signals the term reads, the weight apart."""
        return frozenset(signal for name in self.factors for signal in FACTORS[name].reads)

    @property
    def local(self) -> bool:
        """True where every factor is available at the synapse."""
        return all(FACTORS[name].local for name in self.factors)

    @property
    def expression(self) -> sympy.Expr:
        """The term in symbols named like its factors."""
        return sympy.Add(
            *(
                sympy.Mul(_number(sign), *(sympy.Symbol(name) ** power for name, power in part))
                for sign, part in self.parts
            )
        )

    def scale(self, size_out: float, size_in: float) -> float:
        """What a normalised coefficient of 1 stands for, as a raw coefficient, at an I x J projection.

        s^(1 - n) I^(-m), with s = sqrt(2 / (I + J)) the weight scale, n the power of the weight in the term and m the
        number of factors that sum over post units: signals of order 1 then move weights by the fraction
        `coefficient` of their scale, whatever the width.
        """
        powers = dict(self.parts[0][1])
        weight_power = sum(power for name, power in powers.items() if FACTORS[name].side == "synapse")
        sums = sum(power for name, power in powers.items() if FACTORS[name].summed)
        return glorot(size_out, size_in) ** (1 - weight_power) * float(size_out) ** -sums


def glorot(size_out: float, size_in: float) -> float:
    """The weight scale sqrt(2 / (I + J)) of a projection (Glorot and Bengio, 2010)."""
    return math.sqrt(2.0 / (size_out + size_in))


def _number(value: float) -> sympy.Expr:
    return sympy.Integer(int(value)) if float(value).is_integer() else sympy.Float(value)


def _terms(**parts: list[tuple[float, Monomial]]) -> dict[str, Term]:
    return {name: Term(name, tuple(part)) for name, part in parts.items()}


# The ten terms of Shervani-Tabar and Rosenbaum (2023, equations 14-23) lead, in their order. `error` here is target -
# output, the negative of theirs: their coefficients of error_pre_error, agreement_post_pre_error, agreement_error_pre
# and match_post_pre_error change sign, the others (their minus sign written out) do not.
TERMS: dict[str, Term] = _terms(
    error_pre=[(1, monomial(error=1, pre=1))],
    post_pre_error=[(1, monomial(post=1, pre_error=1))],
    error_pre_error=[(1, monomial(error=1, pre_error=1))],
    weight_decay=[(-1, monomial(weight=1))],
    pre_error=[(1, monomial(pre_error=1))],
    total_post_error_pre=[(1, monomial(total_post=1, error=1, pre=1))],
    agreement_post_pre_error=[(1, monomial(agreement=1, post=1, pre_error=1))],
    agreement_error_pre=[(1, monomial(agreement=1, error=1, pre=1))],
    match_post_pre_error=[(1, monomial(match=1, post=1, pre_error=1))],
    subspace_oja=[(1, monomial(post=1, pre=1)), (-1, monomial(post=1, reconstruction=1))],
    oja=[(1, monomial(post=1, pre=1)), (-1, monomial(post=2, weight=1))],
    post_pre=[(1, monomial(post=1, pre=1))],
    post=[(1, monomial(post=1))],
    pre=[(1, monomial(pre=1))],
    error=[(1, monomial(error=1))],
    feedback_pre=[(1, monomial(feedback=1, pre=1))],
    post_pre_ref=[(1, monomial(post=1, pre_ref=1))],
    post_ref_pre=[(1, monomial(post_ref=1, pre=1))],
    gain_post_change_pre=[(1, monomial(gain=1, post_change=1, pre=1))],
    reward_post_change_pre=[(1, monomial(reward=1, post_change=1, pre=1))],
    contrastive=[(1, monomial(post=1, pre=1)), (-1, monomial(post_ref=1, pre_ref=1))],
    reward_contrastive=[(1, monomial(reward=1, post=1, pre=1)), (-1, monomial(reward=1, post_ref=1, pre_ref=1))],
    reward_weight_noise=[(1, monomial(reward=1, weight_noise=1))],
    post_change_pre=[(1, monomial(post_change=1, pre=1))],
    reward_post_pre=[(1, monomial(reward=1, post=1, pre=1))],
    reward_error_pre=[(1, monomial(reward=1, error=1, pre=1))],
    reward_gain_post_change_pre=[(1, monomial(reward=1, gain=1, post_change=1, pre=1))],
    reward_post_pre_ref=[(1, monomial(reward=1, post=1, pre_ref=1))],
    reward_post_ref_pre=[(1, monomial(reward=1, post_ref=1, pre=1))],
    post_weight=[(-1, monomial(post=1, weight=1))],
    soft_hebb=[(1, monomial(post=1, pre=1)), (-1, monomial(post=1, post_ref=1, weight=1))],
    reward_stdp=[(1, monomial(reward=1, post=1, pre_ref=1)), (-1, monomial(reward=1, post_ref=1, pre=1))],
    reward_eligibility=[(1, monomial(reward=1, eligibility=1))],
    eligibility=[(1, monomial(eligibility=1))],
    pre_weight=[(-1, monomial(pre=1, weight=1))],
    constant=[(1, ())],
)

POOL = tuple(TERMS)[:10]
"""Names of the ten published terms."""


class _Product(NamedTuple):
    """A monomial taken apart: which coefficient it has, what it multiplies on each side of the synapse."""

    k: int
    sign: float
    left: Monomial
    right: Monomial
    synapse: Monomial


class _Plan(NamedTuple):
    anchor_left: bool
    groups: tuple[tuple[Monomial, tuple[_Product, ...]], ...]
    synaptic: tuple[_Product, ...]
    decays: tuple[_Product, ...]


@functools.lru_cache(maxsize=1024)
def _plan(terms: tuple[Term, ...]) -> _Plan:
    products, synaptic, decays = [], [], []
    for k, term in enumerate(terms):
        for sign, part in term.parts:
            product = _Product(k, sign, _of(part, "event", "post"), _of(part, "pre"), _of(part, "synapse"))
            if not product.synapse:
                products.append(product)
            elif part == (("weight", 1),):
                decays.append(product)
            else:
                synaptic.append(product)
    lefts = {product.left for product in products}
    rights = {product.right for product in products}
    anchor_left = len(lefts) <= len(rights)
    groups: dict[Monomial, list[_Product]] = {}
    for product in products:
        groups.setdefault(product.left if anchor_left else product.right, []).append(product)
    stacked = tuple((anchor, tuple(members)) for anchor, members in groups.items())
    return _Plan(anchor_left, stacked, tuple(synaptic), tuple(decays))


def _of(part: Monomial, *sides: str) -> Monomial:
    return tuple((name, power) for name, power in part if FACTORS[name].side in sides)


def combine(terms: tuple[Term, ...], coefficients: Float[Tensor, "R K"], signals: Signals) -> Change:
    """sum_k c_k <term_k>, the mean over events, as a factored change.

    Terms without a synapse factor are summed in activation space, grouped by a side they share, and stacked along
    the event axis: one product of length (groups x B), never K weight-sized matrices.
    """
    plan = _plan(terms)
    known: dict[Monomial, Tensor | None] = {(): None}

    def side(key: Monomial) -> Tensor | None:
        if key not in known:
            known[key] = functools.reduce(
                torch.mul, (_power(FACTORS[name].value(signals), power) for name, power in key)
            )
        return known[key]

    runs, size_out, size_in = signals.weight.shape
    count = events(signals)
    # taken apart at once: a view per term and step is a node each on the way back
    means = (coefficients / count if count > 1 else coefficients)[:, :, None, None].unbind(1)

    anchors, sums = [], []
    for anchor, members in plan.groups:
        total: Tensor | None = None
        for product in members:
            value = side(product.right if plan.anchor_left else product.left)
            total = _added(total, means[product.k], value, product.sign)
        anchors.append(side(anchor))
        sums.append(total)
    left, right = (anchors, sums) if plan.anchor_left else (sums, anchors)
    change = Change()
    if plan.groups:
        change = Change(
            left=torch.cat([_wide(value, runs, count, size_out, signals) for value in left], dim=1),
            right=torch.cat([_wide(value, runs, count, size_in, signals) for value in right], dim=1),
        )
    for product in plan.decays:
        change = change + Change(shrink=-product.sign * coefficients[:, product.k, None, None])
    for product in plan.synaptic:
        synapse = side(product.synapse)
        assert synapse is not None
        mean = _mean_outer(side(product.left), side(product.right))
        full = product.sign * coefficients[:, product.k, None, None] * synapse
        change = change + Change(full=full if mean is None else full * mean)
    return change


def _added(total: Tensor | None, factor: Tensor, value: Tensor | None, sign: float) -> Tensor:
    """total + sign factor value, in one pass; absent values are 1, an absent total 0."""
    if total is not None and value is not None:
        return torch.addcmul(total, value, factor, value=sign)
    part = factor if value is None else value * factor
    part = part if sign == 1 else part * sign
    return part if total is None else total + part


def _power(value: Tensor, power: int) -> Tensor:
    return value if power == 1 else value**power


def events(signals: Signals) -> int:
    """B of the signals that are there; 1 where there is none but the weight."""
    for name in ("pre", "post", "error", "pre_error", "post_ref", "pre_ref", "feedback", "gain", "reward"):
        value = getattr(signals, name)
        if value is not None:
            return value.shape[1]
    return 1


def _wide(value: Tensor | None, runs: int, events: int, size: int, signals: Signals) -> Tensor:
    if value is None:
        value = signals.weight.new_ones(1, 1, 1)
    return value if value.shape == (runs, events, size) else value.expand(runs, events, size)


def _mean_outer(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is not None and right is not None:
        return torch.bmm(left.transpose(1, 2), right) / left.shape[1]
    if left is not None:
        return left.mean(1).unsqueeze(2)
    return None if right is None else right.mean(1).unsqueeze(1)


def equation(terms: Iterable[Term], coefficients: Iterable[float]) -> sympy.Expr:
    """sum_k c_k term_k in the symbols of FACTORS."""
    return sympy.Add(
        *(sympy.Float(coefficient) * term.expression for term, coefficient in zip(terms, coefficients, strict=True))
    )


_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def spelled(expression: sympy.Expr) -> str:
    """An expression as people write it, numbers to three digits: 0.0309·error·pre - 0.0354·post²·weight."""
    rounded = expression.xreplace({number: sympy.Float(number, 3) for number in expression.atoms(sympy.Float)})
    powers = re.sub(r"\*\*(\d+)", lambda power: power[1].translate(_SUPERSCRIPTS), str(rounded))
    return powers.replace("*", "·")
