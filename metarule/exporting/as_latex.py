"""LaTeX: the equations of a rule, and a legend of their symbols."""

from __future__ import annotations

import sympy

from metarule.exporting.equations import equations, meanings, symbols, where_from
from metarule.portable import Portable


def as_latex(known: Portable) -> str:
    """Comments, one display per equation, and a list of symbols; needs no package.

    Raises ValueError where the rule has no equation.
    """
    lines = [f"% {sentence}" for sentence in where_from(known)]
    for each in equations(known, "LaTeX"):
        said = f" % rule '{each.rule}'" if len(known.rules) > 1 else ""
        lines += [rf"\[{said}", f"  {each.latex}", r"\]"]
    named = meanings(symbols(known)).items()
    lines += [r"\begin{itemize}"] if named else []
    lines += [rf"  \item[${sympy.latex(sympy.Symbol(name))}$] {_plain(meaning)}" for name, meaning in named]
    lines += [r"\end{itemize}"] if named else []
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    """A meaning in letters that every LaTeX knows."""
    for letter, spelled in (("ᵀ", r"\textsuperscript{T}"), ("·", r"$\cdot$"), ("_", r"\_")):
        text = text.replace(letter, spelled)
    return text
