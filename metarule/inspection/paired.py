"""The rules of several runs on the same fresh held-out episodes: what a comparison has to compute."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from metarule.comparing import comparison
from metarule.evaluation import Progress
from metarule.inner import Map, in_turn
from metarule.inspection import pairs
from metarule.inspection.alike import alike
from metarule.inspection.compared_runs import Side, differing, flat
from metarule.jobs import recorded, resumed
from metarule.runs import RunFolder
from metarule.spec import Search


def plugins(runs: Sequence[Side], search: Search) -> tuple[str, ...]:
    """The files of the user's own parts that a worker needs for all rules and the task."""
    own = [resumed(folder, recorded(folder)).plugins for folder in (RunFolder(run.path) for run in runs)]
    return tuple(dict.fromkeys(path for paths in (search.plugins, *own) for path in paths))


def fresh(
    runs: Sequence[Side],
    search: Search,
    where: str,
    episodes: int,
    seeds: int,
    map: Map = in_turn,
    progress: Progress = lambda text: None,
) -> tuple[dict[str, Any], dict[str, dict[str, list[float]]]]:
    """What `episodes` fresh episodes of a search's task, for each of `seeds`, add to a comparison, and their scores.

    {fresh, tests, classes, paired_by, pairing}: the battery's rows, the tests of all pairs, and who acts the same. All
    rules learn in the network and for the steps of `search`, called `where`. Raises ValueError where one does
    not fit, as of a [model] none does.
    """
    # ./oja is a folder, oja might be a row of the zoo
    folders = [os.path.join(os.curdir, run.path) for run in runs]  # noqa: PTH118
    battery = comparison(folders, search, episodes, seeds, map=map, progress=progress)
    names = dict(zip(folders, (run.name for run in runs), strict=True))
    rows = [
        asdict(row) | {"learner": names[row.learner], "diverged": _diverged(battery.episodes[row.learner][row.metric])}
        for row in battery.rows
    ]
    order = dict.fromkeys(row.metric for row in battery.rows)
    scores = [{metric: battery.episodes[folder][metric] for metric in order} for folder in folders]
    section = {
        "fresh": rows,
        "tests": pairs.paired_tests(list(names.values()), [rows[0]["task"]] * len(runs), scores, seeds),
        "classes": alike(folders, list(names.values()), search),
        "paired_by": "fresh episodes",
        "pairing": (
            f"All rules learned the same {episodes * seeds} fresh episodes, in the network and for the steps of "
            f"{where}. "
            f"They used {battery.tested_on}. {_at_home(runs, search)}."
        ),
    }
    return section, {
        run.name: {metric: list(values) for metric, values in each.items()}
        for run, each in zip(runs, scores, strict=True)
    }


def _diverged(scores: Sequence[float]) -> int:
    return sum(not math.isfinite(score) for score in scores)


def _at_home(runs: Sequence[Side], search: Search) -> str:
    """Whose search was over this very task, in words: another's rule has to generalise."""
    table = dict(flat(json.loads(json.dumps(search.table()["task"])), "task."))
    home = [run.name for run in runs if not differing([table, run.task_settings])]
    who = "all of them" if len(home) == len(runs) else ", ".join(home)
    return f"It is the task that {who} searched on" if home else "No search was over this task"
