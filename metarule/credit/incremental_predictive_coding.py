"""Incremental predictive coding: weights do not wait for values to settle, both move at every step."""

from __future__ import annotations

from dataclasses import dataclass

from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import target_of
from metarule.credit.predictive_coding import INFERRED, PARAMS, inferred_signals, mismatch, moved
from metarule.credit.settling import Circuit


@dataclass(frozen=True)
class IncrementalPredictiveCoding(CreditAssignment):
    """Strict predictive coding with `steps` inference steps, each a stage: W changes with the values, at every step.

    Raises ValueError on fewer than one step.
    """

    kind = "incremental_predictive_coding"
    source = "Salvatori et al. 2024"
    not_local = "Errors come through the transposed forward weights: weight transport."
    gives = INFERRED

    steps: int = 6

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"credit.steps = {self.steps} must be at least 1")

    @property
    def params(self):
        return PARAMS

    def stages(self, network, batch):
        return self.steps

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        rate, precision = theta[:, :1, None], theta[:, 1:2, None]
        if k == 0:
            state = network.forward(weights, batch.x).rates | {network.output_name: target_of(batch)}
        circuit = Circuit.around(network, weights, batch.x)
        found = mismatch(circuit, state, precision)
        signals = inferred_signals(circuit, weights, state, found.errors, wanted)
        return signals, moved(circuit, state, found, rate) if k + 1 < self.steps else {}
