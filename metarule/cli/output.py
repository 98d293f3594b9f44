"""Where the command line writes: one JSON document or a report on stdout, messages on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console, RenderableType

from metarule.records import jsonable

WIDTH = 140
"""Columns of reports that go to a file or a pipe."""


def stderr() -> Console:
    """The console of progress and messages; what it is given is shown as it is."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """A message, as it is."""
    stderr().print(text, soft_wrap=True)


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
