"""Where the command line writes: one JSON document or a report on stdout, messages on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console, RenderableType

from metarule.records import WorkersDied, jsonable

WIDTH = 140
"""Columns of reports that go to a file or a pipe."""


def stderr() -> Console:
    """The console of progress and messages; what it is given is shown as it is."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """A message, as it is."""
    stderr().print(text, soft_wrap=True)


def outside(error: Exception) -> str | None:
    """The sentence of an error that the machine and not the program made: no memory, no disk; None for others."""
    if isinstance(error, (OSError, WorkersDied)):
        return str(error)
    # torch has no class of its own for it
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return "memory ran out; lower inner.block_runs, inner.batch, --workers or the network"
    return None


def at_once(text: str) -> None:
    """A message from a signal handler, which may have interrupted another one in the middle of its printing."""
    os.write(2, f"{text}\n".encode())


def show(content: RenderableType) -> None:
    """A report on stdout; tables are not cut where it is no terminal."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    console.print(content)


def emit(document: Any) -> None:
    """One JSON document on stdout; numbers that are not finite are null."""
    sys.stdout.write(json.dumps(jsonable(document), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
