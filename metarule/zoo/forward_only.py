"""Rows without a backward path: local losses, synthetic gradients, two forward passes."""

from __future__ import annotations

from metarule.zoo.base import Algorithm

FORWARD_ONLY: dict[str, Algorithm] = {}
