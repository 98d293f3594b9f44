"""The blocks of the work in flight, each on disk the moment that it is there: whoever starts again computes the rest.

One file per (chapter, call of the engine, block) in the run folder's `blocks`. A chapter is a generation or the
battery; another one's blocks are of no more use and go when a chapter is opened.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarule import archive
from metarule.block import Block, BlockOutcome, Recording
from metarule.inner import Arrived, Map, unheard


class Ledger:
    """A folder of block outcomes; what is stale or damaged in it counts as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chapter = ""
        self.calls = 0

    def open(self, chapter: str) -> None:
        """Begin a chapter, or go on with it where this is its beginning again: calls are counted from here."""
        self.chapter, self.calls = chapter, 0
        for path in list(self.folder.glob("*")):
            if not path.name.startswith(f"{chapter}-"):
                path.unlink()

    def close(self) -> None:
        """All that was in flight is told: no block is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def over(self, map: Map) -> Map:
        """A map of blocks that computes by `map` what is not in the ledger, and enters each outcome as it arrives."""

        def kept(function: Any, jobs: Sequence[Any], /, arrived: Arrived = unheard) -> list[Any]:
            paths = [self._path(place) for place in range(len(jobs))]
            self.calls += 1
            asked = [_asked(job) for job in jobs]
            read = {place: _read(path, asked[place]) for place, path in enumerate(paths)}
            found = {place: outcome for place, outcome in read.items() if outcome is not None}
            missing = [place for place in read if place not in found]

            def enter(number: int, outcome: BlockOutcome) -> None:
                place = missing[number]
                self._write(paths[place], asked[place], outcome)
                arrived(place, outcome)

            for place, outcome in found.items():
                arrived(place, outcome)
            computed = map(function, [jobs[place] for place in missing], arrived=enter) if missing else ()
            found |= zip(missing, computed, strict=True)
            return [found[place] for place in range(len(jobs))]

        return kept

    def _path(self, place: int) -> Path:
        return self.folder / f"{self.chapter}-{self.calls:04}-{place:05}.safetensors"

    def _write(self, path: Path, asked: str, outcome: BlockOutcome) -> None:
        record = outcome.record and {"steps": outcome.record.steps, "series": outcome.record.series}
        document = {"asked": asked, "outcome": {**outcome._asdict(), "record": record}}
        self.folder.mkdir(exist_ok=True)
        # no wait for the disk: what a power failure leaves half-written fails its checksum and is computed again
        archive.write_aside(path, archive.packed(document), sync=False).replace(path)


def _read(path: Path, asked: str) -> BlockOutcome | None:
    if not path.exists():
        return None
    try:
        document = archive.unpacked(path)
    except archive.DAMAGED:
        return None
    if document.get("asked") != asked:
        return None
    outcome = BlockOutcome(**document["outcome"])
    record: Any = outcome.record
    return outcome._replace(record=record and Recording(tuple(record["steps"]), record["series"]))


def _asked(block: Block) -> str:
    """What a block was asked for, but for its learner and task: the run folder's spec vouches for those."""
    document = {name: value for name, value in block._asdict().items() if name not in ("learner", "task")}
    return archive.fingerprint(document, lambda value: sorted(value) if isinstance(value, frozenset) else repr(value))
