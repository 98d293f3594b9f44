"""The room of outer: who proposes the rule, one file per loop; the folder is the registry."""

from metarule.collect import collect
from metarule.outer.base import OuterLoop

__all__ = ["OUTER", "OuterLoop"]

OUTER = collect(__name__, OuterLoop)
