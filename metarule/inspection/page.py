"""A report as one HTML file that opens offline: everything known about a run, or several runs side by side."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

from metarule.inspection import page_card, page_comparison, page_evidence, page_mechanism, page_provenance
from metarule.inspection.markup import Html, escaped, tag, together
from metarule.inspection.page_summary import figures, verdict
from metarule.inspection.palette import DARK, DARK_SERIES, LIGHT, LIGHT_SERIES, properties

Document = dict[str, Any]


def page(document: Document, episodes: dict[str, dict[str, list[float]]]) -> str:
    """The report of a run or a row: `document` as `metarule inspect --json` prints it, `episodes` of its battery.

    The page loads nothing, from nowhere: style, script and numbers are in it. What has not been computed is a line
    that names the command for it.
    """
    name = document.get("name") or document.get("run") or "rule"
    command = f"metarule inspect {document.get('run') or name}"
    parts = [
        page_card.equation(document),
        page_card.known(document),
        page_card.terms(document),
        page_card.locality(document),
        page_card.identifiability(document),
        page_evidence.search(document),
        page_evidence.battery(document, episodes),
        page_evidence.stress(document),
        page_evidence.knockouts(document),
        page_mechanism.probes(document),
        page_mechanism.surfaces(document),
        page_mechanism.distilled(document),
        page_evidence.front(document),
        page_mechanism.to_compute(document, command),
        page_provenance.provenance(document),
    ]
    said = " ".join(filter(None, (verdict(document), document.get("elsewhere"))))
    return _whole(name, "Rule report", said, figures(document), [part for part in parts if part])


def comparison_page(document: Document) -> str:
    """Several runs side by side: `document` as `metarule compare --json` prints it of runs."""
    names = [str(run["name"]) for run in document["runs"]]
    parts = [part for part in page_comparison.parts(document) if part]
    return _whole(" · ".join(names), "Runs compared", page_comparison.verdict(document), None, parts)


def _whole(name: str, kind: str, said: str, shown: Html | None, parts: list[Html]) -> str:
    script = _resource("page.js")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Html('<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'),
        tag("title", f"{name}: {kind.lower()}"),
        Html(f"<style>{style()}</style>"),
    )
    header = tag(
        "header",
        tag("p", kind, class_="kind"),
        tag("h1", Html(escaped(name).replace("_", "_<wbr>"))),
        tag("p", said, class_="verdict"),
        shown,
    )
    body = tag(
        "body", tag("a", "Skip to the report", href="#report", class_="skip"), header,
        tag("nav", _contents(parts), aria_label="Sections"), tag("main", *parts, id="report", tabindex="-1"),
        tag("footer", tag("p", "Made by metarule; this page loads nothing from anywhere.")),
        Html(f"<script>{script}</script>"),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def style() -> Html:
    """The page's CSS: the colours of both themes, then how things are laid out."""
    light, dark = properties(LIGHT, LIGHT_SERIES), properties(DARK, DARK_SERIES)
    themes = (
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
    )
    series = "".join(f".s{place}{{--own:var(--series{place})}}" for place in range(len(LIGHT_SERIES)))
    return Html(themes + series + _resource("page.css"))


def _contents(parts: list[Html]) -> Html:
    """Links to the sections, read from their headings."""
    found = (re.search(r'<h2 id="([\w-]+)-title">(.*?)</h2>', part) for part in parts)
    links = (tag("li", tag("a", Html(each[2]), href=f"#{each[1]}")) for each in found if each)
    return tag("ul", together(links))


@cache
def _resource(name: str) -> str:
    return files("metarule.inspection").joinpath(name).read_text(encoding="utf-8")
