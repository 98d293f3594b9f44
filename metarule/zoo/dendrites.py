"""Rows whose error lives in a dendrite: apical plateaus, lateral inhibition, bursts."""

from __future__ import annotations

from metarule.zoo.base import Algorithm

DENDRITES: dict[str, Algorithm] = {}
