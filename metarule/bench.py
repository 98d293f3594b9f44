"""Throughput of the population engines, interleaved with how it would be written otherwise, as ratios.

The work is that of `bench_work`, for everybody: a population from its first weights to its held-out losses. `naive`,
`loop` and `vmap` are `bench_written`'s, the first two on a few runs, one core; `reference` and `fused` are metarule's
engines, the latter where it has a kernel; `jax` is the fastest variant of `bench_jax`. Losses are compared before
anything is timed.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.bench_process import Row, answered, apart, clock, interleaved, machine, ratio, threads
from metarule.bench_roofline import Peaks, peaks
from metarule.bench_work import CELLS, ON_TWO_CORES, Cell, Setting, chosen, setting
from metarule.bench_written import loop, naive, vmap
from metarule.inner import Fused, Inner, Reference

REPEATS = 5
CLOSE = 1e-4
"""How far two engines' losses may be apart, as a share of the most that learning changed any of them."""


class Answer(NamedTuple):
    """Losses of the runs that were trained, and what trained them."""

    losses: Float[Tensor, "R"]
    ran: str


Engine = Callable[[Setting], Answer]


def _engine(engine: Inner, world: Setting) -> Answer:
    outcome = world.evaluated(engine)
    return Answer(outcome.loss.reshape(-1), outcome.engine)


def _written(function: Callable[[Setting], Tensor], world: Setting) -> Answer:
    return Answer(function(world).double(), function.__name__)


WRITTEN: dict[str, Engine] = {
    function.__name__: functools.partial(_written, function) for function in (naive, loop, vmap)
}
ENGINES: dict[str, Engine] = {engine.name: functools.partial(_engine, engine) for engine in (Reference(), Fused())}
"""What is written by hand, on one core; and metarule's, on any number."""

ALONE = " on one core"
"""What the name of one of metarule's engines ends in that is measured so beside itself on several."""

BASES = ("naive", "loop", "reference")
"""Whom all others are compared with, beside the peer."""


def engines(world: Setting, written: bool = True) -> dict[str, Engine]:
    """Those that can do the work on this machine, after what is written by hand."""
    able = dict(ENGINES)
    if Fused().can(world.learner):
        del able[Fused.name]
    return {**WRITTEN, **able} if written else able


def agreement(world: Setting, answers: dict[str, Tensor]) -> float:
    """Largest difference of any loss from the reference's, as a share of the most that learning changed a loss."""
    expected = answers["reference"]
    untaught = _engine(Reference(), world._replace(theta=torch.zeros_like(world.theta))).losses
    learned = float((expected - untaught).abs().max())
    apart = torch.stack([(found - expected[: len(found)]).abs().max() for found in answers.values()])
    return float(apart.max()) / learned


def measure(
    repeats: int = REPEATS,
    cells: Sequence[Cell] = CELLS,
    peer: str | None = None,
    cores: int = 1,
    thorough: bool = True,
    written: bool = True,
) -> list[Row]:
    """Run-steps per second of every engine on every cell, medians over interleaved repeats, in this process.

    `ratio_to_...`: how many times as fast as another one, or as the same engine with one thread where there are more,
    the median of each repeat's ratio. `fraction_of_sgemm` and
    `fraction_of_l2` are the shares of a large matrix product's speed, and of the speed at which L2 is read, at which
    the least operations are done and the least bytes of weights are moved. Not `thorough`: of the peer only its plain
    orders; not `written`: only metarule's engines and the peer.
    Raises RuntimeError where two engines do not come to the same losses.
    """
    with threads(cores):
        found = (_measured(cell, repeats, peer, cores, thorough, written and cores == 1) for cell in cells)
        return [row for measured in found for row in _rows(measured, cores, peer)]


class Measured(NamedTuple):
    """A cell: seconds per run-step of every repeat, by name; what ran; how far losses are apart; limits of the core.

    `tried`: seconds of all variants of the peer.
    """

    cell: Cell
    seconds: dict[str, list[float]]
    ran: dict[str, str]
    apart: float
    limits: Peaks
    tried: dict[str, float]


def _measured(cell: Cell, repeats: int, peer: str | None, cores: int, thorough: bool, written: bool) -> Measured:
    world, seconds = setting(cell), clock(cores)
    running = {name: functools.partial(engine, world) for name, engine in engines(world, written).items()}
    answers = {name: engine() for name, engine in running.items()}  # also the warm-up
    losses = {name: answer.losses for name, answer in answers.items()}
    alone = {f"{name}{ALONE}": _one_thread(way) for name, way in running.items()} if cores > 1 else {}
    rivals: dict[str, Callable[[], Any]] = {}
    tried: dict[str, float] = {}
    if peer is not None:
        from metarule import bench_jax

        contest = bench_jax.contest(bench_jax.losses, world, bench_jax.populations(cores), seconds, thorough)
        rivals = {f"{peer} {variant.label}": ready for variant, ready in contest.finalists.items()}
        tried = {variant.label: spent for variant, spent in contest.tried.items()}
        losses |= {label: torch.tensor(ready(), dtype=torch.float64) for label, ready in rivals.items()}
    apart = agreement(world, losses)
    if not apart <= CLOSE:
        raise RuntimeError(f"bench: losses differ by {apart:.1e} of what was learned, on {cell.label}")
    limits = peaks(cores)
    found = interleaved({**running, **alone, **rivals}, repeats, seconds)
    # an engine that trains one network after another was given a few of them
    runs = {name: len(losses[name.removesuffix(ALONE)]) for name in found}
    per_step = {name: [each / (runs[name] * cell.steps) for each in times] for name, times in found.items()}
    ran = {name: answer.ran for name, answer in answers.items()}
    if peer is not None:
        ran[peer] = min(rivals, key=lambda label: statistics.median(per_step[label]))
        per_step[peer] = [min(times) for times in zip(*(per_step.pop(label) for label in rivals), strict=True)]
    return Measured(cell, per_step, ran, apart, limits, tried)


def _one_thread(way: Callable[[], Answer]) -> Callable[[], Answer]:
    def run() -> Answer:
        with threads(1):
            return way()

    return run


def _rows(measured: Measured, cores: int, peer: str | None) -> Iterator[Row]:
    cell, seconds, ran, apart, limits, tried = measured
    for name in ran:
        times = seconds[name]
        speed = 1 / statistics.median(times)
        row = {
            "cell": cell.label, "network": "-".join(map(str, cell.sizes)), "runs": cell.runs,
            "candidates": cell.candidates, "episodes": cell.episodes, "batch": cell.batch, "steps": cell.steps,
            "cores": cores, "engine": name, "ran": ran[name], "run_steps_per_second": round(speed, 1),
        }  # fmt: skip
        row |= {f"ratio_to_{base}": ratio(seconds[base], times) for base in BASES if base in seconds}
        if peer is not None:
            row |= {"ratio_to_peer": ratio(seconds[peer], times), "peer_variant": ran[peer].removeprefix(f"{peer} ")}
        if f"{name}{ALONE}" in seconds:
            row["ratio_to_one_core"] = ratio(seconds[f"{name}{ALONE}"], times)
        share = speed / (cell.runs * cell.steps)
        row |= {
            "fraction_of_sgemm": round(share * cell.operations / limits.sgemm, 3),
            "fraction_of_l2": round(share * cell.bytes / limits.l2, 3),
            "sgemm_gflops": round(limits.sgemm / 1e9, 1),
            "l2_gbytes_per_second": round(limits.l2 / 1e9, 1),
            "loss_apart": apart,
            **machine(peer),
        }
        if name == peer:
            trained = cell.runs * cell.steps
            row["variants"] = {label: round(trained / spent, 1) for label, spent in tried.items()}
        yield row


def compared(
    repeats: int = REPEATS,
    parts: Sequence[str] = (),
    peer: str | None = None,
    cores: Sequence[int] = (1, 2),
    heard: Callable[[list[Row]], object] = lambda rows: None,
) -> list[Row]:
    """`measure` of the cells whose labels begin with one of `parts`: on one core, and some of them on two.

    Each number of cores in a process of its own; `heard` is told the rows of each cell as they come.
    """
    rows: list[Row] = []
    for count in cores:
        cells = chosen(CELLS, parts) if count == 1 else [each for each in chosen(CELLS, parts) if each in ON_TWO_CORES]
        for part in apart("bench", {"cells": cells, "repeats": repeats, "peer": peer}, count):
            heard(part)
            rows += part
    return rows


COLUMNS = {
    "ratio_to_naive": "to naive",
    "ratio_to_loop": "to loop",
    "ratio_to_reference": "to reference",
    "ratio_to_peer": "to peer",
    "ratio_to_one_core": "to one core",
    "fraction_of_sgemm": "of sgemm",
    "fraction_of_l2": "of L2",
}


def shown(rows: Sequence[Row]) -> list[Row]:
    """The columns that fit on a page, of rows of one number of cores."""
    return [
        {
            "cell": row["cell"],
            "engine": row["ran"],
            "run-steps/s": round(row["run_steps_per_second"]),
            **{title: row.get(key) for key, title in COLUMNS.items() if any(key in each for each in rows)},
        }
        for row in rows
    ]


def _asked(cells: list[list[Any]], **settings: Any) -> Iterator[list[Row]]:
    for sizes, *rest in cells:
        yield measure(cells=[Cell(tuple(sizes), *rest)], **settings)


if __name__ == "__main__":
    answered(_asked)
