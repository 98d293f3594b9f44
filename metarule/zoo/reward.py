"""Rows that learn from a single number: perturbation, policy gradients, neuromodulated plasticity."""

from __future__ import annotations

from metarule.zoo.base import Algorithm

REWARD: dict[str, Algorithm] = {}
