"""Sympy: the equations of a rule as a Python snippet that needs sympy only."""

from __future__ import annotations

import re

import sympy

from metarule.exporting.equations import changes, equations, meanings, symbols, where_from
from metarule.exporting.layout import assigned, docstring
from metarule.portable import Portable


def as_sympy(known: Portable) -> str:
    """A module with one symbol per signal and one expression per equation.

    Raises ValueError where the rule has no equation.
    """
    found, parts = equations(known, "sympy"), changes(known)
    whole = [part for named in parts.values() for part in named.values()]
    names = sorted(symbols(known))
    functions = {kind.__name__ for part in whole for kind in (type(node) for node in part.atoms(sympy.Function))}
    first, *others = where_from(known)
    lines = [
        *docstring([first, *others]).removesuffix('"""').splitlines(),
        "",
        *(f"    {name}: {text}" for name, text in meanings(names).items()),
        '"""',
        "",
    ]
    lines += [f"from sympy import {', '.join(sorted({*functions, 'symbols'} if names else functions))}"]
    if names:
        said = ", ".join(names)
        lines += ["", f'{said} = symbols("{said}", seq=True)' if len(names) == 1 else f'{said} = symbols("{said}")']
    for each in found:
        key = re.sub(r"\W+", "_", each.rule)
        target = each.name if len(known.rules) == 1 else f"{each.name}_{key}"
        lines += ["", assigned(target, each.sympy)]
    return "\n".join([*lines, ""])
