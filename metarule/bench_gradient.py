"""Time and memory of a meta-gradient by every way of `bench_slopes`, interleaved, with JAX's best beside them.

The gradients are compared before anything is timed; memory is measured afterwards, in a process for each.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarule.bench_memory import taken
from metarule.bench_process import Row, answered, apart, clock, interleaved, machine, ratio, threads
from metarule.bench_slopes import DIFFERENCES, REVERSE, ways
from metarule.bench_work import GRADIENT_CELLS, Cell, chosen, setting

REPEATS = 3
CLOSE = 1e-3
"""How far two exact gradients may be apart, relative to the norm of autograd's."""


def measure(
    repeats: int = REPEATS, cells: Sequence[Cell] = GRADIENT_CELLS, peer: str | None = None, thorough: bool = True
) -> list[Row]:
    """Seconds of every way on every cell, medians over interleaved repeats, one thread, in this process.

    `ratio_to_...`: how many times as fast as another one, the median of each repeat's ratio. `apart` is the difference
    from autograd's gradient relative to its norm, `worst` that of the worst coordinate relative to itself.
    Raises RuntimeError where two exact gradients differ.
    """
    with threads(1):
        return [row for cell in cells for row in _measured(cell, repeats, peer, thorough)]


def _measured(cell: Cell, repeats: int, peer: str | None, thorough: bool) -> list[Row]:
    world, seconds = setting(cell), clock(1)
    running = ways(world)
    slopes = {name: way() for name, way in running.items()}  # also the warm-up
    gradients = {name: slope.gradient.double() for name, slope in slopes.items()}
    rivals: dict[str, Callable[[], Any]] = {}
    tried: dict[Any, float] = {}
    if peer is not None:
        from metarule import bench_jax

        finalists, tried = bench_jax.contest(bench_jax.gradient, world, bench_jax.GRADIENTS, seconds, thorough)
        rivals = {f"{peer} {variant.label}": ready for variant, ready in finalists.items()}
        gradients |= {label: torch.tensor(ready(), dtype=torch.float64) for label, ready in rivals.items()}
    for name, gradient in gradients.items():
        apart = distance(gradient, gradients[REVERSE])
        if name != DIFFERENCES and not apart <= CLOSE:
            raise RuntimeError(f"bench: the gradient of '{name}' differs by {apart:.1e} on {cell.label}")
    found = interleaved({**running, **rivals}, repeats, seconds)
    best = min(rivals, key=lambda label: statistics.median(found[label]), default="")
    if peer is not None:
        found[peer] = [min(times) for times in zip(*(found.pop(label) for label in rivals), strict=True)]
        gradients[peer] = gradients[best]
    rows = []
    for name, times in found.items():
        row = {
            "cell": cell.label, "network": "-".join(map(str, cell.sizes)), "runs": cell.runs, "batch": cell.batch,
            "steps": cell.steps, "cores": 1, "way": name,
            "ran": slopes[name].ran if name in slopes else best,
            "run_steps_per_second": round(cell.runs * cell.steps / statistics.median(times), 1),
            "seconds": statistics.median(times),
            f"ratio_to_{REVERSE}": ratio(found[REVERSE], times),
        }  # fmt: skip
        if peer is not None:
            row |= {"ratio_to_peer": ratio(found[peer], times), "peer_variant": best.removeprefix(f"{peer} ")}
        row |= {
            "apart": distance(gradients[name], gradients[REVERSE]),
            "worst": float((gradients[name] / gradients[REVERSE] - 1).abs().max()),
            "gradient": gradients[name].tolist(),
            **machine(peer),
        }
        if name == peer:
            row["variant"] = next(list(each) for each in tried if f"{peer} {each.label}" == best)
            row["variants"] = {each.label: round(cell.runs * cell.steps / spent, 1) for each, spent in tried.items()}
        rows.append(row)
    return rows


def distance(one: Float[Tensor, "P"], other: Float[Tensor, "P"]) -> float:
    """|one - other| / |other|."""
    return float((one - other).norm() / other.norm())


def compared(
    repeats: int = REPEATS,
    parts: Sequence[str] = (),
    peer: str | None = None,
    heard: Callable[[list[Row]], object] = lambda rows: None,
) -> list[Row]:
    """`measure` of the cells whose labels begin with one of `parts`, on one core, and the memory of every way.

    `heard` is told the rows of each cell as they come, without their memory.
    """
    cells = {cell.label: cell for cell in chosen(GRADIENT_CELLS, parts)}
    rows: list[Row] = []
    for part in apart("bench_gradient", {"cells": list(cells.values()), "repeats": repeats, "peer": peer}):
        heard(part)
        rows += part
    # afterwards: both would be slower side by side
    for row in rows:
        row["grown_mib"] = taken(row["way"], cells[row["cell"]], row.get("variant", ()))
    return rows


def shown(rows: Sequence[Row]) -> list[Row]:
    """The columns that fit on a page."""
    return [
        {
            "cell": row["cell"],
            "way": row["way"],
            "ran": row["ran"],
            "run-steps/s": round(row["run_steps_per_second"]),
            **{
                f"to {key.removeprefix('ratio_to_')}": row[key]
                for key in (f"ratio_to_{REVERSE}", "ratio_to_peer")
                if key in row
            },
            "MiB": row["grown_mib"],
            "apart": float(f"{row['apart']:.1e}"),
            "worst": float(f"{row['worst']:.1e}"),
        }
        for row in rows
    ]


def _asked(cells: list[list[Any]], cores: int, **settings: Any) -> Iterator[list[Row]]:
    for sizes, *rest in cells:
        yield measure(cells=[Cell(tuple(sizes), *rest)], **settings)


if __name__ == "__main__":
    answered(_asked)
