"""Where a rule comes from: the command that finds it again, the search in full, its seeds, the versions of the day."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any

from metarule.inspection.siblings import seeds

Document = dict[str, Any]


def provenance(path: Path, spec: Document) -> Document:
    """{command, versions, git_revision, seeds, search, search_sha256} of a run, from what its folder says."""
    return {
        "command": command(path, spec),
        "versions": spec.get("versions", {}),
        "git_revision": spec.get("git_revision"),
        "seeds": seeds(path),
        "search": spec["search"],
        "search_sha256": spec.get("search_sha256"),
    }


def command(path: Path, spec: Document) -> str:
    """The command that runs this search again, from the search file in its folder and what was changed beside it."""
    given = spec.get("command", [])
    asked = given[given.index("search") + 1 :] if "search" in given else []
    changed = [word for word in asked if "=" in word and not word.startswith("-")]
    try:
        file = tomllib.loads((path / "search.toml").read_text())
    except (OSError, ValueError):
        file = {}
    search = spec["search"]
    said = next((word for word in reversed(changed) if word.startswith("outer.generations=")), None)
    first = int(said.partition("=")[2]) if said else file.get("outer", {}).get("generations")
    if search["outer"]["generations"] != first:  # it was extended
        changed = [word for word in changed if word != said] + [f"outer.generations={search['outer']['generations']}"]
    if file.get("plugins") and not any(word.startswith("plugins=") for word in changed):
        changed.append(f"plugins={search['plugins']}")  # relative paths of the file start elsewhere
    return shlex.join(
        ["metarule", "search", str(path / "search.toml"), *changed, "--name", f"{path.resolve().name}-again"]
    )
