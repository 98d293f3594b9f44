"""The verbs that measure and check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from metarule.cli.output import emit, say, show

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def bench(
    gradient: Annotated[
        bool, typer.Option("--gradient", help="Instead: time and memory of a meta-gradient, by every way to it.")
    ] = False,
    meta_step: Annotated[
        bool, typer.Option("--meta-step", help="Instead: seconds per meta-step against the published loop (minutes).")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Instead: memory of each way to a meta-gradient, by steps and runs.")
    ] = False,
    peer: Annotated[
        str | None, typer.Option(help="Measure its best beside ours: jax (needs the extra bench).", show_default=False)
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(help="Only cells whose name begins so, as 'digits R64 B16'; may be repeated.", show_default=False),
    ] = None,
    cores: Annotated[
        list[int] | None, typer.Option(help="1 or 2; may be repeated.", show_default="both, where there are two")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Interleaved repeats of each cell.", min=1, show_default="5, of gradients 3")
    ] = None,
    json: Json = False,
) -> None:
    """Measure run-steps per second of the engines against other ways to write the same work, and against a peer."""
    from metarule import bench as throughput
    from metarule import bench_gradient, bench_memory, bench_meta
    from metarule.bench_process import check_cores, check_peer
    from metarule.inspection.report import plain_table

    if gradient + meta_step + memory > 1:
        raise ValueError("--gradient, --meta-step and --memory are three measurements; give one of them")
    check_peer(peer)
    if (meta_step or memory) and (peer or cells or cores or repeats):
        raise ValueError("--peer, --cells, --cores and --repeats go with populations, or with --gradient")
    if gradient and cores:
        raise ValueError("--gradient measures on one core; leave --cores out")
    counts = check_cores(cores)

    def heard(rows: list[dict[str, Any]]) -> None:
        say(f"measured: {rows[0]['cell']}, {rows[0]['cores']} {'core' if rows[0]['cores'] == 1 else 'cores'}")

    parts = tuple(cells or ())
    if meta_step:
        rows = bench_meta.measure()
        tables = [("Meta-steps, interleaved in one process", rows)]
    elif memory:
        rows = bench_memory.measure(more=bench_memory.MORE)
        tables = [("Memory of a meta-gradient, a process each", rows)]
    elif gradient:
        rows = bench_gradient.compared(repeats or bench_gradient.REPEATS, parts, peer, heard)
        tables = [("Meta-gradients on one core, interleaved in one process", bench_gradient.shown(rows))]
    else:
        rows = throughput.compared(repeats or throughput.REPEATS, parts, peer, counts, heard)
        tables = [
            (f"Throughput on {count} {'core' if count == 1 else 'cores'}, interleaved in one process",
             throughput.shown(found))
            for count in counts
            if (found := [row for row in rows if row["cores"] == count])
        ]  # fmt: skip
    if json:
        emit(rows)
    else:
        for title, found in tables:
            show(plain_table(title, found))


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
