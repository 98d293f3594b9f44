"""metarule: discover, inspect and identify learning rules.

A learner is a credit assignment x a plasticity rule x a synapse model; R learners run side by side, each by its own
row of rule parameters; an outer loop proposes rows and hears losses.

>>> import metarule as mr
>>> run = mr.search("first_rule")  # doctest: +SKIP
>>> mr.load("runs/first_rule").equation  # doctest: +SKIP

Names are imported when they are first used, so that reading a run's folder costs no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "search": "metarule.api",
    "load": "metarule.api",
    "go_on": "metarule.api",
    "Run": "metarule.api",
    "LocalOptimizer": "metarule.local_optimizer",
    "export": "metarule.exporting.export",
    "record": "metarule.identification.record",
    "classify": "metarule.identification.classify",
    "Recording": "metarule.identification.recording",
    "Recorder": "metarule.identification.recorder",
    "ObservableExtractor": "metarule.identification.extractor",
    "RuleClassifier": "metarule.identification.classifier",
    "RuleRegressor": "metarule.identification.regressor",
    "LeaveOneRuleOut": "metarule.identification.splitters",
    "LeaveOneArchitectureOut": "metarule.identification.splitters",
    "Search": "metarule.spec",
    "Param": "metarule.params",
    "Signals": "metarule.signals",
    "Change": "metarule.signals",
    "Batch": "metarule.signals",
    "Term": "metarule.terms",
    "Network": "metarule.network",
    "Learner": "metarule.learner",
    "CreditAssignment": "metarule.credit",
    "Rule": "metarule.rules",
    "SynapseModel": "metarule.synapses",
    "Model": "metarule.models",
    "Task": "metarule.tasks",
    "Episode": "metarule.tasks.base",
    "OuterLoop": "metarule.outer",
}
"""Public name -> the module that has it."""

__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("metarule")
    if name not in _HOMES:
        raise AttributeError(f"module 'metarule' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
