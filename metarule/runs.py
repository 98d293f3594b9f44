"""The run folder: spec, log, atomic checkpoint, result. Nothing that was saved is ever lost or half-written.

search.toml   the file as given          spec.json     everything resolved, versions, git revision
log.jsonl     one line per generation    timing.jsonl  what is not deterministic
checkpoint.safetensors (and .previous)   result.json   figures/   lock
blocks/       of the work in flight (ledger.py)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarule import archive
from metarule.records import RunError, jsonable, read_json, read_log

SCHEMA = 1
"""Version of the folder's layout."""

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Where a search stands: `generation` generations are done and the log has `log_bytes` bytes of them.

    `state` is the outer loop's; `carry` that of the inner runs where the next generation goes on with them.
    """

    generation: int
    log_bytes: int
    state: dict[str, Any]
    carry: dict[str, Any] | None = None


@dataclass(frozen=True)
class RunFolder:
    """One search's folder."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    def create(self, text: str, spec: dict[str, Any]) -> None:
        """Start an empty run; raises RunError where the folder already holds one or cannot be written."""
        if (self.path / "spec.json").exists():
            raise RunError(
                f"{self.path} already holds a run; go on with it by 'metarule search --resume {self.path}', "
                "or choose another --name"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            archive.write(self.path / "search.toml", text.encode())
            (self.path / "log.jsonl").touch()
            self.write_json("spec.json", {"schema": SCHEMA, **spec})
        except OSError as error:
            raise RunError(f"cannot write the run folder {self.path}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; raises RunError where another process does. The system lets go of it if this one dies."""
        try:
            handle = (self.path / "lock").open("a+")
        except OSError as error:
            raise RunError(f"cannot write the run folder {self.path}: {error.strerror or error}") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                raise RunError(
                    f"{self.path} is in use by process {handle.read().strip() or '?'}; wait for it or stop it"
                ) from None
            handle.truncate(0)
            handle.write(f"{os.getpid()} on {os.uname().nodename}\n")
            handle.flush()
            yield

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; raises RunError where it is missing or damaged."""
        return read_json(self.path / name)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Replace a JSON file of the folder in one step; numbers that are not finite become null."""
        text = json.dumps(jsonable(content), indent=1, sort_keys=True, allow_nan=False)
        archive.write(self.path / name, f"{text}\n".encode())

    def log(self) -> list[dict[str, Any]]:
        """All complete lines of the log."""
        return read_log(self.path / "log.jsonl")

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Add one line to a .jsonl file and wait until it is on disk."""
        with (self.path / name).open("ab") as handle:
            handle.write((json.dumps(line, sort_keys=True) + "\n").encode())
            handle.flush()
            os.fsync(handle.fileno())

    def save(
        self, generation: int, state: dict[str, Any], line: dict[str, Any], carry: dict[str, Any] | None = None
    ) -> None:
        """Write down one finished generation: its line in the log, then the checkpoint that vouches for it."""
        self.append("log.jsonl", line)
        log_bytes = (self.path / "log.jsonl").stat().st_size
        document = {
            "schema": SCHEMA,
            "generation": generation,
            "log_bytes": log_bytes,
            "state": state,
            "carry": carry,
        }
        newest, previous = self.path / CHECKPOINT, self.path / PREVIOUS
        temporary = archive.write_aside(newest, archive.packed(document))
        if newest.exists():
            newest.replace(previous)
        temporary.replace(newest)
        archive.sync_folder(self.path)

    def checkpoint(self) -> tuple[Checkpoint | None, str | None]:
        """The last good state and, where the newest file was damaged, a sentence that says so.

        None where no generation was finished. Raises RunError where files are there but none is good.
        """
        complaints = []
        for name in (CHECKPOINT, PREVIOUS):
            path = self.path / name
            if not path.exists():
                continue
            try:
                found = _loaded(path)
            except archive.DAMAGED as error:
                complaints.append(f"{path.name} is damaged ({error})")
                continue
            log = self.path / "log.jsonl"
            if not log.exists() or log.stat().st_size < found.log_bytes:
                complaints.append(f"{path.name} vouches for {found.log_bytes} bytes of log.jsonl, and fewer are there")
                continue
            note = f"{'; '.join(complaints)}; going on from generation {found.generation}" if complaints else None
            return found, note
        if complaints:
            raise RunError(f"{self.path} cannot be resumed: {'; '.join(complaints)}. The log is untouched")
        logged = len(self.log())
        if logged > 1:  # one line may stand without a checkpoint: the run died between the two
            raise RunError(
                f"{self.path} cannot be resumed: log.jsonl has {logged} generations but no checkpoint is left. "
                "The log is untouched"
            )
        return None, None

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Cut from the log what the checkpoint does not vouch for."""
        with (self.path / "log.jsonl").open("ab") as handle:
            handle.truncate(checkpoint.log_bytes if checkpoint else 0)
            os.fsync(handle.fileno())


def _loaded(path: Path) -> Checkpoint:
    document = archive.unpacked(path)
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, this version reads {SCHEMA}")
    return Checkpoint(document["generation"], document["log_bytes"], document["state"], document.get("carry"))
