"""LearnedDescent: the coordinate-wise LSTM as an optimizer of torch modules, in the form that `higher` steps."""

from __future__ import annotations

import higher
import torch
from higher.optim import DifferentiableOptimizer

from metarule.recurrent import Recurrent

CHANNELS = ("slope",)
"""What the LSTM is shown of a weight: minus the gradient of the loss in it."""


class LearnedDescent(torch.optim.Optimizer):
    """w <- w + lr lstm(-dL/dw, state of w), one state per weight, one row `theta` (1 P) for all weights.

    It is stepped by `higher` in its differentiable form alone; as it is it carries the settings.
    """

    def __init__(self, groups: list[dict], lr: float, hidden: int = 10, layers: int = 1, reach: float = 10.0) -> None:
        network = Recurrent(CHANNELS, int(hidden), int(layers), reach)
        super().__init__(groups, {"lr": lr, "network": network, "theta": torch.tensor([network.starts()])})


class _Differentiable(DifferentiableOptimizer):
    def _update(self, grouped_grads, **kwargs):
        for number, (group, gradients) in enumerate(zip(self.param_groups, grouped_grads, strict=True)):
            network, theta = group["network"], group["theta"]
            for place, (weight, gradient) in enumerate(zip(group["params"], gradients, strict=True)):
                if gradient is None:
                    continue
                # constants to the meta-gradient: through the logarithm of a slope that passes 0 it would explode
                slopes = -gradient.detach().reshape(1, -1, 1)
                state = self.state[number][place] or network.init(slopes[:, :, 0])
                answer, self.state[number][place] = network.step(theta, slopes, state)
                if not self._track_higher_grads:
                    self.state[number][place] = {
                        name: value.detach() for name, value in self.state[number][place].items()
                    }
                group["params"][place] = weight + group["lr"] * answer.reshape(weight.shape)


higher.register_optim(LearnedDescent, _Differentiable)  # pyright: ignore[reportArgumentType] - its annotation is wrong
