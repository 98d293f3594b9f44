"""Zero-divergence inference: predictive coding whose weights change at the step at which their error arrives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import EXPLICIT, forward_signals, output_error, without_bias
from metarule.credit.settling import depths
from metarule.network import Activity


@dataclass(frozen=True)
class ZeroDivergenceInference(CreditAssignment):
    """Strict predictive coding at rate 1 from the feedforward pass; W_l changes at step L - l, and equals backprop's.

    Inference is short-cut: up to step L - l no value below l has moved, v_l has by W_{l+1}^T error_{l+1}, so its error
    is f' times that, and values need not be kept. Each step is a stage. Where ways to the output differ in length
    errors wait for the longest, as relays along the shorter ways would make them: strict inference has none.
    """

    kind = "zero_divergence_inference"
    source = "Song et al. 2020; Salvatori et al. 2022 (graphs)"
    not_local = "Errors come through the transposed forward weights: weight transport."
    gives = EXPLICIT - {"pre_error"}  # it arrives a step later

    def stages(self, network, batch):
        return depths(network)[network.input_name]

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        if k == 0:
            activity = network.forward(weights, batch.x)
            state = {"rates": activity.rates, "feedback": {network.output_name: output_error(network, activity, batch)}}
        rates, feedback = state["rates"], dict(state["feedback"])
        reached = [name for name, depth in depths(network).items() if depth == k]
        errors = {name: feedback[name] * network.gain(name, rates) for name in reached}
        arrived = [projection for name in reached for projection in network.into(name)]
        for projection in arrived:
            if projection.source == network.input_name:
                continue
            sent = torch.bmm(errors[projection.target], without_bias(projection, weights[projection.name]))
            known = feedback.get(projection.source)
            feedback[projection.source] = sent if known is None else known + sent
        changing = {p.name: wanted[p.name] for p in arrived if p.name in wanted}
        signals = forward_signals(network, weights, Activity({}, rates), feedback, errors, changing)
        last = k + 1 == self.stages(network, batch)
        return signals, {} if last else {"rates": rates, "feedback": feedback}
