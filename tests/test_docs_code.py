"""Code on the pages of the documentation runs, page by page from top to bottom, in a folder of its own.

A comment above a block says what is particular about it:

    <!-- file: NAME -->         the block is written to this file before the page goes on
    <!-- is: PATH -->           the block is the whole of this file
    <!-- not run: REASON -->    it would take a cluster, a network or minutes; its syntax and its options are checked
    <!-- run with: WORDS -->    where it would take minutes: overrides that its searches get here, to take seconds
    <!-- part of: SEARCH KEY=VALUE ... -->  a part of a search file, checked as part of one that comes with metarule

and `<!-- goes on from: PAGE -->` anywhere on a page, that it starts where another page ended.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from metarule import api
from metarule.cli import app
from metarule.reading import built, find

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"sh", "python", "toml", "text"}
FENCE = re.compile(r"((?:^ *<!--[^\n]*-->\n)*)^( *)```([^\n]*)\n(.*?)^\2```$", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!-- ([\w ]+?): (.*?) -->")


class Block(NamedTuple):
    """A fenced block: its first line on the page, its language, its text, and what the comments above it say."""

    line: int
    language: str
    text: str
    says: dict[str, str]


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, from top to bottom."""
    whole = page.read_text()
    return [
        Block(
            whole.count("\n", 0, found.start(4)) + 1,
            found[3],
            "".join(line.removeprefix(found[2]) for line in found[4].splitlines(keepends=True)),
            dict(COMMENT.findall(found[1])),
        )
        for found in FENCE.finditer(whole)
    ]


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=shown)


@every_page
def test_every_block_says_its_language_and_the_test_knows_what_is_said_of_it(page):
    text = page.read_text()
    assert text.count("```") == 2 * len(blocks(page))
    assert not re.search(r"\n\n {4}(metarule|python|import|pip|sbatch) ", text), "a block of code without a fence"
    for block in blocks(page):
        assert block.language in LANGUAGES, f"line {block.line}"
        assert set(block.says) <= {"file", "is", "not run", "run with", "part of"}, f"line {block.line}"
        assert "is" not in block.says or block.text == (ROOT / block.says["is"]).read_text(), f"line {block.line}"
        assert "not run" not in block.says or len(block.says["not run"].split()) > 3, f"line {block.line}: why?"


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a shell block."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        while words:
            cut = words.index("&&") if "&&" in words else len(words)
            yield words[:cut]
            words = words[cut + 1 :]


def verb(words: list[str]) -> Any:
    """The command that `metarule` and these words name."""
    command: Any = typer.main.get_command(app)
    for word in words[1:]:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"metarule has no command '{word}': {shlex.join(words)}"
        command = command.commands[word]
    return command


def check_options(words: list[str]) -> None:
    """Asserts that the command exists and knows every option."""
    known = {spelling for param in verb(words).params for spelling in (*param.opts, *param.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= known | {"--help"}, f"unknown options {given - known}: {shlex.join(words)}"


@every_page
def test_every_command_in_the_text_and_in_blocks_has_the_options_that_it_is_shown_with(page):
    text = page.read_text()
    in_text = re.findall(r"(?<!`)`(metarule [^`\n]+)`", FENCE.sub("", text))
    for words in [shlex.split(each) for each in in_text]:
        if len(words) > 1 and not re.match(r"[A-Z|…]|\[", words[1]):
            check_options(words)
    for block in blocks(page):
        if block.language == "sh":
            assert subprocess.run(["bash", "-n"], input=block.text, text=True).returncode == 0, f"line {block.line}"
            for words in commands(block.text):
                if words[0] == "metarule":
                    check_options(words)


class Place:
    """Where a page's code runs: a folder that has what a checkout has, one namespace, and the command line."""

    def __init__(self, folder: Path, metarule: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch):
        self.folder, self.metarule, self.monkeypatch = folder, metarule, monkeypatch
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed: str | None = None

    def run(self, block: Block) -> None:
        """Do what a reader does with a block."""
        if "file" in block.says:
            (self.folder / block.says["file"]).write_text(block.text)
        {"sh": self.shell, "python": self.python, "toml": self.toml, "text": self.text}[block.language](block)

    def shell(self, block: Block) -> None:
        if "not run" in block.says:
            self.printed = None
            return
        smaller = block.says.get("run with", "").split()
        self.printed = "".join(self.command(words, smaller) for words in commands(block.text))

    def command(self, words: list[str], smaller: list[str]) -> str:
        """What a command prints."""
        if words[0] == "metarule":
            return self.verb(words[1:], smaller)
        assert words[0] == "python", f"{shlex.join(words)} is not run here; say why with a comment 'not run'"
        if words[1] == "-c":
            return self.code(words[2])
        with self.monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
            patch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
        return out.getvalue()

    def verb(self, words: list[str], smaller: list[str]) -> str:
        known = {spelling for param in verb(["metarule", *words]).params for spelling in param.opts}
        if words[0] == "search" and not {"--copy", "--dry-run"} & set(words):
            words = [*words, *smaller]
        if "--workers" in known - set(words):
            words = [*words, "--workers", "1"]
        code, out, err = self.metarule(*words)
        assert code == 0, err
        return out

    def python(self, block: Block) -> None:
        if "not run" in block.says:
            ast.parse(block.text)
            self.printed = None
            return
        with self.monkeypatch.context() as patch:
            smaller = tuple(block.says.get("run with", "").split())
            read = api.read
            patch.setattr(api, "read", lambda path, overrides=(): read(path, (*overrides, *smaller)))
            self.printed = self.code(block.text)

    def code(self, text: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(text, "page", "exec", dont_inherit=True), self.names)
        return out.getvalue()

    def toml(self, block: Block) -> None:
        table = tomllib.loads(block.text)
        if "part of" in block.says:
            name, *overrides = block.says["part of"].split()
            whole = tomllib.loads(find(name).read_text())
            for room, _, key in (name.partition(".") for name in table.get("structure", ())):
                whole.get(room, {}).pop(key, None)  # what varies is not given as well
            built(whole | table, tuple(overrides), self.folder)
        elif "outer" in table:
            built(table, (), self.folder)

    def text(self, block: Block) -> None:
        """What is shown as printed was printed just before, numbers apart, which are those of one machine."""
        if self.printed is not None and "not run" not in block.says:
            missing = {word for word in re.findall(r"[A-Za-z_]{3,}", block.text) if word not in self.printed}
            assert not missing, f"line {block.line} shows {sorted(missing)}, which is not printed"


ENDED: dict[str, Path] = {}
"""Page -> the folder as its code left it, for pages that go on from there."""


@pytest.fixture
def enter(tmp_path_factory, metarule, monkeypatch) -> Callable[[Path], Place]:
    """Run a page, the one that it goes on from first."""

    def run(page: Path) -> Place:
        before = re.search(r"<!-- goes on from: (.*?) -->", page.read_text())
        folder = tmp_path_factory.mktemp(page.stem) / "checkout"
        if before:
            earlier = page.parent / before[1]
            if shown(earlier) not in ENDED:
                run(earlier)
            shutil.copytree(ENDED[shown(earlier)], folder, symlinks=True)
        else:
            folder.mkdir()
            for name in ("docs", "searches", "analysis"):
                (folder / name).symlink_to(ROOT / name)
        monkeypatch.chdir(folder)
        place = Place(folder, metarule, monkeypatch)
        for block in blocks(page):
            try:
                place.run(block)
            except Exception as error:
                error.add_note(f"{shown(page)}, line {block.line}")
                raise
        ENDED[shown(page)] = folder
        return place

    return run


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=shown)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, enter):
    enter(page)
