"""Reading searches: TOML files, overrides on the command line, and the files that come with metarule."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from metarule.collect import unknown
from metarule.plugins import SpecError
from metarule.spec import Search, from_table


def read(path: Path, overrides: tuple[str, ...] = ()) -> tuple[Search, str]:
    """A search from a TOML file and overrides 'outer.generations=50'; returns it with the file's text."""
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from error
    return from_table(overridden(table, overrides), path.parent), text


def overridden(table: dict[str, Any], overrides: tuple[str, ...]) -> dict[str, Any]:
    """The table with dotted overrides applied; values are read as TOML, bare words as strings."""
    table = json.loads(json.dumps(table))
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
    return table


def shipped() -> dict[str, Path]:
    """The search files that come with metarule, by name."""
    package = Path(__file__).parent
    folder = package / "searches" if (package / "searches").is_dir() else package.parent / "searches"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name: str) -> Path:
    """A search file by path, or one that comes with metarule by name."""
    path = Path(name)
    if path.is_file():
        return path
    files = shipped()
    if name in files:
        return files[name]
    raise SpecError(f"{unknown('search', name, files)} (or give the path of a TOML file)")
