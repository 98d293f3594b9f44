"""A folder of plug-ins becomes a plain dict from kind to class: the folder is the registry."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound=type[Any])


def collect(package: str, base: Kind) -> dict[str, Kind]:
    """Import every module of `package` and return its concrete subclasses of `base`, by their `kind`."""
    folder = importlib.import_module(package)
    found: dict[str, Kind] = {}
    for entry in sorted(pkgutil.iter_modules(folder.__path__), key=lambda module: module.name):
        join(found, members(importlib.import_module(f"{package}.{entry.name}"), base))
    return dict(sorted(found.items()))


def members(module: ModuleType, base: Kind) -> list[Kind]:
    """The concrete subclasses of `base` that `module` itself defines."""
    return [member for member in vars(module).values() if _is_member(member, module, base)]


def _is_member(member: Any, module: ModuleType, base: type[Any]) -> bool:
    return (
        inspect.isclass(member)
        and issubclass(member, base)
        and not inspect.isabstract(member)
        and member.__module__ == module.__name__
        and "kind" in vars(member)
    )


def join(registry: dict[str, Kind], classes: Iterable[Kind]) -> None:
    """Add classes to a registry; raises ValueError where a kind is already taken by another class."""
    for member in classes:
        kind = member.kind
        known = registry.get(kind)
        if known is not None and known.__module__ != member.__module__:
            raise ValueError(
                f"kind = '{kind}' of {member.__module__} is already taken by {known.__module__}; choose another"
            )
        registry[kind] = member


def load_file(path: str | Path) -> ModuleType:
    """Import a user's plug-in file as a module; loading the same file twice gives the same module.

    Raises ValueError where it does not exist or cannot be imported.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ValueError(f"plug-in file {path} does not exist")
    name = f"metarule_plugin_{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"plug-in file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        del sys.modules[name]
        line = _line_of(error, path)
        place = "" if line is None else f" at line {line}"
        raise ValueError(
            f"plug-in file {path} cannot be imported: {type(error).__name__}{place}: {error}; mend the file"
        ) from error
    return module


def _line_of(error: BaseException, path: Path) -> int | None:
    """The line of the user's own file that an import failed at; None where none of its lines was reached."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None


def unknown(owner: str, given: str, allowed: Iterable[str]) -> str:
    """The sentence for a wrong name: what was given, what is allowed, the nearest valid one."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{owner} = '{given}' is not one of {', '.join(names)}{hint}"


def check_chosen(owner: str, chosen: Collection[str], allowed: Collection[str], noun: str) -> None:
    """Raises ValueError where `chosen` is empty, has a name that is not among `allowed`, or has one twice."""
    if not chosen:
        raise ValueError(f"{owner} is empty; name at least one {noun}")
    for name in chosen:
        if name not in allowed:
            raise ValueError(unknown(owner, name, allowed))
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{owner} = {list(chosen)} names a {noun} twice")
