"""Lines of Python as a formatter leaves them: docstrings wrapped, long sums one summand a line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

WIDTH = 120
"""Columns of exported code."""


def docstring(sentences: Iterable[str], indent: str = "") -> str:
    """Sentences as a docstring, wrapped; the first is its summary."""
    first, *others = map(quotable, sentences)
    lines = wrapped(f'"""{first}', indent)
    if not others:
        return "\n".join([*lines[:-1], f'{lines[-1]}"""'])
    for sentence in others:
        lines += ["", *wrapped(sentence, indent)]
    return "\n".join([*lines, f'{indent}"""'])


def wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    """Text as indented lines of exported code, broken at spaces only: a path with a hyphen stays one word."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=first if rest is None else rest,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip


def quotable(text: str) -> str:
    """Text that stays text inside of a docstring, whatever somebody called a run."""
    return text.replace("\\", "\\\\").replace('"""', "'''")


def assigned(name: str, expression: str) -> str:
    """name = expression; a sum that is too long for a line in brackets, one summand a line."""
    line = f"{name} = {expression}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name} = (", *(f"    {part}" for part in summands(expression)), ")"])


def returned(expression: str, indent: str) -> list[str]:
    """return expression; a sum that is too long for a line is added up, one summand a line."""
    line = f"{indent}return {expression}"
    if len(line) <= WIDTH:
        return [line]
    first, *others = summands(expression)
    added = [f"{indent}total = total {part}" for part in others]
    return [f"{indent}total = {first}", *added, f"{indent}return total"]


def constant(name: str, value: Any) -> list[str]:
    """name = a number, or a list of numbers, or of such lists, one a line where they are too long for one."""
    lines = _listed(value, "", WIDTH - len(f"{name} = "))
    return [f"{name} = {lines[0]}", *lines[1:]]


def _listed(value: Any, indent: str, room: int) -> list[str]:
    """A value in as few lines as a formatter leaves it, the first without its indent."""
    if not isinstance(value, list) or len(repr(value)) <= room:
        return [repr(value)]
    deeper = f"{indent}    "
    parts = [_listed(part, deeper, WIDTH - len(deeper) - 1) for part in value]
    inside = [line for part in parts for line in (f"{deeper}{part[0]}", *part[1:])]
    ends = {sum(map(len, parts[: place + 1])) - 1 for place in range(len(parts))}
    return ["[", *(f"{line}," if place in ends else line for place, line in enumerate(inside)), f"{indent}]"]


def summands(expression: str) -> list[str]:
    """A sum cut before every + and - that no bracket holds."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(expression):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and place and expression[place : place + 3] in (" + ", " - "):
            parts.append(expression[start:place].strip())
            start = place
    return [*parts, expression[start:].strip()]
