"""What the commands of the analyses of identification share: a folder, workers, and the figures that they write."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from metarule.identification import bank as banks
from metarule.records import jsonable


def parser(about: str | None, workers: bool = True, bank: bool = False) -> argparse.ArgumentParser:
    """The options of an analysis that its docstring is about; from here on it computes on one thread."""
    torch.set_num_threads(1)
    found = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    found.add_argument("folder", type=Path, help="where figures.json goes")
    if workers:
        found.add_argument("--workers", type=int, default=1)
    if bank:
        found.add_argument("--bank", type=Path, default=banks.DEFAULT)
    return found


def written(folder: Path, figures: dict[str, Any]) -> None:
    """The figures of an analysis in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(jsonable(figures), indent=1))
