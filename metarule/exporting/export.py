"""export: what a run found, or a row of the zoo, in the words of another program."""

from __future__ import annotations

from pathlib import Path

from metarule.collect import unknown
from metarule.exporting import EXPORTS
from metarule.portable import Taught, portable


def export(learner: str | Path | Taught, to: str = "torch", out: str | Path | None = None) -> str:
    """The rule of a run, a run's folder, a row of the zoo or an exported .json as text, written to the file `out` too.

    `to`: "torch", a file that needs torch only and trains an nn.Sequential; "json", all its parts and numbers, which
    LocalOptimizer.of reads back; "latex" and "sympy", its equation. Raises ValueError where it cannot be written so,
    or not to this file.

    Examples:
        >>> print(mr.export("oja", to="sympy"))  # doctest: +SKIP
    """
    if to not in EXPORTS:
        raise ValueError(unknown("to", to, EXPORTS))
    text = EXPORTS[to](portable(learner))
    if out is not None:
        try:
            Path(out).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot write {out}: {error.strerror or error}") from error
    return text
