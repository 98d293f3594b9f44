"""The room of rules: how a synapse changes, one file per family; the folder is the registry."""

from metarule.collect import collect
from metarule.rules.base import Rule

__all__ = ["RULES", "Rule"]

RULES = collect(__name__, Rule)
