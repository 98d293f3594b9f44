"""A search's progress on stderr: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

SHOWN = 6
"""Coefficients shown at most, the largest first."""


class Progress:
    """Hears of generations and messages (`jobs.Listener`'s two parts) between `with` and its end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self.seconds: list[float] = []
        self.lines = [Text("")]

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def message(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True)

    def generation(self, search: Any, generation: Any) -> None:
        """One finished generation."""
        self.seconds = [*self.seconds[-19:], generation.seconds]
        line = generation.line([param.name for param in search.family.params])
        budget = search.budget.generations
        left = (budget - generation.number - 1) * sum(self.seconds) / len(self.seconds)
        loss = "failed" if line["loss_mean"] is None else f"{line['loss_mean']:.4f}"
        scores = "".join(
            f"  {name} {value:.3f}" for name, value in line["scores"].items() if name != search.objectives[0]
        )
        speed = generation.run_steps / max(generation.seconds, 1e-9)
        head = (
            f"generation {generation.number + 1}/{budget}  loss {loss}{scores}  "
            f"{speed:,.0f} run-steps/s  {clock(left)} left"
        )
        rule = f"best rule: {shortened(counting(search.family, generation.best))}"
        if self.live is None:
            self.message(f"{head}  {rule}")
            return
        self.lines = [Text(head), bar(generation.number + 1, budget), Text(rule)]
        self.live.update(self._display(), refresh=True)

    def _display(self) -> RenderableType:
        return Text("\n").join(self.lines)


def bar(done: int, budget: int, width: int = 40) -> Text:
    """How far a search is."""
    filled = width * done // budget
    return Text("━" * filled, style="green") + Text("━" * (width - filled), style="bright_black")


def counting(family: Any, row: Any) -> dict[str, float | str]:
    """The structure of a row and its numbers that count; its choices alone where it has no numbers."""
    named = family.named(row)
    chosen = {name: value for name, value in named.items() if isinstance(value, str)}
    structure = [param.name for param in family.choices]
    params = family.learner(row)[0].params
    numbers = [param.name for param in params if param.counts(chosen) and not param.choices]
    return {name: named[name] for name in (*structure, *numbers)} or named


def shortened(theta: Mapping[str, float | str]) -> str:
    """The largest values of theta by the last part of their names, the last two where one part names several.

    What is no number comes first.
    """
    order = sorted(theta, key=lambda name: -abs(value) if not isinstance(value := theta[name], str) else -math.inf)
    order = order[:SHOWN]
    last = {name: name.rsplit(".", 1)[-1] for name in theta}
    several = {name for name in theta if list(last.values()).count(last[name]) > 1}
    parts = [
        f"{'.'.join(name.split('.')[-2:]) if name in several else last[name]} {_shown(theta[name])}"
        for name in theta
        if name in order
    ]
    return ", ".join(parts) + (", ..." if len(theta) > SHOWN else "")


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:+.3g}"


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = math.ceil(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
