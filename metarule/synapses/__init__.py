"""The room of synapses: how a change becomes a weight, one file per model; the folder is the registry."""

from metarule.collect import collect
from metarule.synapses.base import SynapseModel

__all__ = ["SYNAPSES", "SynapseModel"]

SYNAPSES = collect(__name__, SynapseModel)
