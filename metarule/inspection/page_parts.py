"""What every section of a page is made of: numbers as text, tables, intervals drawn in a table's cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from metarule.inspection.markup import Html, tag, together

Row = dict[str, Any]
Cell = str | tuple[str, float | str | None]
"""Text of a table's cell, with the value that it is sorted by where that is another."""

NONE = "–"
"""What stands where there is no number."""


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, whether it holds numbers, pictures or sentences."""

    title: str
    numeric: bool = False
    drawn: bool = False
    wide: bool = False


def section(identifier: str, title: str, *content: str | None) -> Html:
    """A part of the page, with its heading."""
    heading = tag("h2", title, id=f"{identifier}-title")
    return tag("section", heading, *content, id=identifier, aria_labelledby=f"{identifier}-title")


def missing(title: str, what: str, command: str) -> Html:
    """The quiet line about a section that has not been computed, and how to."""
    return tag("p", tag("b", title), f" {what}: ", tag("code", command), class_="missing")


def note(text: str | None) -> Html | None:
    """A sentence under or above something."""
    return tag("p", text, class_="note") if text else None


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], sortable: bool = False) -> Html:
    """A table whose first cells name their rows; it scrolls sideways, by keyboard too, where it is too wide."""
    head = tag("tr", *(tag("th", column.title, scope="col", class_=_kind(column)) for column in columns))
    body = [_row(columns, row) for row in rows]
    made = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", head),
        tag("tbody", *body),
        class_="sortable" if sortable else None,
    )
    return tag("div", made, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _row(columns: Sequence[Column], cells: Sequence[Cell]) -> Html:
    made = []
    for place, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        text, value = (cell, None) if isinstance(cell, str) else cell
        element, scope = ("th", "row") if place == 0 else ("td", None)
        shown = None if value is None else str(value)
        made.append(tag(element, text, scope=scope, class_=_kind(column), data_value=shown))
    return tag("tr", *made)


def _kind(column: Column) -> str | None:
    return "number" if column.numeric else "drawn" if column.drawn else "wide" if column.wide else None


def number(value: float | None, sign: bool = False, digits: int = 3, trim: bool = False) -> str:
    """A number in `digits` digits with a true minus, `trim` without zeros at its end; "–" where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-4 <= size < 1e5:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if trim else mantissa
        text = f"{mantissa}·10{str(int(power)).translate(_RAISED)}".removeprefix("1·")
    else:
        places = digits if size >= 1e-3 else max(digits, 4)
        if round(size, digits) >= 1:  # 0.9999 is 1.00
            places = max(digits - 1 - math.floor(math.log10(max(size, 1.0))), 0)
        text = f"{value:.{places}f}"
        text = text.rstrip("0").rstrip(".") if trim and places else text
    return ("+" if sign and value > 0 else "") + text.replace("-", "−")


def fixed(value: float | None, places: int = 3) -> str:
    """A number with so many decimals, as of what lies between -1 and 1; "–" where there is none."""
    return NONE if value is None else f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def between(row: Row, sign: bool = False) -> str:
    """The interval of a row in brackets; "" where there is none."""
    if row.get("low") is None or row.get("high") is None:
        return ""
    return f"[{number(row['low'], sign)}, {number(row['high'], sign)}]"


def words(name: str) -> str:
    """A name of the code as it is said."""
    return name.replace("_", " ").replace("->", "→")


def counted(count: int, noun: str) -> str:
    """So many of something."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def details(summary: str, *content: str | None) -> Html:
    """What is there for whoever opens it."""
    return tag("details", tag("summary", summary), *content)


def copied(label: str, text: str) -> Html:
    """A text to be copied: a script gives it a button."""
    return tag("div", tag("span", label, class_="label"), tag("pre", text, tabindex="0"), class_="copied")


def mark(holds: bool | None, yes: str = "holds", no: str = "fails", open_: str = "open") -> Html:
    """A verdict that does not rely on its colour."""
    marks = {None: ("quiet", "?", open_), True: ("good", "✓", yes), False: ("bad", "✗", no)}
    kind, sign, word = marks[holds]
    return tag("span", tag("span", sign, aria_hidden="true"), f" {word}", class_=f"mark {kind}")


def fact(there: bool, yes: str, no: str) -> Html:
    """What is so or is not, neither of them a fault."""
    sign, kind = ("●", "good") if there else ("○", "quiet")
    return tag("span", tag("span", sign, aria_hidden="true"), f" {yes if there else no}", class_=f"mark {kind}")


def facts(values: Iterable[tuple[str, str]]) -> Html:
    """Names and what they are, side by side."""
    entries = (tag("div", tag("dt", name), tag("dd", value)) for name, value in values)
    return tag("dl", *entries, class_="facts")


def frame(rows: Iterable[Row], zero: bool = False, around: Iterable[float] = ()) -> Callable[[float], float] | None:
    """Where a value stands between the ends that all rows share, in percent; None where nothing is finite."""
    ends = [row.get(key) for row in rows for key in ("mean", "low", "high")]
    seen = sorted(value for value in around if math.isfinite(value))
    inner = (
        (seen[len(seen) // 50], seen[-1 - len(seen) // 50]) if seen else ()
    )  # a stray one would press all others flat
    values = [
        value for value in (*ends, *inner, *([0.0] if zero else [])) if value is not None and math.isfinite(value)
    ]
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or abs(high) or 1.0
    return lambda value: min(max(100 * (value - low + room) / (high - low + 2 * room), 0.0), 100.0)


def whisker(
    row: Row, place: Callable[[float], float] | None, series: int = 0, zero: bool = False, dots: Iterable[float] = ()
) -> Html:
    """Mean and interval as a dot on a line, over faint dots of single values; all rows of a column share `place`."""
    if place is None or row.get("mean") is None:
        return Html("")
    parts = [tag("i", class_="zero", style=f"left:{place(0.0):.2f}%")] if zero else []
    parts += [tag("i", class_="one", style=f"left:{at:.2f}%;top:{top:.0f}%") for at, top in _spread(dots, place)]
    low, high = row.get("low"), row.get("high")
    if low is not None and high is not None:
        parts.append(tag("i", class_="range", style=f"left:{place(low):.2f}%;right:{100 - place(high):.2f}%"))
    parts.append(tag("i", class_="mean", style=f"left:{place(row['mean']):.2f}%"))
    return tag("span", *parts, class_="whisker", style=f"--own:var(--series{series})", aria_hidden="true")


def _spread(values: Iterable[float], place: Callable[[float], float]) -> list[tuple[float, float]]:
    """Fixed heights for dots, so that equal ones stay apart and the page is always the same."""
    seen = [value for value in values if math.isfinite(value)]
    step = max(1, len(seen) // 200)
    return [(place(value), 12 + 76 * ((k * 0.618034) % 1.0)) for k, value in enumerate(seen[::step])]


def bar(share: float, series: int = 0) -> Html:
    """A share of 1 as a bar."""
    width = f"width:{100 * min(max(share, 0.0), 1.0):.2f}%"
    inner = tag("i", class_="bar", style=width)
    return tag("span", inner, class_="whisker", style=f"--own:var(--series{series})", aria_hidden="true")


def listed(items: Iterable[str]) -> Html | None:
    """A list of sentences; None of none."""
    made = [tag("li", item) for item in items]
    return tag("ul", together(made), class_="plain") if made else None
