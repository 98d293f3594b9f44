"""metarule search: one search, replicates of it, its plan, or the rest of one that was stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from metarule.cli.output import at_once, emit, outside, say, show, stderr
from metarule.cli.progress import Progress
from metarule.cli.starting import importing
from metarule.inspection import numbers
from metarule.records import ClusterLost, RunError, unused


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE_OR_NAME [KEY=VALUE]...", help="A search file or one of `metarule list searches`."),
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run folder's name; default the file's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="number of cores")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Replicate searches with seeds 0, 1, ...")] = None,
    task_id: Annotated[int | None, typer.Option(min=0, help="Run, or go on with, one seed of --seeds only.")] = None,
    cluster: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Workers of a Dask scheduler.")] = None,
    scheduler_file: Annotated[Path | None, typer.Option(help="The same, found by the scheduler's file.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Encrypted: the cluster's certificate authority.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Encrypted: this client's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Encrypted: its key.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run, or extend it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan, memory and time; make no folder.")] = False,
    baselines: Annotated[str | None, typer.Option(help="Baselines of the battery: default or all.")] = None,
    copy: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the search file there to edit.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Search for a learning rule: run a search file, then test what it found.

    Keys are dotted: metarule search first_rule outer.generations=50 task.ways=3
    """
    where = _where(workers, cluster, scheduler_file, tls_ca, tls_cert, tls_key)
    given = list(words or [])
    if resume is not None:
        if [name, seeds, task_id, baselines, copy] != [None] * 5 or dry_run:
            raise ValueError("--resume goes with KEY=VALUE, --workers or --cluster, and --json only")
        _resume(resume, tuple(given), where, json)
        return
    if not given:
        raise ValueError("name a search file, a search that comes with metarule, or --resume RUN")
    file, overrides = given[0], tuple(given[1:])
    if baselines is not None:
        overrides += (f"battery.baselines={baselines}",)
    if copy is not None:
        if overrides:
            raise ValueError(
                f"--copy writes the search file as it is, comments and all, and cannot work {overrides[0]} into it; "
                "leave it out and edit the copy"
            )
        _copy(file, copy)
    elif dry_run:
        _plan(file, overrides, where.workers, seeds or 1, json)
    elif task_id is not None:
        _task(file, overrides, runs_dir, name, where, seeds, task_id, json)
    elif seeds is not None:
        if where.cluster:
            raise ValueError("--seeds on a cluster: one job per seed, each with --task-id; see docs/on_a_cluster.md")
        _replicates(file, overrides, runs_dir, name, where.workers, seeds, json)
    else:
        _start(file, overrides, runs_dir, name, where, json)


class _Where(NamedTuple):
    """Who computes: `workers` processes here, or a cluster's."""

    workers: int
    cluster: Any = None


def _where(workers: int | None, address: str | None, scheduler_file: Path | None, *tls: Path | None) -> _Where:
    if address is None and scheduler_file is None:
        if any(tls):
            raise ValueError("--tls-ca, --tls-cert and --tls-key go with --cluster or --scheduler-file")
        return _Where(workers or os.cpu_count() or 1)
    if workers is not None:
        raise ValueError("--workers counts processes of this machine; on a cluster, start as many workers as you want")
    from metarule.cluster import Cluster

    return _Where(1, Cluster(address, scheduler_file, *tls))


def _start(file: str, overrides: tuple[str, ...], runs_dir: Path, name: str | None, where: _Where, json: bool) -> None:
    with importing():
        from metarule import jobs, reading
        from metarule.runs import RunFolder

    source = reading.find(file)
    made, text = reading.read(source, overrides, say)
    path = runs_dir / name if name else unused(runs_dir, source.stem)
    _work(
        path,
        where.workers,
        json,
        lambda listener: jobs.start(RunFolder(path), made, text, where.workers, listener, where.cluster),
    )


def _task(
    file: str,
    overrides: tuple[str, ...],
    runs_dir: Path,
    name: str | None,
    where: _Where,
    seeds: int | None,
    task_id: int,
    json: bool,
) -> None:
    with importing():
        from metarule import jobs, reading, replicates
        from metarule.runs import RunFolder

    if seeds is None or task_id >= seeds:
        raise ValueError(f"--task-id {task_id} is a seed of --seeds N, 0 to N - 1; give --seeds, larger than {task_id}")
    _refuse_seed(overrides)
    source = reading.find(file)
    made, text = reading.read(source, (*overrides, f"search.seed={task_id}"), say)
    path = replicates.folder(runs_dir, name or source.stem, task_id)
    _work(
        path,
        where.workers,
        json,
        lambda listener: jobs.carry_on(RunFolder(path), made, text, where.workers, listener, where.cluster),
    )


def _refuse_seed(overrides: tuple[str, ...]) -> None:
    if any(override.startswith("search.seed=") for override in overrides):
        raise ValueError("--seeds sets search.seed to 0, 1, ...; leave search.seed out")


def _resume(path: Path, overrides: tuple[str, ...], where: _Where, json: bool) -> None:
    with importing():
        from metarule import jobs
        from metarule.runs import RunFolder

    _work(
        path,
        where.workers,
        json,
        lambda listener: jobs.resume(RunFolder(path), overrides, where.workers, listener, where.cluster),
    )


def _work(path: Path, workers: int, json: bool, job: Any) -> None:
    import torch

    from metarule import jobs
    from metarule.inspecting import finished

    torch.set_num_threads(1)
    try:
        with Progress(stderr()) as progress, jobs.stop_signals(at_once) as stopping:
            job(jobs.Listener(progress.generation, progress.message, stopping))
            figures = finished(path, workers, progress.message)
    except jobs.Stopped:
        say(f"stopped; everything finished is saved. Go on with: metarule search --resume {path}")
        raise typer.Exit(75) from None
    except ClusterLost as error:
        say(f"{error}; everything finished is saved. Go on with: metarule search --resume {path}")
        raise typer.Exit(75) from None
    except KeyboardInterrupt:
        say(f"interrupted; the last finished generation is saved. Go on with: metarule search --resume {path}")
        raise typer.Exit(130) from None
    except Exception as error:
        sentence = outside(error)
        if sentence is None or not (path / "log.jsonl").exists():
            raise
        raise RunError(
            f"{sentence}; the last finished generation is saved. Go on with: metarule search --resume {path}"
        ) from error
    document = numbers.found(path)
    if json:
        emit(document)
        return
    from metarule.inspection.report import report

    show(report(document, map(str, figures)))


def _copy(file: str, target: Path) -> None:
    from metarule import reading

    text = reading.find(file).read_text()
    try:
        with target.open("x") as handle:
            handle.write(text)
    except FileExistsError:
        raise ValueError(f"{target} is already there; choose another name") from None
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror or error}") from error
    say(f"{target} written; edit it, then: metarule search {target}")


def _plan(file: str, overrides: tuple[str, ...], workers: int, seeds: int, json: bool) -> None:
    with importing():
        import torch

        from metarule import jobs, reading
        from metarule.inspection.report import settings_table

    torch.set_num_threads(1)
    made, _ = reading.read(reading.find(file), overrides, say)
    plan = jobs.plan(made, 1 if seeds > 1 else workers, min(seeds, workers))
    if seeds > 1:
        plan |= {"seeds": seeds, "workers": workers, "seconds": plan["seconds"] * -(-seeds // workers)}
    if json:
        emit(plan)
    else:
        show(settings_table("Plan: nothing was computed or written", plan))


def _replicates(
    file: str, overrides: tuple[str, ...], runs_dir: Path, name: str | None, workers: int, seeds: int, json: bool
) -> None:
    with importing():
        import torch

        from metarule import jobs, reading, replicates
        from metarule.findings import agreement
        from metarule.inspection.report import replicates_report
        from metarule.trial import rehearse

    torch.set_num_threads(1)
    _refuse_seed(overrides)
    source = reading.find(file)
    rehearse(reading.read(source, overrides, say)[0], 1, min(seeds, workers))
    numbered = range(seeds)
    paths = replicates.folders(runs_dir, name or source.stem, numbered)
    if name and paths[0].name != f"{name}-seed0":
        raise RunError(f"{runs_dir / name}-seed… is taken; choose another --name")
    commands = [
        [
            *("search", str(source), *overrides, f"search.seed={seed}", "--workers", "1", "--json"),
            *("--runs-dir", str(runs_dir), "--name", path.name),
        ]
        for seed, path in zip(numbered, paths, strict=True)
    ]
    with jobs.stop_signals(at_once) as stopping:
        codes = replicates.side_by_side(commands, workers, lambda seed, line: say(f"seed {seed}: {line}"), stopping)
    documents = [numbers.found(path) for path, code in zip(paths, codes, strict=True) if code == 0]
    if json:
        emit(documents)
    elif documents:
        show(replicates_report(documents, agreement(documents)))
    for path in paths:
        if not (path / "spec.json").exists():
            say(f"{path} was not begun")
    if replicates.STOPPED in codes:
        raise typer.Exit(replicates.STOPPED)
    raise typer.Exit(max(code if code >= 0 else 1 for code in codes))
