"""The same jobs from Python: objects in, objects out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metarule.credit import CreditAssignment
from metarule.inspecting import finished
from metarule.inspection.numbers import Document, found
from metarule.jobs import Listener, resume, resumed, start
from metarule.learner import Learner
from metarule.portable import Portable, carrying, taken
from metarule.reading import find, read
from metarule.records import unused
from metarule.rules import Rule
from metarule.runs import RunFolder
from metarule.spec import Search


@dataclass(frozen=True)
class Run:
    """A search's folder and what it found; raises RunError where the folder is not a run's or is damaged."""

    path: Path

    @functools.cached_property
    def found(self) -> Document:
        """Everything `metarule inspect --json` prints."""
        return found(self.path)

    @property
    def equation(self) -> str | None:
        """The rule found, with raw coefficients; None while the search is under way or where it has no closed form."""
        return self.found["equation"]

    @property
    def terms(self) -> list[dict[str, Any]]:
        """{name, raw, normalised, low, high} per coefficient."""
        return self.found["terms"]

    @property
    def battery(self) -> list[dict[str, Any]]:
        """{learner, task, metric, mean, low, high, episodes, seeds} per learner and metric; [] before the battery."""
        return self.found["battery"]

    @property
    def log(self) -> list[dict[str, Any]]:
        """One entry per generation."""
        return RunFolder(self.path).log()

    @property
    def theta(self) -> dict[str, float]:
        """The learner's parameters as found, by name, in the order of its columns; {} before the first generation."""
        search, row = self._plain
        names = [param.name for param in search.learner.params]
        return dict(zip(names, row.tolist(), strict=True)) if self.log else {}

    @functools.cached_property
    def search(self) -> Search:
        """The search as it was run."""
        folder = RunFolder(self.path)
        return resumed(folder, folder.read_json("spec.json"))

    @functools.cached_property
    def learner(self) -> Learner:
        """The learner that was searched over, of several structures the one found; `theta` holds its numbers."""
        return self._plain[0].learner

    @functools.cached_property
    def _plain(self) -> tuple[Search, torch.Tensor]:
        """The search of the structure found, and the row found as its learner reads it."""
        params, log = self.search.family.params, self.log
        row = [log[-1]["theta"][param.name] for param in params] if log else [param.start for param in params]
        return self.search.found(torch.tensor(row, dtype=torch.float64))

    @functools.cached_property
    def portable(self) -> Portable:
        """What it found, apart from the network it was found on: parts and numbers."""
        return taken(self._plain[0], self.theta, self.path)

    @property
    def credit(self) -> CreditAssignment:
        """Its credit assignment, which knows the numbers found for it: `LocalOptimizer` takes them along."""
        search = self._plain[0]
        return search.credit if search.model else carrying(search.credit, self.portable)

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Its rules by projection or role, with the numbers found for them."""
        search = self._plain[0]
        return {} if search.model else {key: carrying(rule, self.portable) for key, rule in search.rules.items()}

    @property
    def rule(self) -> Rule:
        """Its rule; raises ValueError where it has several, or none."""
        if not self.rules:
            raise ValueError(f"{self.path} trained a [model] by descent and has no rule: .learner and .theta say how")
        if len(self.rules) > 1:
            raise ValueError(f"{self.path} has several rules: .rules has {', '.join(self.rules)}")
        return next(iter(self.rules.values()))


def search(
    what: str | Path | Search,
    *overrides: str,
    runs_dir: str | Path = "runs",
    name: str | None = None,
    workers: int = 1,
    listener: Listener | None = None,
) -> Run:
    """Run a search to its end: the name of one that comes with metarule, a file, or a Search.

    `overrides` read "outer.generations=50" and go with a name or a file. The folder is runs_dir/name, where no name
    is given the first free one after the file's. Raises SpecError on mistakes in the search, RunError where the folder
    is taken or cannot be written. A script that asks for several `workers` needs `if __name__ == "__main__":`.

    Examples:
        >>> run = search("first_rule", "outer.generations=40")  # doctest: +SKIP
        >>> run.equation  # doctest: +SKIP
    """
    if isinstance(what, Search):
        if overrides:
            raise ValueError(f"overrides {list(overrides)} go with a name or a file; change the Search instead")
        made, text, stem = what, "# made in Python; spec.json says what it is\n", "search"
    else:
        file = find(str(what))
        made, text = read(file, overrides)
        stem = file.stem
    path = Path(runs_dir) / name if name else unused(Path(runs_dir), stem)
    with _one_thread():
        start(RunFolder(path), made, text, workers, listener)
    finished(path, workers)
    return Run(path)


def load(path: str | Path) -> Run:
    """A run by its folder; raises RunError where it is not one."""
    run = Run(Path(path))
    found(run.path)  # refuses what is not a run
    return run


def go_on(path: str | Path, *overrides: str, workers: int = 1, listener: Listener | None = None) -> Run:
    """Go on with a run where it stands, or extend it: go_on("runs/first_rule", "outer.generations=60")."""
    with _one_thread():
        resume(RunFolder(Path(path)), overrides, workers, listener)
    finished(Path(path), workers)
    return Run(Path(path))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Small networks run fastest, and to the same bits everywhere, on one thread; the caller's setting comes back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
