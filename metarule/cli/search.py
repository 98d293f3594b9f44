"""metarule search: one search, replicates of it, its plan, or the rest of one that was stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from metarule.cli.inspect import pictures
from metarule.cli.output import at_once, emit, outside, say, show, stderr
from metarule.cli.progress import Progress
from metarule.inspection import numbers
from metarule.records import RunError, unused


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE_OR_NAME [KEY=VALUE]...", help="A search file or one of `metarule list searches`."),
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run folder's name; default the file's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="number of cores")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Replicate searches with seeds 0, 1, ...")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run, or extend it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan, memory and time; make no folder.")] = False,
    baselines: Annotated[str | None, typer.Option(help="Baselines of the battery: default or all.")] = None,
    copy: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the search file there to edit.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Search for a learning rule: run a search file, then test what it found.

    Keys are dotted: metarule search first_rule outer.generations=50 task.ways=3
    """
    workers = workers or os.cpu_count() or 1
    given = list(words or [])
    if resume is not None:
        if [name, seeds, baselines, copy] != [None] * 4 or dry_run:
            raise ValueError("--resume goes with KEY=VALUE, --workers and --json only")
        _resume(resume, tuple(given), workers, json)
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
        _plan(file, overrides, workers, seeds or 1, json)
    elif seeds is not None:
        _replicates(file, overrides, runs_dir, name, workers, seeds, json)
    else:
        _start(file, overrides, runs_dir, name, workers, json)


def _start(file: str, overrides: tuple[str, ...], runs_dir: Path, name: str | None, workers: int, json: bool) -> None:
    from metarule import jobs, reading
    from metarule.runs import RunFolder

    source = reading.find(file)
    made, text = reading.read(source, overrides, say)
    path = runs_dir / name if name else unused(runs_dir, source.stem)
    _work(path, json, lambda listener: jobs.start(RunFolder(path), made, text, workers, listener))


def _resume(path: Path, overrides: tuple[str, ...], workers: int, json: bool) -> None:
    from metarule import jobs
    from metarule.runs import RunFolder

    _work(path, json, lambda listener: jobs.resume(RunFolder(path), overrides, workers, listener))


def _work(path: Path, json: bool, job: Any) -> None:
    import torch

    from metarule import jobs

    torch.set_num_threads(1)
    try:
        with Progress(stderr()) as progress, jobs.stop_signals(at_once) as stopping:
            job(jobs.Listener(progress.generation, progress.message, stopping))
    except jobs.Stopped:
        say(f"stopped; everything finished is saved. Go on with: metarule search --resume {path}")
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
    figures = pictures(path, document)
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
    import torch

    from metarule import jobs, reading, replicates
    from metarule.inspection.report import replicates_report
    from metarule.trial import rehearse

    torch.set_num_threads(1)
    if any(override.startswith("search.seed=") for override in overrides):
        raise ValueError("--seeds sets search.seed to 0, 1, ...; leave search.seed out")
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
        show(replicates_report(documents, replicates.agreement(documents)))
    for path in paths:
        if not (path / "spec.json").exists():
            say(f"{path} was not begun")
    if replicates.STOPPED in codes:
        raise typer.Exit(replicates.STOPPED)
    raise typer.Exit(max(code if code >= 0 else 1 for code in codes))
