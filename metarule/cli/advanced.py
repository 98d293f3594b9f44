"""The verbs that measure and check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarule.cli.output import emit, show

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def bench(
    meta_step: Annotated[
        bool, typer.Option("--meta-step", help="Instead: seconds per meta-step against the published loop (minutes).")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Instead: memory of each estimator of a meta-gradient, by inner steps.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure run-steps per second against one network at a time and torch.func.vmap."""
    from metarule import bench as throughput
    from metarule import bench_memory, bench_meta
    from metarule.inspection.report import plain_table

    if meta_step and memory:
        raise ValueError("--meta-step and --memory are two measurements; give one of them")
    if meta_step:
        title, rows = "Meta-steps, interleaved in one process", bench_meta.measure()
    elif memory:
        title, rows = "Memory of a meta-gradient, a process each", bench_memory.measure()
    else:
        title, rows = "Throughput, interleaved in one process", throughput.measure()
    if json:
        emit(rows)
    else:
        show(plain_table(title, rows))


def doctor(json: Json = False) -> None:
    """Show versions, machine and data, and whether `higher` agrees with the engine."""
    from metarule.doctor import examined
    from metarule.inspection.report import document_report

    found = examined()
    if json:
        emit(found)
    else:
        show(document_report("doctor", found))


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Python file with plug-ins, as my_rule.py.")],
    json: Json = False,
) -> None:
    """Run the contract tests over your own plug-ins."""
    import torch

    from metarule.contracts import checked
    from metarule.inspection.report import checks_table

    torch.set_num_threads(1)
    found = checked(file)
    if json:
        emit([check._asdict() for check in found])
    else:
        show(checks_table([check._asdict() for check in found]))
    if not all(check.ok for check in found):
        raise typer.Exit(1)
