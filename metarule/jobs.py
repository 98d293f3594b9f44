"""The first job, launching a search: create or resume a run folder, loop, test what was found, write it down."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.evaluation import Battery, Conditions, Contender, compare, tuned
from metarule.inner import Map
from metarule.loop import Generation, begun, engine_for, generations, run
from metarule.plugins import SpecError
from metarule.reading import overridden
from metarule.results import described, result
from metarule.rng import seed_number
from metarule.runs import RunError, RunFolder
from metarule.spec import Search, from_table
from metarule.workers import pool
from metarule.zoo import algorithm

EVERY_BASELINE = ("momentum", "adam", "backprop_terms")
"""What `battery.baselines = "all"` adds to the task's own baselines."""

GROWING = "outer.generations"
"""The one key that may change, upwards, when a run is resumed."""


class Stopped(Exception):  # noqa: N818 - not an error: the run is saved and goes on later
    """The search was asked to stop; everything finished is saved."""


@dataclass(frozen=True)
class Listener:
    """Who hears of a search's progress; every part may be left out."""

    generation: Callable[[Search, Generation], None] = lambda search, generation: None
    message: Callable[[str], None] = lambda text: None
    stopping: Callable[[], bool] = lambda: False


def start(folder: RunFolder, search: Search, text: str, workers: int = 1, listener: Listener | None = None) -> None:
    """Run a search in a new folder to its result; raises RunError where the folder is taken, Stopped when stopped."""
    folder.create(text, _spec(search, text))
    with folder.locked():
        _work(folder, search, workers, listener or Listener())


def resume(
    folder: RunFolder, overrides: tuple[str, ...] = (), workers: int = 1, listener: Listener | None = None
) -> Search:
    """Go on with a run where it stands, or extend a finished one by a larger outer.generations.

    Raises RunError where the folder's search file was changed or its state is damaged, SpecError where an override
    changes anything but outer.generations, or lowers it.
    """
    spec = folder.read_json("spec.json")
    search = resumed(folder, spec, overrides)
    with folder.locked():
        if overrides:
            folder.write_json("spec.json", {**spec, "search": search.table()})
        _work(folder, search, workers, listener or Listener())
    return search


def resumed(folder: RunFolder, spec: dict[str, Any], overrides: tuple[str, ...] = ()) -> Search:
    """The search of a run folder, its budget perhaps grown."""
    text = folder.path / "search.toml"
    if not text.exists() or hashlib.sha256(text.read_bytes()).hexdigest() != spec["search_sha256"]:
        raise RunError(
            f"{text} is not the file this run was started with; restore it, or start a new run with the changed file"
        )
    before = spec["search"]
    after = overridden(before, overrides)
    for key in _changed(before, after):
        if key != GROWING:
            raise SpecError(f"{key} cannot change in a run that has begun; only {GROWING} may grow")
    if after["outer"]["generations"] < before["outer"]["generations"]:
        raise SpecError(
            f"{GROWING} = {after['outer']['generations']} is less than the run's "
            f"{before['outer']['generations']}; it may only grow"
        )
    return from_table(after, folder.path)


def battery(
    search: Search,
    theta: Float[Tensor, "P"],
    map: Map,
    message: Callable[[str], None],
    stopping: Callable[[], bool] = lambda: False,
) -> Battery:
    """The discovered rule against tuned baselines on fresh held-out episodes.

    Each baseline is tuned on as many of the search's own episodes as the search used.
    """

    def progress(text: str) -> None:
        if stopping():
            raise Stopped
        message(text)

    conditions = Conditions(engine_for(search, map), search.steps, search.inner.batch)
    budget = search.budget.generations * search.budget.candidates * search.inner.episodes
    network = search.network.build(search.task)
    contenders = [Contender("discovered", search.learner, theta[None])]
    names = search.task.baselines
    if search.battery.baselines == "all" and "backprop" in names:  # a task without targets has no gradient to descend
        names += EVERY_BASELINE
    for name in names:
        if name == "backprop_terms":
            contenders.append(_with_backprop(search, map, progress))
            continue
        learner = algorithm(name).learner(network)
        contenders.append(tuned(name, learner, search.task, conditions, budget, search.search.seed, progress))
    seed = seed_number(search.search.seed, "held out")
    return compare(contenders, search.task, conditions, search.battery.episodes, [seed], progress)


def _with_backprop(search: Search, map: Map, progress: Callable[[str], None]) -> Contender:
    """Backprop with the same auxiliary terms, its coefficients found by the same outer loop with the same budget."""
    other = replace(search, credit=algorithm("backprop").credit)
    outer = begun(other)
    for generation in generations(other, outer, 0, engine_for(other, map)):
        if generation.number % 5 == 0:
            progress(f"searching for backprop_terms: generation {generation.number} of {other.budget.generations}")
    return Contender("backprop_terms", other.learner, outer.best[None])


def _work(folder: RunFolder, search: Search, workers: int, listener: Listener) -> None:
    result_path = folder.path / "result.json"
    with pool(workers, search.plugins) as map:
        theta = run(
            search,
            folder,
            map,
            lambda generation: listener.generation(search, generation),
            listener.message,
            listener.stopping,
        )
        if theta is None:
            raise Stopped
        log = folder.log()
        if result_path.exists() and folder.read_json("result.json")["generations"] == len(log):
            listener.message(f"{folder.path} was already finished; nothing to do")
            return
        found = None
        if search.battery.episodes:
            found = battery(search, theta, map, listener.message, listener.stopping)
            folder.write_json("episodes.json", {name: dict(scores) for name, scores in found.episodes.items()})
    folder.write_json("result.json", result(search, theta, log, found.table() if found else None, folder.name))


def _spec(search: Search, text: str) -> dict[str, Any]:
    return {
        "search": search.table(),
        "search_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "parameters": described(search),
        "objectives": list(search.objectives),
        "versions": versions(),
        "git_revision": _revision(),
        "command": sys.argv,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    names = ("metarule", "torch", "higher", "optuna", "numpy", "scikit-learn", "scipy", "cmaes", "safetensors")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _changed(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changed(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}"


@contextlib.contextmanager
def stop_signals(say: Callable[[str], None] = lambda text: None) -> Iterator[Callable[[], bool]]:
    """Ctrl-C, TERM and USR1 ask for a stop after the generation in flight; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        say("stopping after the work in flight; once more stops at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def plan(search: Search, workers: int) -> dict[str, Any]:
    """What a search would cost: runs, inner steps, memory and a time measured on one block for a few steps."""
    learner = search.learner
    runs = search.budget.candidates * search.inner.episodes
    together = min(search.inner.block_runs, runs)
    numbers = sum(
        (learner.network.sizes[p.source] + p.bias) * learner.network.sizes[p.target] for p in learner.projections
    )
    width = torch.finfo(getattr(torch, search.inner.precision)).bits // 8
    copies = 2 + (search.steps / search.inner.segments if "grad" in search.outer.wants else 0)
    trial = min(search.steps, 10)
    short = replace(search, inner=replace(search.inner, steps=trial), budget=replace(search.budget, generations=2))
    outer = begun(short)
    seconds = [generation.seconds for generation in generations(short, outer, 0, engine_for(short))]
    per_generation = seconds[-1] * search.steps / trial / min(workers, max(runs // together, 1))
    return {
        "parameters": [param.name for param in learner.params],
        "weights_per_run": numbers,
        "runs_per_generation": runs,
        "blocks_per_generation": -(-runs // together),
        "inner_steps": runs * search.steps * search.budget.generations,
        "workers": workers,
        "memory_mib": round(numbers * width * copies * together * workers / 2**20, 1),
        "seconds": round(per_generation * search.budget.generations, 1),
    }
