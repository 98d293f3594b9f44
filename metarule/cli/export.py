"""metarule export RUN|ROW: a rule taken out of metarule, as a file of torch, JSON, LaTeX or sympy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from metarule.cli.output import say


def export(
    rule: Annotated[str, typer.Argument(metavar="RUN|ROW", help="A run's folder, or a row of metarule list zoo.")],
    to: Annotated[str, typer.Option(help="torch, json, latex or sympy.")] = "torch",
    out: Annotated[Path | None, typer.Option(help="Write to this file, not to stdout.")] = None,
) -> None:
    """Write a rule down for use elsewhere: a file that needs torch only, all its numbers, its equation."""
    from metarule.exporting.export import export

    text = export(rule, to, out)
    if out is None:
        sys.stdout.write(text)
    else:
        say(f"written to {out}")
