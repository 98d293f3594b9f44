"""A rule without a readable equation turned into one: what it does on probe signals, by regression on our own terms.

What those terms do not say is left to symbolic regression (pyoperon, the extra `symbolic`), asked for only then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from metarule.fingerprint import probe_signals
from metarule.identification.dictionary import normal_of
from metarule.identification.sparse import path, select, solved
from metarule.inspection.observed import Observed, evaluated, factors_of
from metarule.programs import leaf
from metarule.results import Learning, mean_shape
from metarule.rng import noise_for
from metarule.rules import Rule
from metarule.rules.polynomial import Polynomial
from metarule.symbolic import Values, parsed, replaced, simplified
from metarule.terms import Term, spelled

RUNS, SIZE = 112, 3
"""Probes: single events at the 3 x 3 synapses of so many runs; as many again for the held-out share."""

TERMS = 40
"""Terms that a sparse sum is chosen from: those that, one after the other, explain most."""

ENOUGH = 0.99
"""Held-out share of the change at which an equation in our own terms is one."""

CLOSE = 0.001
"""Share that a shorter expression may lose against the best of the front."""

PARTS = 50

WEAK, LOST = 0.5, 0.01
"""A term goes where less than half of what is left without it is its doing, and all that go explain less than LOST."""

SEARCH = {
    "objectives": ["mse", "length"],
    "allowed_symbols": "add,sub,mul,div,square,tanh,abs,constant,variable",
    "max_length": 30,
    "optimizer_iterations": 5,
    "n_threads": 1,
    "random_state": 0,
}
"""What pyoperon is asked; its default objective chose models with R2 .41 where these find the rule."""

EVALUATIONS = 200_000
"""Expressions that are tried: 10 s on one core."""


class MissingError(ValueError):
    """Symbolic regression was asked for and is not installed."""


@dataclass(frozen=True)
class Distilled:
    """An equation for what a rule does: `by` "terms" or "operon", and the shares of the change's squares it explains.

    `r2_held_out` is of probe signals that neither form nor numbers saw; `front` holds (length, share, expression) of
    the alternatives, shorter and worse, that symbolic regression weighed.
    """

    expression: sympy.Expr
    r2: float
    r2_held_out: float
    by: str
    front: tuple[tuple[int, float, sympy.Expr], ...] = ()

    @property
    def faithful(self) -> bool:
        """True where the equation explains `ENOUGH` of what it did not see."""
        return self.r2_held_out >= ENOUGH


@dataclass(frozen=True, eq=False)
class Probed:
    """What a rule did: every signal (N) of N synapses, and the changes (N)."""

    signals: dict[str, np.ndarray]
    change: np.ndarray

    def said(self, expression: sympy.Expr) -> np.ndarray:
        """What an equation says of them."""
        return evaluated(expression, self.signals)

    def share(self, expression: sympy.Expr) -> float:
        """Share of the summed squares that an equation explains; -inf where it is not finite."""
        with np.errstate(all="ignore"):
            left = float(((self.change - self.said(expression)) ** 2).sum())
        energy = float((self.change**2).sum())
        if not np.isfinite(left):
            return -np.inf
        return 1 - left / energy if energy else float(left == 0)


def distilled(
    rule: Rule,
    theta: Float[Tensor, "P"],
    values: Values | None = None,
    degree: int = 3,
    by: str | None = None,
    evaluations: int = EVALUATIONS,
    seen: Observed | None = None,
) -> Distilled:
    """The equation of any rule at one row of theta, fitted to its change at single events of standard normal signals.

    Or to what it did where it was `seen`: half of these runs for form and numbers, the other half held out. `values`
    are signals that take few values. Of a rule with a state it is the first change. `by`: "terms" for a
    sparse sum of monomials up to `degree`, "operon" for symbolic regression, None for the first that is `ENOUGH`, the
    latter where it is installed. Raises MissingError where "operon" is not, ValueError where the change is not
    finite.
    """
    if by not in (None, "terms", "operon"):
        raise ValueError(f"by = {by!r} is not one of 'terms', 'operon', None")
    if seen is None:
        fit, test = (probed(rule, theta, values or {}, part) for part in ("fit", "held out"))
    else:
        fit, test = (Probed(half.signals, half.change) for half in (seen.half(0), seen.half(1)))
    if not fit.change.any():
        return Distilled(sympy.Integer(0), 1.0, test.share(sympy.Integer(0)), "terms")
    found = None if by == "operon" else in_terms(fit, test, degree, values)
    if found is not None and (by == "terms" or found.faithful):
        return found
    try:
        richer = by_search(fit, test, evaluations, values)
    except MissingError:
        if found is None:
            raise
        return found
    return richer if found is None or richer.r2_held_out > found.r2_held_out else found


def in_words(
    owner: Learning,
    theta: Float[Tensor, "P"],
    values: Values | None = None,
    seen: Callable[[str], Observed | None] = lambda key: None,
) -> list[dict[str, Any]]:
    """{rule, equation, by, r2_held_out, on_task} per rule of a learner with numbers theta: its own equation simplified,
    or a distilled one.

    `by` is "itself" where the rule says itself what it computes. Of a distilled one `on_task` holds the same of what it
    does where it was `seen`, by the rule's key, and as "share" what the first equation keeps there: such a rule is
    arbitrary where it is never asked. None where it was not. Raises ValueError where a change is not finite.
    """
    columns = owner.learner.columns(theta[None].to(torch.float64))
    rows = []
    for key, rule in owner.learner.rules.items():
        row = columns.rules[key][0]
        own = rule.equation(row, mean_shape(owner, key))
        parts = rule.expressions(row) if own is None else {"dW": own}
        by, share, on_task = "itself", 1.0, None
        if not parts:
            found = distilled(rule, row, values)
            parts, by, share = {"dW": found.expression}, found.by, found.r2_held_out
            there = seen(key)
            on_task = None if there is None else _on_task(rule, row, values, there, found)
        text = "; ".join(f"{name} = {spelled(simplified(part, values))}" for name, part in parts.items())
        rows.append({"rule": key, "equation": text, "by": by, "r2_held_out": share, "on_task": on_task})
    return rows


def _on_task(
    rule: Rule, theta: Float[Tensor, "P"], values: Values | None, seen: Observed, probes: Distilled
) -> dict[str, Any]:
    found = distilled(rule, theta, values, seen=seen)
    test = seen.half(1)
    return {
        "at": seen.at,
        "equation": f"dW = {spelled(found.expression)}",
        "by": found.by,
        "r2_held_out": found.r2_held_out,
        "share": Probed(test.signals, test.change).share(probes.expression),
    }


def probed(rule: Rule, theta: Float[Tensor, "P"], values: Values, label: str) -> Probed:
    """Signals and first changes of a rule at probes of their own `label`; raises ValueError where not finite."""
    noise = noise_for([("distilled", label, run) for run in range(RUNS)], torch.float64)
    rows = theta.detach().to(torch.float64)[None].expand(RUNS, -1)
    signals = probe_signals(rule.reads, noise.at("signals"), (1, SIZE, SIZE), values)
    with torch.no_grad():
        change = rule.delta(rows, signals, rule.init(rows, signals.weight), noise.at("rule"))[0].tensor(signals.weight)
        seen = {name: leaf(name, signals).expand(RUNS, 1, SIZE, SIZE).reshape(-1).numpy() for name in factors_of(rule)}
    if not torch.isfinite(change).all():
        raise ValueError("the rule's change is not finite on standard normal signals; it has no equation there")
    return Probed(seen, change.reshape(-1).numpy())


def in_terms(fit: Probed, test: Probed, degree: int, values: Values | None = None) -> Distilled:
    """The sparse sum of monomials of the signals."""
    terms = Polynomial(dict.fromkeys(fit.signals, degree), total=degree, constant=True).weighted
    design = np.stack([_column(term, fit) for term in terms], axis=1)
    pursued = _pursued(design, fit.change)
    terms, design = [terms[k] for k in pursued], design[:, pursued]
    parts = np.arange(len(design)) * PARTS // len(design)
    chosen = select(normal_of([term.name for term in terms], design, fit.change, parts), n_boot=0)
    kept = _strong(design, fit.change, [k for k, term in enumerate(terms) if term.name in chosen.coefficients])
    total = sympy.Add(*(sympy.Float(value) * terms[k].expression for k, value in kept.items()))
    return _measured(total, fit, test, "terms", values)


def _strong(design: np.ndarray, change: np.ndarray, support: list[int]) -> dict[int, float]:
    """Column -> coefficient of those columns of a support that are no slight corrections to the others.

    A rule that only nearly is a sum of terms is one of terms all the same: what is left of it is not noise, and a long
    sum of small terms always explains a little more.
    """
    part = design[:, support]
    gram, cross, energy = part.T @ part, part.T @ change, float(change @ change)
    steps = path(gram, cross, energy, list(range(len(support))))
    place = 0
    while steps[place][0]:
        rest, without = steps[place][1], steps[place + 1][1]
        if without - rest > WEAK * without or without - steps[0][1] > LOST * energy:
            break
        place += 1
    values = solved(gram, cross, steps[place][0])
    return {support[k]: float(values[k]) for k in steps[place][0]}


def _pursued(design: np.ndarray, change: np.ndarray) -> list[int]:
    """Columns in the order in which they explain most of what is left (orthogonal matching pursuit)."""
    scaled = design / np.sqrt((design**2).sum(0))
    chosen: list[int] = []
    rest = change
    while len(chosen) < min(TERMS, scaled.shape[1]) and (rest**2).sum() > 1e-20 * (change**2).sum():
        merit = np.abs(scaled.T @ rest)
        merit[chosen] = 0
        chosen.append(int(merit.argmax()))
        part = scaled[:, chosen]
        rest = change - part @ np.linalg.lstsq(part, change, rcond=None)[0]
    return sorted(chosen)


def _column(term: Term, fit: Probed) -> np.ndarray:
    ((_, powers),) = term.parts
    column = np.ones_like(fit.change)
    for name, power in powers:
        column = column * fit.signals[name] ** power
    return column


def by_search(fit: Probed, test: Probed, evaluations: int, values: Values | None = None) -> Distilled:
    """The shortest expression of pyoperon's Pareto front that is `CLOSE` to its best, its small terms dropped."""
    try:
        from pyoperon.sklearn import SymbolicRegressor  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingError(
            "symbolic regression needs pyoperon, which is not installed: pip install 'metarule[symbolic]'"
        ) from error
    names, size = list(fit.signals), float(np.sqrt(np.mean(fit.change**2)))
    model = SymbolicRegressor(**SEARCH, max_evaluations=evaluations)
    model.fit(np.stack(list(fit.signals.values()), axis=1), fit.change / size)
    columns = {sympy.Symbol(f"X{k + 1}"): sympy.Symbol(name) for k, name in enumerate(names)}
    read = [replaced(parsed(model.get_model_string(each["tree"], 9)), columns) for each in model.pareto_front_]
    lengths = [int(each["length"]) for each in model.pareto_front_]
    front = sorted(
        ((length, fit.share(size * each), size * each) for length, each in zip(lengths, read, strict=True)),
        key=lambda entry: entry[0],
    )
    best = max(share for _, share, _ in front)
    whole = next(each for _, share, each in front if share >= best - CLOSE)
    pruned = refitted(simplified(whole, values, digits=6, tolerance=0.01), fit)
    chosen = pruned if fit.share(pruned) >= best - 2 * CLOSE else whole
    measured = _measured(chosen, fit, test, "operon", values)
    return Distilled(measured.expression, measured.r2, measured.r2_held_out, measured.by, tuple(front))


def refitted(expression: sympy.Expr, fit: Probed) -> sympy.Expr:
    """The same terms with coefficients by least squares."""
    terms = [term.as_coeff_Mul()[1] for term in sympy.Add.make_args(sympy.expand(expression))]
    design = np.stack([fit.said(term) for term in terms], axis=1)
    found = np.linalg.lstsq(design, fit.change, rcond=None)[0]
    return sympy.Add(*(sympy.Float(value) * term for value, term in zip(found, terms, strict=True)))


def _measured(expression: sympy.Expr, fit: Probed, test: Probed, by: str, values: Values | None) -> Distilled:
    written = simplified(expression, values)
    return Distilled(written, fit.share(written), test.share(written), by)
