"""Forward-forward: each layer tells right labels from wrong ones by how active it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarule.credit.acting import one_of
from metarule.credit.base import CreditAssignment
from metarule.credit.feedback import output_error, target_of
from metarule.network import Activity, Network, Projection
from metarule.params import Param
from metarule.signals import Signals

_LEAST = 1e-8


@dataclass(frozen=True)
class ForwardForward(CreditAssignment):
    """Goodness G_l = |h_l|^2 should exceed threshold n_l where the label is right, and fall below it where it is wrong.

    The first pixels are replaced by a label, and every layer sees the rates below divided by their root mean square.
    reward = 2 sigmoid(threshold n - G) in the first stage, where the label is right, and -2 sigmoid(G - threshold n)
    in the second, where it is wrong: with rule `modulated_hebb`, descent on each layer's own logistic loss.
    The projections into the output learn by an explicit error to name the label from a neutral one, 1 / I each; wrong
    labels are drawn as they would guess. `respond` tries every label: the drive of an output unit is the sum over
    layers of G - threshold n under its label.
    Raises ValueError where there is no hidden layer, or no room for the label.
    """

    kind = "forward_forward"
    source = "Hinton 2022"
    not_local = "Every unit hears its layer's goodness, a sum over the layer; the layer above sees normalised activity."
    gives = frozenset({"pre", "post", "reward"})
    requires = {"activation": ("relu",), "output": ("softmax", "sigmoid")}  # noqa: RUF012

    @property
    def params(self):
        return (Param("threshold", start=1.0, log=True),)

    def gives_at(self, network: Network, projection: Projection):
        return frozenset({"pre", "post", "error"}) if projection.target == network.output_name else self.gives

    def init(self, theta, network, weights, noise):
        pixels, labels = network.sizes[network.input_name], network.sizes[network.output_name]
        if len(network.populations) < 3 or pixels < labels:
            raise ValueError(
                f"credit.kind = '{self.kind}' needs a hidden layer and an input unit per label; the network has "
                f"{len(network.populations) - 2} hidden layers, {pixels} input units and {labels} labels"
            )
        return {}

    def stages(self, network, batch):
        return 2

    def stage(self, k, theta, network, weights, state, batch, step, noise, wanted):
        top = network.output_name
        if k == 0:
            return self._phase(1.0, theta, network, weights, labelled(batch.x, target_of(batch)), wanted), state
        neutral = climb(network, weights, labelled(batch.x, uniform_label(network, batch.x)))
        error = output_error(network, neutral, batch)
        guess = (neutral.rates[top] + _LEAST) * (1 - target_of(batch))
        wrong = one_of(guess / guess.sum(-1, keepdim=True), noise.at("wrong"))
        signals = self._phase(-1.0, theta, network, weights, labelled(batch.x, wrong), wanted)
        for p in network.into(top):
            if p.name in wanted:
                pre = network.pre(p, neutral.rates)
                signals[p.name] = Signals(weights[p.name], pre, post=neutral.rates[top], error=error)
        return signals, state

    def _phase(self, sign: float, theta, network, weights, x, wanted) -> dict[str, Signals]:
        """Signals at hidden layers for inputs whose label is right (sign 1) or wrong (-1)."""
        activity = climb(network, weights, x)
        excess = excesses(network, theta, activity)
        return {
            p.name: Signals(
                weights[p.name],
                pre=network.pre(p, activity.rates),
                post=network.rate(p.target, activity.drives[p.target]),
                reward=2 * sign * torch.sigmoid(-sign * excess[p.target]),
            )
            for p in network.projections
            if p.name in wanted and p.target != network.output_name
        }

    def respond(self, theta, network, weights, state, x, noise):
        runs, events, pixels = x.shape
        labels = network.sizes[network.output_name]
        every = torch.eye(labels, dtype=x.dtype, device=x.device)[:, None].expand(runs, -1, events, -1)
        tried = labelled(x[:, None].expand(-1, labels, -1, -1), every).reshape(runs, labels * events, pixels)
        total = torch.stack([*excesses(network, theta, climb(network, weights, tried)).values()]).sum(0)
        drive = total.reshape(runs, labels, events).transpose(1, 2)
        drives, rates = climb(network, weights, labelled(x, uniform_label(network, x)))
        top, bottom = network.output_name, network.input_name
        return Activity(drives | {bottom: x, top: drive}, rates | {bottom: x, top: network.rate(top, drive)})


def climb(network: Network, weights, x: Tensor) -> Activity:
    """The forward pass with every layer's rates normalised, those of the input included."""

    def rate(population: str, drive: Tensor) -> Tensor:
        rates = network.rate(population, drive)
        return rates if population == network.output_name else normalised(rates)

    return network.forward(weights, normalised(x), rate)


def normalised(rates: Tensor) -> Tensor:
    """Rates divided by their root mean square: their length, which is what was learned, is hidden from above."""
    return rates * (rates.square().mean(-1, keepdim=True) + _LEAST).rsqrt()


def excesses(network: Network, theta: Tensor, activity: Activity) -> dict[str, Tensor]:
    """Hidden population -> |h|^2 - threshold n (R B 1), h its rates before normalisation."""
    return {
        p.name: network.rate(p.name, activity.drives[p.name]).square().sum(-1, keepdim=True)
        - theta[:, :1, None] * p.size
        for p in network.populations[1:-1]
    }


def labelled(x: Tensor, label: Tensor) -> Tensor:
    """x with its first pixels replaced by a label (... I)."""
    return torch.cat((label, x[..., label.shape[-1] :]), dim=-1)


def uniform_label(network: Network, x: Tensor) -> Tensor:
    """The label that says nothing, 1 / I at every unit (R B I)."""
    labels = network.sizes[network.output_name]
    return x.new_full((*x.shape[:-1], labels), 1 / labels)
