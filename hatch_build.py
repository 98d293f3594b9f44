"""The package's build: it compiles the fused engine's kernel where there is a compiler, and does without elsewhere."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelHook(BuildHookInterface):
    """Puts the library into metarule/fused/built; a wheel that holds it is for this platform, any Python 3."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = _library(Path(self.root))
        for old in library.BUILT.glob("*"):
            old.unlink()
        try:
            made = library.built(library.BUILT)
        except library.Missing as missing:
            self.app.display_warning(f"metarule is built without its fused engine: {missing}")
            return
        build_data["artifacts"].append(str(made.relative_to(self.root)))
        if version != "editable":
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def _library(root: Path) -> ModuleType:
    """metarule/fused/library.py by its path: the package itself needs torch, and a build does not have it."""
    specification = importlib.util.spec_from_file_location("library", root / "metarule" / "fused" / "library.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
