"""The first job, launching a search: create or resume a run folder, loop, test what was found, write it down."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from metarule.cluster import Cluster
from metarule.evaluation import Battery, Conditions, Contender, compare, tuned
from metarule.inner import Map, Runs
from metarule.ledger import Ledger
from metarule.loop import Generation, begun, engine_for, generations, run
from metarule.params import starts
from metarule.plugins import SpecError
from metarule.reading import overridden
from metarule.results import described, result
from metarule.rng import seed_number
from metarule.runs import SCHEMA, RunError, RunFolder
from metarule.spec import Search, from_table
from metarule.trial import WITH_BACKPROP, baselines, check_memory, memory, rehearse, with_backprop
from metarule.workers import pool

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


def start(
    folder: RunFolder,
    search: Search,
    text: str,
    workers: int = 1,
    listener: Listener | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Run a search in a new folder to its result, on `workers` processes here or on a cluster.

    Raises SpecError, before there is a folder, where anything that it will compute cannot work, RunError where the
    folder is taken, Stopped when stopped.
    """
    listener = listener or Listener()
    rehearse(search, 1 if cluster else workers)
    with _crew(search, workers, cluster, listener) as map:
        folder.create(text, _spec(search, text))
        listener.message(f"run folder: {folder.path}")
        with folder.locked():
            _work(folder, search, map, listener)


def resume(
    folder: RunFolder,
    overrides: tuple[str, ...] = (),
    workers: int = 1,
    listener: Listener | None = None,
    cluster: Cluster | None = None,
) -> Search:
    """Go on with a run where it stands, or extend a finished one by a larger outer.generations.

    Raises RunError where the folder's search file was changed or its state is damaged, SpecError where an override
    changes anything but outer.generations, or lowers it.
    """
    spec = recorded(folder)
    search = resumed(folder, spec, overrides)
    listener = listener or Listener()
    check_memory(search, 1 if cluster else workers)
    with folder.locked(), _crew(search, workers, cluster, listener) as map:
        if overrides:
            folder.write_json("spec.json", {**spec, "search": search.table()})
        _work(folder, search, map, listener)
    return search


def carry_on(
    folder: RunFolder,
    search: Search,
    text: str,
    workers: int = 1,
    listener: Listener | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Start a search, or go on with it where its folder holds it already: what a job does, however often it is begun.

    Raises RunError where the folder holds another search.
    """
    if not (folder.path / "spec.json").exists():
        start(folder, search, text, workers, listener, cluster)
        return
    other = list(_changed(recorded(folder)["search"], json.loads(json.dumps(search.table()))))
    if other:
        raise RunError(f"{folder.path} holds another search ({', '.join(other)} differ); choose another --name")
    resume(folder, (), workers, listener, cluster)


def _crew(
    search: Search, workers: int, cluster: Cluster | None, listener: Listener
) -> contextlib.AbstractContextManager[Map]:
    if cluster:
        return cluster.map(search.plugins, listener.message)
    return pool(workers, search.plugins, listener.message)


def recorded(folder: RunFolder) -> dict[str, Any]:
    """The folder's spec.json; raises RunError where it is missing, damaged or of another version."""
    spec = folder.read_json("spec.json")
    _check_recorded(folder, spec)
    return spec


def _check_recorded(folder: RunFolder, spec: dict[str, Any]) -> None:
    path = folder.path / "spec.json"
    if spec.get("schema", SCHEMA) != SCHEMA:
        raise RunError(f"{path} has schema {spec['schema']}, and this version of metarule reads {SCHEMA}")
    missing = [key for key in ("schema", "search", "search_sha256", "parameters", "objectives") if key not in spec]
    if missing:
        raise RunError(f"{path} is damaged: it lacks {', '.join(missing)}")
    outer = spec["search"].get("outer") if isinstance(spec["search"], dict) else None
    if not isinstance(outer, dict) or not isinstance(outer.get("generations"), int):
        raise RunError(f"{path} is damaged: it lacks search.{GROWING}")


def resumed(folder: RunFolder, spec: dict[str, Any], overrides: tuple[str, ...] = ()) -> Search:
    """The search of a run folder, its budget perhaps grown."""
    _check_recorded(folder, spec)
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
    if not isinstance(after["outer"]["generations"], int):
        raise SpecError(f"{GROWING} = {after['outer']['generations']!r} must be a whole number")
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

    search, theta = search.found(theta)
    score_at = search.score_at(range(search.steps))
    conditions = Conditions(engine_for(search, map), search.steps, search.inner.batch, score_at)
    budget = search.budget.generations * search.budget.candidates * search.inner.episodes
    contenders = [Contender("discovered", search.learner, theta[None])]
    others = baselines(search)
    for name, why in others.left_out.items():
        progress(f"{name} is left out of the battery: {why}")
    for name, learner in others.learners.items():
        if name == WITH_BACKPROP:
            contenders.append(_searched(with_backprop(search), map, progress))
            continue
        contenders.append(tuned(name, learner, search.task, conditions, budget, search.search.seed, progress))
    seed = seed_number(search.search.seed, "held out")
    return compare(contenders, search.task, conditions, search.battery.episodes, [seed], progress)


def _searched(other: Search, map: Map, progress: Callable[[str], None]) -> Contender:
    """Backprop with the same auxiliary terms, its coefficients found by the same outer loop with the same budget."""
    outer = begun(other)
    for generation in generations(other, outer, 0, engine_for(other, map)):
        if generation.number % 5 == 0:
            progress(f"searching for {WITH_BACKPROP}: generation {generation.number} of {other.budget.generations}")
    return Contender(WITH_BACKPROP, other.learner, outer.best[None])


def _work(folder: RunFolder, search: Search, map: Map, listener: Listener) -> None:
    result_path = folder.path / "result.json"
    ledger = Ledger(folder.path / "blocks")
    handed = run(
        search,
        folder,
        ledger,
        map,
        lambda generation: listener.generation(search, generation),
        listener.message,
        listener.stopping,
    )
    if handed is None:
        raise Stopped
    log = folder.log()
    if result_path.exists() and folder.read_json("result.json")["generations"] == len(log):
        listener.message(f"{folder.path} was already finished; nothing to do")
        return
    found = None
    if search.battery.episodes:
        ledger.open("battery")
        found = battery(search, handed.theta, ledger.over(map), listener.message, listener.stopping)
        folder.write_json("episodes.json", {name: dict(scores) for name, scores in found.episodes.items()})
    front = list(zip(handed.front, handed.losses.tolist(), strict=True))
    table = found.table() if found else None
    folder.write_json("result.json", result(search, handed.theta, log, table, folder.name, front))
    ledger.close()


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


def plan(search: Search, workers: int, searches: int = 1) -> dict[str, Any]:
    """What a search would cost: runs, inner steps, memory, and a time from one block's first few steps.

    `searches` go on side by side, each with `workers`. Raises SpecError, without computing, where memory would not do,
    and where anything that the search will compute cannot work.
    """
    rehearse(search, workers, searches)
    inner = search.inner
    runs = search.budget.candidates * inner.episodes
    together = min(inner.block_runs, runs)
    needed = memory(search, workers)
    trained = runs * search.budget.generations
    others = baselines(search).learners
    tuned_runs = trained * sum(bool(learner.params) for learner in others.values())
    tested = (1 + len(others)) * search.battery.episodes
    slow, fast = _seconds_per_step(search)
    side_by_side = min(workers, -(-runs // together))
    seconds = (trained * slow + (tuned_runs + tested) * fast) * search.steps / side_by_side
    return {
        "parameters": [param.name for param in search.family.params],
        "structures": len(search.family.build),
        "weights_per_run": needed.weights,
        "runs_per_generation": runs,
        "blocks_per_generation": -(-runs // together),
        "inner_steps": trained * search.steps,
        "inner_steps_tuning": tuned_runs * search.steps,
        "inner_steps_battery": tested * search.steps,
        "inner_steps_total": (trained + tuned_runs + tested) * search.steps,
        "workers": workers,
        "memory_mib": round(needed.bytes * searches / 2**20, 1),
        "seconds_search": round(trained * slow * search.steps / side_by_side, 1),
        "seconds": round(seconds, 1),
    }


def _seconds_per_step(search: Search) -> tuple[float, float]:
    """Seconds of a step of one run where the search's outer loop hears of it, and where only a score is wanted.

    The mean over structures, where there are several.
    """
    inner = search.inner
    together = min(inner.block_runs, search.budget.candidates * inner.episodes)
    engine = engine_for(search)
    learners = list(search.family.build.values())
    runs = Runs((0,), tuple(range(together)), search.search.seed)
    steps = range(min(search.steps, 10))

    def measured(wants: frozenset[str]) -> float:
        seconds = math.inf
        for _ in range(2):  # the first time includes what is made once
            began = time.perf_counter()
            for learner in learners:
                rows = starts(learner.params)[None]
                engine.evaluate(learner, rows, search.task, runs, steps, inner.batch, wants, search.metrics)
            seconds = min(seconds, time.perf_counter() - began)
        return seconds / together / len(steps) / len(learners)

    plain = frozenset({"loss"})
    fast = measured(plain)
    return (measured(search.outer.wants) if search.outer.wants != plain else fast), fast
