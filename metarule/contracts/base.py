"""How a contract is checked: properties, each a function that raises `Broken` where a plug-in does not keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Check(NamedTuple):
    """One property of one plug-in: whether it holds, and what was seen."""

    subject: str
    name: str
    ok: bool
    detail: str


class Broken(Exception):  # noqa: N818 - it says what is broken
    """A property does not hold; the message says what was seen."""


Property = Callable[[Any], str | None]
"""Takes the plug-in and returns what was seen; its docstring is the property's name."""


def require(holds: bool, seen: str) -> None:
    """Raises Broken with `seen` where a property does not hold."""
    if not holds:
        raise Broken(seen)


def verified(subject: str, plugin: Any, properties: Sequence[Property]) -> Iterator[Check]:
    """Every property in turn; whatever a stranger's code raises is a broken property, not the end of the checks."""
    for each in properties:
        name = (each.__doc__ or each.__name__).strip()
        try:
            yield Check(subject, name, True, each(plugin) or "")
        except Broken as broken:
            yield Check(subject, name, False, str(broken))
        except Exception as error:
            yield Check(subject, name, False, f"{type(error).__name__}: {error}")


def has_source(plugin: Any) -> str | None:
    """has a kind, a source and a docstring"""
    for name in ("kind", "source"):
        value = getattr(type(plugin), name, None)
        require(isinstance(value, str) and bool(value), f"{name} = {value!r} must be text")
    require(bool(type(plugin).__doc__), "the class has no docstring; its first sentence is what `metarule list` shows")
    return type(plugin).source
