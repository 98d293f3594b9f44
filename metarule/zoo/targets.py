"""Rows whose units are shown a target: what they should have done, not how wrong they were."""

from __future__ import annotations

from metarule.zoo.base import Algorithm

TARGETS: dict[str, Algorithm] = {}
