"""The room of models: networks written as torch modules, one file per model; the folder is the registry."""

from metarule.collect import collect
from metarule.models.base import Model

__all__ = ["MODELS", "Model"]

MODELS = collect(__name__, Model)
