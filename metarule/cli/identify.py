"""The third job's verbs: classify a recording, simulate recordings, look after the bank they are compared with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from metarule.cli.output import emit, say, show
from metarule.cli.starting import importing

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes; results do not depend on it.")]
BankFile = Annotated[
    Path | None, typer.Option("--bank", help="A bank's .npz; the one that comes with metarule if none.")
]

bank = typer.Typer(
    help="Build, show, test and extend the bank that recordings are compared with.", no_args_is_help=True
)


def classify(
    recording: Annotated[
        Path,
        typer.Argument(
            metavar="RECORDING|FOLDER", help="An .npz, .h5 or .nwb file, or a folder of PyTorch checkpoints."
        ),
    ],
    bank: BankFile = None,
    alpha: Annotated[
        float, typer.Option(help="The prediction set covers 1 - alpha of networks like the bank's.")
    ] = 0.1,
    equation: Annotated[bool, typer.Option(help="Search for the equation too.")] = True,
    mapping: Annotated[Path | None, typer.Option(help="A TOML file that says where an NWB file has what.")] = None,
    json: Json = False,
) -> None:
    """Say which learning rule made a recording, how sure that is, and by which equation."""
    with importing():
        import torch

        from metarule.identification.classify import classify_file
        from metarule.inspection.verdict_report import verdict_report

    torch.set_num_threads(1)
    verdict = classify_file(recording, bank=bank, alpha=alpha, equation=equation, mapping=mapping)
    if json:
        emit(verdict)
    else:
        show(verdict_report(str(recording), verdict))


def simulate(
    spec: Annotated[
        Path,
        typer.Argument(metavar="SPEC", help="A TOML file with a table \\[simulation], or a shipped one by name."),
    ],
    out: Annotated[Path, typer.Option(help="The folder that the recordings are written to.")] = Path("recordings"),
    limit: Annotated[int | None, typer.Option(min=1, help="Write this many recordings at most.")] = None,
    json: Json = False,
) -> None:
    """Simulate rules x architectures x data x step sizes as recordings, one .npz per network."""
    with importing():
        import torch

        from metarule.identification.simulation import read, recordings
        from metarule.reading import find_simulation

    torch.set_num_threads(1)
    simulation = read(find_simulation(str(spec)))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for recording in itertools.islice(recordings(simulation), limit):
        path = out / f"{recording.meta['label']}-{recording.meta['network']}.npz"
        recording.save(path)
        written.append({"file": str(path), "label": recording.meta["label"], "accuracy": recording.meta["accuracy"]})
        if len(written) % 50 == 0:
            say(f"{len(written)} of {min(simulation.networks, limit or simulation.networks)} recordings written")
    if not written:
        raise ValueError(f"{spec}: every network diverged; lower simulation.displacement")
    if json:
        emit(written)
    else:
        say(f"{len(written)} recordings in {out}; classify one with: metarule classify {written[0]['file']}")


@bank.command()
def build(
    out: Annotated[Path, typer.Option(help="The bank's file.")] = Path("bank.npz"),
    sample: Annotated[float, typer.Option(min=0.0, max=1.0, help="Build only this share of the networks.")] = 1.0,
    workers: Workers = 1,
) -> None:
    """Simulate the recipe's networks and keep what is observed of them."""
    from metarule.identification.recipe import built

    made = built(workers, sample, say)
    made.save(out)
    say(f"{out}: {out.stat().st_size / 2**20:.2f} MB, {len(made.classes)} classes")


@bank.command()
def info(bank: BankFile = None, json: Json = False) -> None:
    """Show a bank's model card: its recipe and the figures it was tested with."""
    from metarule.identification.recipe import card
    from metarule.inspection.card_report import card_report

    found = card(bank)
    if json:
        emit(found)
    else:
        show(card_report(found))


@bank.command("test")
def check_bank(
    bank: BankFile = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the networks to rebuild.")] = 0.05,
    workers: Workers = 1,
    json: Json = False,
) -> None:
    """Rebuild a share of the bank by its recipe and compare; exit 1 where it differs."""
    from metarule.identification.recipe import rebuilt
    from metarule.inspection.report import document_report

    found = rebuilt(bank, share, workers)
    if json:
        emit(found)
    else:
        show(document_report("rebuilt sample", found))
    if not found["same"]:
        raise typer.Exit(1)


@bank.command()
def add(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder; its rule becomes a class of its name.")],
    bank: BankFile = None,
    out: Annotated[Path, typer.Option(help="The new bank's file.")] = Path("bank.npz"),
    workers: Workers = 1,
) -> None:
    """Simulate a discovered rule on the recipe's networks and add it as a class."""
    from metarule.identification.recipe import extended

    made = extended(bank, run, workers, say)
    made.save(out)
    say(f"{out}: {len(made.classes)} classes; classify with --bank {out}")
