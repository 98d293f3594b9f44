"""The interval that every mean of the package is given with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import special


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of the mean (Student's t); the bounds are nan below two values."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2 or not math.isfinite(mean):
        return mean, math.nan, math.nan
    # a loss of 1e200 is a number still, and its square none
    spread = math.hypot(*(value - mean for value in values)) / math.sqrt((len(values) - 1) * len(values))
    reach = float(special.stdtrit(len(values) - 1, 0.975)) * spread
    return mean, mean - reach, mean + reach
