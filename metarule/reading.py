"""Reading searches: TOML files, overrides on the command line, and the files that come with metarule."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarule.collect import unknown
from metarule.plugins import ROOMS, SpecError, settings
from metarule.spec import Budget, Search, from_table, joined

Say = Callable[[str], None]
"""Who hears of what was changed on the way."""


def read(path: Path, overrides: tuple[str, ...] = (), say: Say = lambda text: None) -> tuple[Search, str]:
    """A search from a TOML file and overrides 'outer.generations=50'; returns it with the file's text.

    An override of a `kind` drops the keys that only the file's kind has; `say` hears which.
    """
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from error
    return built(table, overrides, path.parent, say), text


def built(table: dict[str, Any], overrides: tuple[str, ...], folder: Path, say: Say = lambda text: None) -> Search:
    """The search of a table with overrides applied, as `read` does it; `folder` is where relative plug-ins start."""
    return from_table(_fitting(table, overridden(table, overrides), overrides, folder, say), folder)


def overridden(table: dict[str, Any], overrides: tuple[str, ...]) -> dict[str, Any]:
    """The table with dotted overrides applied; values are read as TOML, bare words as strings.

    Relative paths in an override of `plugins` start at the current folder.
    """
    table = copy.deepcopy(table)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise SpecError(f"override '{override}' must read key=value, as in outer.generations=50")
        *parents, key = dotted.strip().split(".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise SpecError(f"override '{override}': '{parent}' is a value, not a table")
        try:
            place[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            place[key] = text
        if (*parents, key) == ("plugins",) and isinstance(table["plugins"], list):
            table["plugins"] = [str(Path.cwd() / path) if isinstance(path, str) else path for path in table["plugins"]]
    return table


def _fitting(before: dict[str, Any], after: dict[str, Any], overrides: tuple[str, ...], folder: Path, say: Say) -> Any:
    """`after` without what the file said for a kind that an override replaced by one that has no such key."""
    dotted = [tuple(override.partition("=")[0].strip().split(".")) for override in overrides]
    for place in [words[:-1] for words in dotted if words[-1] == "kind"]:
        old, new = _at(before, place), _at(after, place)
        room = place[0].removesuffix("s") if place else ""
        if room not in ROOMS or not old or not new or old.get("kind") == new["kind"]:
            continue
        joined(after, folder)  # the new kind may be a stranger's
        kind = ROOMS[room][0].get(str(new["kind"]))
        if kind is None:
            continue
        known = {"kind", *(spec.name for spec in settings(kind))}
        known |= {spec.name for spec in settings(Budget)} if room == "outer" else set()
        given = {words[len(place)] for words in dotted if words[: len(place)] == place and len(words) > len(place)}
        for key in [key for key in new if key in old and key not in known | given]:
            del new[key]
            name = ".".join(place)
            say(f"{name}.{key} = {old[key]!r} is left out: {name}.kind = '{new['kind']}' has no such key")
    return after


def _at(table: Any, place: tuple[str, ...]) -> dict[str, Any]:
    """The table at a dotted place; {} where there is none."""
    for word in place:
        table = table.get(word, {}) if isinstance(table, dict) else {}
    return table if isinstance(table, dict) else {}


def shipped_folder() -> Path:
    """Where the files lie that come with metarule: searches, and simulations in a folder of their own."""
    package = Path(__file__).parent
    return package / "searches" if (package / "searches").is_dir() else package.parent / "searches"


def shipped() -> dict[str, Path]:
    """The search files that come with metarule, by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.toml"))}


def simulations() -> dict[str, Path]:
    """The simulation files that come with metarule, by name."""
    return {path.stem: path for path in sorted((shipped_folder() / "simulations").glob("*.toml"))}


def find(name: str) -> Path:
    """A search file by path, or one that comes with metarule by name."""
    return _found("search", name, shipped())


def find_simulation(name: str) -> Path:
    """A simulation file by path, or one that comes with metarule by name."""
    return _found("simulation", name, simulations())


def _found(kind: str, name: str, files: dict[str, Path]) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    if name in files:
        return files[name]
    raise SpecError(f"{unknown(kind, name, files)} (or give the path of a TOML file)")
