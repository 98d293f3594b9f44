"""metarule list: every name that a search file or a command may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarule.cli.output import emit, show
from metarule.cli.starting import importing


def list_(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="tasks, rules, zoo, searches, runs, ...")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where run folders are.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List what there is: tasks, credit, rules, terms, synapses, outer loops, the zoo, searches, runs."""
    with importing():
        from metarule.catalog import catalog
        from metarule.inspection.report import plain_table

    rooms = catalog(kind, runs_dir)
    if json:
        emit(rooms)
        return
    for room in rooms:
        columns = ("name", "summary", "source") if kind is None else None
        rows = [
            {key: value for key, value in member.items() if columns is None or key in columns}
            for member in room["members"]
        ]
        show(plain_table(room["kind"], [{key: row[key] for key in columns or row} for row in rows]))
