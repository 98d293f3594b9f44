"""A rule taken out of metarule: as a program of its own, as data, as an equation."""

from __future__ import annotations

from collections.abc import Callable

from metarule.exporting.as_json import as_json
from metarule.exporting.as_latex import as_latex
from metarule.exporting.as_sympy import as_sympy
from metarule.exporting.as_torch import as_torch
from metarule.portable import Portable

EXPORTS: dict[str, Callable[[Portable], str]] = {
    "json": as_json,
    "latex": as_latex,
    "sympy": as_sympy,
    "torch": as_torch,
}
"""Format -> the function that writes a learner in it; raises ValueError on what it cannot write."""
