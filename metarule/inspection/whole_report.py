"""Everything that a document holds as terminal text: the card and the battery, then what was computed beside them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType

from metarule.inspection.distilled_report import distilled_lines
from metarule.inspection.numbers import Document
from metarule.inspection.probes_report import probes_report
from metarule.inspection.report import report
from metarule.inspection.stress_report import stress_report
from metarule.inspection.surfaces_report import surfaces_report

REPORTS = {"probes": probes_report, "stress": stress_report, "surfaces": surfaces_report}


def whole_report(document: Document, figures: Iterable[str]) -> RenderableType:
    """What `metarule inspect` shows."""
    parts = [report(document, figures)]
    parts += [show(document[name]) for name, show in REPORTS.items() if document.get(name)]
    parts += distilled_lines(document.get("distilled") or [])
    return Group(*parts)
