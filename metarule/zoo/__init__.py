"""The zoo: known algorithms as credit x rules x synapse models, one file per group."""

from metarule.collect import unknown
from metarule.zoo.base import Algorithm, Host
from metarule.zoo.dendrites import DENDRITES
from metarule.zoo.energy import ENERGY
from metarule.zoo.explicit_error import EXPLICIT_ERROR
from metarule.zoo.forward_only import FORWARD_ONLY
from metarule.zoo.reward import REWARD
from metarule.zoo.synapse_models import SYNAPSE_MODELS
from metarule.zoo.targets import TARGETS
from metarule.zoo.unsupervised import UNSUPERVISED

__all__ = ["GROUPS", "ZOO", "Algorithm", "Host", "algorithm"]

GROUPS: dict[str, dict[str, Algorithm]] = {
    "explicit error": EXPLICIT_ERROR,
    "targets": TARGETS,
    "energy": ENERGY,
    "dendrites": DENDRITES,
    "reward": REWARD,
    "forward only": FORWARD_ONLY,
    "unsupervised": UNSUPERVISED,
    "synapse models": SYNAPSE_MODELS,
}
"""Rows by what they have in common."""

ZOO: dict[str, Algorithm] = {name: row for group in GROUPS.values() for name, row in group.items()}


def algorithm(name: str) -> Algorithm:
    """A row by name; raises ValueError naming the nearest."""
    if name not in ZOO:
        raise ValueError(unknown("algorithm", name, ZOO))
    return ZOO[name]
