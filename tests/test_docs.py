"""The documentation shows what is there: code on a page is the file it names, files and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metarule.reading import shipped

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]


def test_the_page_about_a_rule_of_your_own_shows_the_file_that_is_tested():
    page = (ROOT / "docs" / "a_rule_of_your_own.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert code == (ROOT / "docs" / "my_rule.py").read_text()
    assert len(code.splitlines()) < 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_searches_page_has_a_line_for_every_search():
    page = (ROOT / "searches" / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(shipped())


def test_the_readme_shows_the_two_commands_and_the_four_verbs():
    readme = (ROOT / "README.md").read_text()
    for command in (
        "make demo",
        "make test",
        "metarule search",
        "metarule inspect",
        "metarule classify",
        "metarule list",
    ):
        assert command in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text()
