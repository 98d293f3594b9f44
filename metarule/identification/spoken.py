"""What an equation says of the rules whose equations are known: that it is theirs, or that it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from metarule.identification.equation import ABOVE, EXACT, OUTPUT, TARGET, EdgeEquation, Equation

SAME = 0.05
"""How much coefficients that are equal in a rule may differ in its equation."""

Form = Callable[[tuple[EdgeEquation, ...]], bool]
"""Whether the equations of the hidden edges, bottom up, are a rule's."""


def spoken(equation: Equation) -> dict[str, str]:
    """Class -> "supports" or "contradicts", of the classes with an equation in this vocabulary; {} unless it is exact.

    Exact: every edge has few terms, all of them determined, that leave a thousandth of held-out changes at the most.
    """
    edges = equation.edges
    if not all(edge.found and edge.selection.r2_held_out >= EXACT and edge.method != "trajectory" for edge in edges):
        return {}
    if not edges or not _delta(edges[-1], None):
        return dict.fromkeys(FORMS, "contradicts")
    return {name: "supports" if form(edges[:-1]) else "contradicts" for name, form in FORMS.items()}


def _delta(edge: EdgeEquation, *sources: str | None) -> bool:
    """Whether an edge changes by error pre alone, the error coming by one of these ways (None: backpropagated)."""
    carried = None if edge.feedback is None else edge.feedback.source
    return set(edge.selection.coefficients) == {"error_pre"} and carried in sources


def _oja(edge: EdgeEquation) -> bool:
    found: Mapping[str, float] = edge.selection.coefficients
    return set(found) == {"post_pre", "post2_weight"} and abs(1 + found["post2_weight"] / found["post_pre"]) < SAME


FORMS: dict[str, Form] = {
    "backprop": lambda hidden: all(_delta(edge, None) for edge in hidden),
    # what comes to the highest hidden layer is the same by either way
    "feedback_alignment": lambda hidden: (
        all(_delta(edge, ABOVE) for edge in hidden[:-1]) and all(_delta(edge, ABOVE, OUTPUT) for edge in hidden[-1:])
    ),
    "direct_feedback_alignment": lambda hidden: (
        all(_delta(edge, OUTPUT) for edge in hidden[:-1]) and all(_delta(edge, ABOVE, OUTPUT) for edge in hidden[-1:])
    ),
    "direct_random_target_projection": lambda hidden: all(_delta(edge, TARGET) for edge in hidden),
    "oja": lambda hidden: all(_oja(edge) for edge in hidden),
}
"""Class -> the form of its equations at the hidden edges; at the readout all of them change by error pre."""
