"""The documentation shows what is there: code on a page is the file it names, files and commands exist."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from metarule.acceptance import TRIALS
from metarule.credit import CREDIT
from metarule.reading import shipped, simulations
from metarule.zoo import GROUPS, ZOO

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")), *sorted(ROOT.glob("*/README.md"))]


@pytest.mark.parametrize(
    ("page", "file"), [("a_rule_of_your_own.md", "my_rule.py"), ("a_model_of_your_own.md", "my_cnn.py")]
)
def test_a_page_about_a_plugin_of_your_own_shows_the_file_that_is_tested(page, file):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert code == (ROOT / "docs" / file).read_text()
    assert len(code.splitlines()) < 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_searches_page_has_a_line_for_every_search():
    page = (ROOT / "searches" / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(shipped())


def test_the_searches_page_has_a_line_for_every_simulation():
    page = (ROOT / "searches" / "README.md").read_text()
    assert set(re.findall(r"^\| \[`(\w+)`\]\(simulations/", page, re.MULTILINE)) == set(simulations())


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


@pytest.fixture
def zoo(monkeypatch):
    """The script that makes the zoo's pages, the module that writes them, and the table that they were made from."""
    monkeypatch.syspath_prepend(ROOT / "analysis")
    rows = json.loads((ROOT / "docs" / "zoo" / "table.json").read_text())
    return importlib.import_module("zoo"), importlib.import_module("zoo_pages"), rows


def test_the_zoos_table_has_every_row_on_every_task_that_it_can_do(zoo):
    _, _, rows = zoo
    assert {(row["learner"], row["task"]) for row in rows} == {
        (name, task) for name, row in ZOO.items() for task in TRIALS if task not in row.not_for
    }
    for row in rows:
        assert row["source"] == ZOO[row["learner"]].source
        assert row["credit"] == ZOO[row["learner"]].credit.kind


def test_the_zoos_pages_are_those_that_its_code_and_its_table_make(zoo):
    script, pages, rows = zoo
    folder = ROOT / "docs" / "zoo"
    assert (folder / "README.md").read_text() == pages.index_page(rows, *script.outcome(rows))
    for group, members in GROUPS.items():
        own = [row for row in rows if row["learner"] in members]
        page = (folder / f"{group.replace(' ', '_')}.md").read_text()
        assert page == pages.group_page(group, own)
        assert all(f"## {name}\n" in page for name in members)


def test_every_promised_row_has_its_gates_and_what_falls_short_says_what_was_tried(zoo):
    script, _, rows = zoo
    assert set(script.GATES) <= set(ZOO)
    failed, promised, _, remedies = script.outcome(rows)
    assert {verdict.learner for verdict in failed} <= set(remedies)
    assert len({verdict.learner for verdict in failed}) <= 0.1 * promised


def test_every_kind_of_credit_says_what_of_it_is_not_local():
    assert {kind for kind, credit in CREDIT.items() if credit.not_local == "Not stated."} == set()
