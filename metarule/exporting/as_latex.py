"""LaTeX: the equations of a rule, and a legend of their symbols."""

from __future__ import annotations

import sympy

from metarule.exporting.equations import changes, equations, meanings, symbols, where_from
from metarule.portable import Portable


def as_latex(known: Portable) -> str:
    """Comments, one display per equation, and a list of symbols; needs no package.

    Raises ValueError where the rule has no equation.
    """
    lines = [f"% {sentence}" for sentence in where_from(known)]
    found = changes(known)
    for each in equations(known, "LaTeX"):
        said = f" % rule '{each.rule}'" if len(known.rules) > 1 else ""
        lines += [rf"\[{said}", f"  {_spelled(each.name, found[each.rule][each.name])}", r"\]"]
    named = meanings(symbols(known)).items()
    lines += [r"\begin{itemize}"] if named else []
    lines += [rf"  \item[${_upright(name)}$] {_plain(meaning)}" for name, meaning in named]
    lines += [r"\end{itemize}"] if named else []
    return "\n".join([*lines, ""])


def _spelled(name: str, part: sympy.Expr) -> str:
    """An equation with upright names, which nobody takes for products of letters; numbers to three digits."""
    rounded = part.xreplace({number: sympy.Float(number, 3) for number in part.atoms(sympy.Float)})
    names = {symbol: _upright(str(symbol)) for symbol in part.free_symbols}
    left = r"\Delta W" if name == "dW" else _upright(name)
    return f"{left} = " + sympy.latex(rounded, symbol_names=names, mul_symbol=r" \, ")


def _upright(name: str) -> str:
    """A name in a formula."""
    return rf"\mathrm{{{_plain(name)}}}"


def _plain(text: str) -> str:
    """A meaning in letters that every LaTeX knows."""
    for letter, spelled in (("ᵀ", r"\textsuperscript{T}"), ("·", r"$\cdot$"), ("_", r"\_")):
        text = text.replace(letter, spelled)
    return text
