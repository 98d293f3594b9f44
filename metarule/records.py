"""A run folder as others read it: its JSON files and its log. Needs no torch, so that inspecting is quick."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


class RunError(ValueError):
    """A run folder that cannot be used as asked: the user's to mend, exit code 2."""


class WorkersDied(RuntimeError):  # noqa: N818 - what happened, not a kind of error
    """A block of runs killed its worker again and again, most likely for want of memory; exit code 2."""


class ClusterLost(RuntimeError):  # noqa: N818 - what happened, not a kind of error
    """The cluster that computed is gone; everything finished is saved, and the run can be resumed; exit code 75."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run folder; raises RunError where it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path} does not exist; is {path.parent} a run folder?") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it holds no JSON object")
    return found


def read_log(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a .jsonl file; raises RunError where it is missing or damaged."""
    try:
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path} does not exist; the run in {path.parent} is damaged") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def run_folder(name: str) -> Path | None:
    """The folder of a run, by its path or by its name in runs/; None where there is no such run."""
    return next((path for path in (Path(name), Path("runs") / name) if (path / "spec.json").is_file()), None)


def jsonable(value: Any) -> Any:
    """The value with every number that JSON cannot write (nan, infinities) as None, and tuples as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: jsonable(part) for key, part in value.items()}
    return [jsonable(part) for part in value] if isinstance(value, (list, tuple)) else value


def unused(runs_dir: Path, name: str) -> Path:
    """runs_dir/name or, where that is taken, the first free one of name-2, name-3, ..."""
    path, number = runs_dir / name, 2
    while path.exists():
        path, number = runs_dir / f"{name}-{number}", number + 1
    return path
