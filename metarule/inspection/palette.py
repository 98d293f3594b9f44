"""The colours of every picture and page, on a light and on a dark ground."""

from __future__ import annotations

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Colours that colour-blind readers tell apart (Okabe and Ito, 2008), beginning with the strongest."""

DASHES = ("-", "--", "-.", ":")
"""Second mark of a line, where there are more lines than colours or no colours to see."""

LIGHT = {
    "ground": "#fcfcfa",
    "panel": "#ffffff",
    "ink": "#1b1d21",
    "quiet": "#5a6069",
    "line": "#dcdcd6",
    "faint": "#f1f1ec",
    "link": "#005a9c",
    "good": "#00664b",
    "bad": "#a63d00",
}
"""What a page is made of, by day."""

DARK = {
    "ground": "#14161a",
    "panel": "#1b1e23",
    "ink": "#e8e8e4",
    "quiet": "#a3a9b3",
    "line": "#363b43",
    "faint": "#23272d",
    "link": "#7fbcf0",
    "good": "#4fc79f",
    "bad": "#f0925a",
}
"""The same by night."""

# the palette's own hues, moved until each stands 3 : 1 off its ground
LIGHT_SERIES = ("#0072B2", "#D55E00", "#00875F", "#B8548A", "#A67200", "#2E86C1", "#1b1d21", "#767676")
DARK_SERIES = ("#4FA8E0", "#F0803C", "#2FBF93", "#DE93BC", "#E69F00", "#8CCBF2", "#e8e8e4", "#9a9a9a")


def properties(colours: dict[str, str], series: tuple[str, ...]) -> str:
    """Colours as CSS custom properties, --ink and --series0."""
    named = colours | {f"series{place}": colour for place, colour in enumerate(series)}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())


def contrast(one: str, other: str) -> float:
    """Ratio of the luminances of two colours "#rrggbb" (WCAG 2.2): 4.5 is asked of text, 3 of lines."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
