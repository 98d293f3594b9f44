"""Replicate searches side by side, each in a process of its own; only their random numbers differ."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

STOPPED = 75
"""Exit code of a search that was stopped and can be resumed."""


def side_by_side(
    commands: Sequence[list[str]],
    together: int,
    hear: Callable[[int, str], None],
    stopping: Callable[[], bool],
) -> list[int]:
    """Run `metarule` with each list of arguments, at most `together` at a time; returns their exit codes.

    Lines of a child's stderr go to `hear(place, line)`. Once `stopping()`, children are asked to stop, those not yet
    begun count as stopped. They have sessions of their own, so that a Ctrl-C reaches them once.
    """
    codes: dict[int, int] = {}
    running: dict[int, subprocess.Popen[str]] = {}
    heard: queue.Queue[tuple[int, str]] = queue.Queue()
    waiting = list(range(len(commands)))
    told = False
    try:
        while waiting or running:
            while waiting and len(running) < together and not stopping():
                place = waiting.pop(0)
                running[place] = _begun(commands[place], place, heard)
            if stopping() and not told:
                told = True
                codes |= dict.fromkeys(waiting, STOPPED)
                waiting.clear()
                _tell(running)
            for place in [place for place, child in running.items() if child.poll() is not None]:
                codes[place] = running.pop(place).returncode
            _pass_on(heard, hear)
    finally:
        _tell(running)
        for place, child in running.items():
            codes[place] = child.wait()
        _pass_on(heard, hear)
    return [codes[place] for place in range(len(commands))]


def _begun(arguments: list[str], place: int, heard: queue.Queue[tuple[int, str]]) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-m", "metarule", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def listen() -> None:
        assert child.stderr is not None
        for line in child.stderr:
            heard.put((place, line.rstrip("\n")))

    threading.Thread(target=listen, daemon=True).start()
    return child


def _tell(running: dict[int, subprocess.Popen[str]]) -> None:
    for child in running.values():
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)


def _pass_on(heard: queue.Queue[tuple[int, str]], hear: Callable[[int, str], None]) -> None:
    try:
        hear(*heard.get(timeout=0.1))
        while True:
            hear(*heard.get_nowait())
    except queue.Empty:
        return


def folders(runs_dir: Path, name: str, seeds: Sequence[int]) -> list[Path]:
    """The run folder of every seed, name-seed0 and so on; where one is taken, those of name-2, name-3, ..."""
    number, stem = 1, name
    while any(folder(runs_dir, stem, seed).exists() for seed in seeds):
        number += 1
        stem = f"{name}-{number}"
    return [folder(runs_dir, stem, seed) for seed in seeds]


def folder(runs_dir: Path, name: str, seed: int) -> Path:
    """The run folder of one seed: a task of a job array finds its own again."""
    return runs_dir / f"{name}-seed{seed}"


def beside(path: Path) -> list[Path]:
    """The folders of all seeds of the replicates that a run folder is one of, itself included; [] where it is none."""
    path = path.resolve()
    found = re.fullmatch(r"(.+)-seed(\d+)", path.name)
    if found is None:
        return []
    others = path.parent.glob(f"{found[1]}-seed*")
    numbered = {each: re.fullmatch(rf"{re.escape(found[1])}-seed(\d+)", each.name) for each in others}
    return sorted(
        (each for each, match in numbered.items() if match), key=lambda each: int(each.name.split("-seed")[-1])
    )
