"""A report in a browser: no error, no request, everything by keyboard, no page wider than a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reporting import comparison, document, episodes

from metarule.inspection import palette
from metarule.inspection.page import comparison_page, page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
QUIET += ["disable-component-update", "disable-sync"]

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=[f"--{each}" for each in QUIET])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "report": page(document('<script>alert("a")</script>'), episodes()),
        "compared": comparison_page(comparison()),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture
def opened(browser, files):
    """Open a page; whatever goes wrong in it, or is asked for from anywhere, fails the test at its end."""
    wrong: list[str] = []
    contexts = []

    def visit(name: str, width: int = 1440, theme: str = "light", script: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=script
        )
        contexts.append(context)
        shown = context.new_page()
        address = files[name].as_uri()
        shown.on("console", lambda message: wrong.append(f"console: {message.text}"))
        shown.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        shown.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        shown.on("request", lambda request: wrong.append(request.url) if request.url != address else None)
        shown.goto(address)
        return shown

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def reached(shown: Any) -> list[str]:
    """What Tab visits, from the top of the page to its end."""
    seen: list[str] = []
    look = "e => { e = document.activeElement; return e === document.body ? '' : e.className + '|' + e.textContent }"
    for _ in range(400):
        shown.keyboard.press("Tab")
        found = shown.evaluate(look)
        if not found:
            break
        seen.append(found)
    return seen


@pytest.mark.parametrize("name", ["report", "compared"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 768, 1440])
def test_nothing_is_asked_for_nothing_fails_and_nothing_is_wider_than_the_screen(opened, name, theme, width):
    shown = opened(name, width, theme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    wanted = {"light": palette.LIGHT, "dark": palette.DARK}[theme]["ground"]
    assert ground == f"rgb({', '.join(str(part) for part in bytes.fromhex(wanted[1:]))})"


def test_tab_reaches_the_theme_every_sort_header_every_legend_and_every_plot(opened):
    shown = opened("report")
    seen = reached(shown)
    for selector in (".theme", ".sort", ".legend button", ".plot", ".copy", "summary", "nav a"):
        there = shown.locator(selector).all_text_contents()
        visible = [text for text, box in zip(there, shown.locator(selector).all(), strict=True) if box.is_visible()]
        assert visible
        for text in visible:
            assert any(each.endswith(f"|{text}") for each in seen), (selector, text)


def test_a_table_is_sorted_by_click_and_by_enter(opened):
    shown = opened("report")
    table = shown.locator("#terms table")
    first = table.locator("tbody th")
    header = table.locator("thead th", has_text="normalised")
    assert first.first.text_content() == "error_pre_error"
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    header.locator("button").focus()
    shown.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert first.all_text_contents() == ["weight_decay", "error_pre", "subspace_oja", "error_pre_error"]
    table.locator("thead button", has_text="term").click()
    assert header.get_attribute("aria-sort") is None
    assert first.all_text_contents() == sorted(first.all_text_contents())


def test_the_theme_can_be_changed_and_is_remembered(opened):
    shown = opened("report")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = shown.evaluate(ground)
    shown.locator(".theme").focus()
    shown.keyboard.press("Enter")
    after = shown.evaluate(ground)
    assert after != before
    shown.reload()
    assert shown.evaluate(ground) == after


def test_a_legend_switches_its_line_and_arrows_read_its_values(opened):
    shown = opened("report")
    chart = shown.locator("#curve")
    button, line = chart.locator(".legend button").first, chart.locator("g[data-line='0']")
    assert line.is_visible()
    button.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert not line.is_visible()
    chart.locator(".plot").focus()
    shown.keyboard.press("End")
    read = chart.locator(".read")
    assert "generation 29" in read.text_content()
    assert "mean of candidates" not in read.text_content()
    shown.keyboard.press("ArrowLeft")
    assert "generation 28" in read.text_content()
    shown.keyboard.press("Escape")
    assert read.count() == 0
    chart.locator(".plot").hover()
    assert "generation" in read.text_content()


@pytest.mark.parametrize("key", ["Home", "End"])
def test_what_a_plot_says_stays_on_a_phone(opened, key):
    shown = opened("report", 375)
    shown.locator("#probe0 .plot").focus()
    for step in (key, "ArrowLeft", "ArrowRight", "ArrowRight"):
        shown.keyboard.press(step)
        box = shown.locator("#probe0 .read").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375


def test_a_surface_says_its_values_cell_by_cell(opened):
    shown = opened("report")
    plot = shown.locator("#surface0 .plot")
    plot.focus()
    shown.keyboard.press("Home")
    shown.keyboard.press("ArrowDown")
    assert "pre −2.00" in shown.locator("#surface0 .read").text_content()


def test_without_a_script_the_curves_and_tables_are_there(opened):
    shown = opened("report", script=False)
    assert shown.locator("#curve g[data-line='0'] .curve").bounding_box()["width"] > 100
    assert shown.locator("#terms tbody tr").count() == 4
    assert shown.locator("#equation math").first.bounding_box()["height"] > 5
