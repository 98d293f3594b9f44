"""The command line: verbs, options and exit codes, no logic. Torch is imported only by the verbs that compute.

Exit codes: 0 done, 1 a contract is broken, 2 the user's mistake, 75 stopped and resumable, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from metarule.cli import advanced, compare, evaluate, export, identify, inspect, listing, search
from metarule.cli.output import outside, stderr

app = typer.Typer(
    help="Discover, inspect and identify learning rules.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

app.command(no_args_is_help=True)(search.search)
app.command()(inspect.inspect)
app.command(no_args_is_help=True)(compare.compare)
app.command(no_args_is_help=True)(export.export)
app.command()(identify.classify)
app.command()(identify.simulate)
app.command("list")(listing.list_)
for command in (evaluate.evaluate, advanced.bench, advanced.doctor, advanced.check):
    app.command(rich_help_panel="Advanced")(command)
app.add_typer(identify.bank, name="bank", rich_help_panel="Advanced")


def main() -> None:
    """Entry point: a mistake of the user's, or a full disk, becomes one line on stderr and exit code 2."""
    try:
        app()
    except Exception as error:
        sentence = str(error) if isinstance(error, ValueError) else outside(error)
        if sentence is None:
            raise
        stderr().print(f"error: {sentence}", style="red", soft_wrap=True)
        sys.exit(2)
