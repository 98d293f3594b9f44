"""The documentation site builds without a warning, opens without a network, and its reference is the code's."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import metarule

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture
def made(monkeypatch):
    """The script that makes docs/reference."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("reference_pages")


def test_the_reference_is_what_the_code_says_now(made):
    pages = made.pages()
    assert {file.name for file in REFERENCE.glob("*.md")} == set(pages)
    stale = [name for name, text in pages.items() if (REFERENCE / name).read_text() != text]
    assert not stale, f"{stale} are not what the code says; run: python docs/reference_pages.py"


def test_every_public_name_is_on_one_page_of_the_reference(made):
    named = [name for _, _, names in made.PYTHON.values() for name in names]
    assert sorted(named) == sorted(set(metarule.__all__) - {"__version__"})


def test_every_page_is_in_the_navigation_and_nothing_else_is():
    listed = re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built with warnings as errors."""
    if importlib.util.find_spec("zensical") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("the site is built where it can be: pip install 'metarule[docs]'")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    for file in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / file, folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


def test_the_site_builds_with_warnings_as_errors(site):
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix("")
        place = place.parent if place.name in ("index", "README") else place
        assert (site / place / "index.html").is_file(), place


def test_no_page_of_the_site_asks_anything_of_another_host(site):
    loads = re.compile(r"<(?:script|img|iframe|source)[^>]*\bsrc=\"?(?:https?:)?//|<link[^>]*\bhref=\"?(?:https?:)?//")
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        assert not loads.search(page.read_text()), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style


def test_docstrings_stand_in_the_python_reference(site):
    text = (site / "reference" / "python_search" / "index.html").read_text()
    assert "Run a search to its end" in text
    assert 'id="metarule.api.search"' in text
    assert "<blockquote>" not in text, "an example of a docstring stands under 'Examples:', or it is taken for a quote"
