"""What tests of settling kinds of credit share: a batch, the change it induces, and the gradient that theory says."""

from __future__ import annotations

import torch
from building import address, start_row
from test_credit import LOSSES

from metarule.learner import ANY, Learner
from metarule.rules.textbook import Delta
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd

RUNS, EVENTS = 2, 4


def world(network, events=EVENTS, runs=RUNS):
    """Initial weights of some runs of a network and one batch with one-hot targets."""
    noise = address("energy", runs=runs)
    weights = {p.name: network.draw(p, noise) for p in network.projections}
    x = noise.at("x").normal(events, network.sizes[network.input_name])
    classes = network.sizes[network.output_name]
    return weights, Batch(x, torch.eye(classes, dtype=x.dtype)[noise.at("y").integers(classes, events)])


def changes(credit, network, weights, batch, rule=None, noise=None, **settings):
    """Summed over the stages of one batch while weights wait: the change of every projection, (R I J) each."""
    runs = batch.x.shape[0]
    learner = Learner(network, credit, {ANY: rule or Delta()}, {ANY: Sgd()})
    columns = learner.columns(start_row(learner, **settings).expand(runs, -1))
    state, total = {}, {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for k in range(credit.stages(network, batch)):
        signals, state = credit.stage(
            k, columns.credit, network, weights, state, batch, 0, noise or address("run", runs=runs), learner.wanted
        )
        for name, seen in signals.items():
            total[name] = total[name] + learner.rules[ANY].delta(columns.rules[ANY], seen, {}, address("rule"))[
                0
            ].tensor(weights[name])
    return total


def descent(loss, weights):
    """Minus the gradient of the mean loss per run, by autograd; `loss` maps weights to (R B)."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    gradients = torch.autograd.grad(loss(leaves).mean(1).sum(), list(leaves.values()))
    return {name: -gradient for name, gradient in zip(leaves, gradients, strict=True)}


def feedforward(network, weights, batch):
    """The direction of gradient descent on the matched loss of the feedforward pass."""
    return descent(lambda ws: LOSSES[network.output](network.forward(ws, batch.x).drives["output"], batch.y), weights)


def vector(parts):
    return torch.cat([part.flatten(1) for part in parts.values()], dim=1)


def cosine(first, second):
    """The least over runs."""
    return float(torch.cosine_similarity(vector(first), vector(second)).min())


def relative(found, expected):
    """The relative distance, greatest over runs."""
    return float(((vector(found) - vector(expected)).norm(dim=1) / vector(expected).norm(dim=1)).max())
