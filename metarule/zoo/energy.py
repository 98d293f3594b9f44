"""Rows whose error is the result of settling: predictive coding, contrastive and equilibrium learning."""

from __future__ import annotations

from metarule.zoo.base import Algorithm

ENERGY: dict[str, Algorithm] = {}
