"""A population as it would be written without an engine: one network after another, or a one-network step under vmap.

`naive` is what is written today: a module of linear layers, a matrix of the weights' size for every term of the rule,
new weights at every step; the structure of `bench_meta.published` without its autograd. `loop` is the best one-network
loop: terms combined in activation space, weights in place. `vmap` maps such a step over runs by torch.func.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from metarule.bench_work import Setting

ONE_BY_ONE = 4
"""Runs that are trained where one network comes after another: the next would take the same time."""


class Layers(nn.Module):
    """Linear layers without biases, tanh between them, softmax at the end."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair, bias=False) for pair in itertools.pairwise(sizes))

    def forward(self, x: Float[Tensor, "B J"]) -> list[Float[Tensor, "B I"]]:
        """The rates of all populations, the input first."""
        rates = [x]
        for layer in self.layers[:-1]:
            rates.append(torch.tanh(layer(rates[-1])))
        return [*rates, torch.softmax(self.layers[-1](rates[-1]), dim=1)]


@torch.no_grad()
def naive(world: Setting) -> Float[Tensor, "R"]:
    """Losses of the first runs, one network at a time, every term a matrix."""
    cell, data = world.cell, world.data
    losses = []
    for run in range(min(cell.runs, ONE_BY_ONE)):
        candidate, episode = divmod(run, cell.episodes)
        theta = world.theta[candidate] / cell.batch
        feedback = [back[run] for back in world.feedback]
        model = Layers(cell.sizes)
        for layer, weight in zip(model.layers, world.weights, strict=True):
            layer.weight.data = weight[run]
        for rows in data.order[episode]:
            rates = model(data.images[rows])
            errors = [data.targets[rows] - rates[-1]]
            for rate, back in zip(reversed(rates[:-1]), reversed(feedback), strict=True):
                errors.insert(0, (errors[0] @ back.t()) * (1 - rate**2))
            for place, layer in enumerate(model.layers):
                pre, post, pre_error, error = rates[place], rates[place + 1], errors[place], errors[place + 1]
                layer.weight.data = (
                    layer.weight
                    + theta[0] * (error.t() @ pre)
                    + theta[1] * (error.t() @ pre_error)
                    + theta[2] * (post.t() @ pre - (post.t() @ post) @ layer.weight)
                )
        asked = data.asked[episode]
        answer = model(data.held_out[asked])[-1]
        losses.append(functional.nll_loss(answer.log(), data.answers[asked]))
    return torch.stack(losses)


@torch.no_grad()
def loop(world: Setting) -> Float[Tensor, "R"]:
    """Losses of the first runs, one network at a time, with the factored arithmetic and in place."""
    cell, data = world.cell, world.data
    losses = []
    for run in range(min(cell.runs, ONE_BY_ONE)):
        candidate, episode = divmod(run, cell.episodes)
        error_pre, error_pre_error, oja = (world.theta[candidate] / cell.batch).tolist()
        forward = [weight[run].clone() for weight in world.weights]
        feedback = [back[run] for back in world.feedback]
        for rows in data.order[episode]:
            rates = [data.images[rows]]
            for weight in forward[:-1]:
                rates.append(torch.tanh(rates[-1] @ weight.t()))
            rates.append(torch.softmax(rates[-1] @ forward[-1].t(), dim=1))
            error = data.targets[rows] - rates[-1]
            for layer in range(len(forward) - 1, -1, -1):
                pre, post, weight = rates[layer], rates[layer + 1], forward[layer]
                pre_error = (error @ feedback[layer].t()) * (1 - pre * pre)
                taught = torch.add(pre * error_pre, pre_error, alpha=error_pre_error)
                kept = torch.addmm(pre * oja, post, weight, alpha=-oja)
                weight.addmm_(torch.cat((error, post)).t(), torch.cat((taught, kept)))
                error = pre_error
        x = data.held_out[data.asked[episode]]
        for weight in forward[:-1]:
            x = torch.tanh(x @ weight.t())
        losses.append(functional.cross_entropy(x @ forward[-1].t(), data.answers[data.asked[episode]]))
    return torch.stack(losses)


@torch.no_grad()
def vmap(world: Setting) -> Float[Tensor, "R"]:
    """Losses of all runs, a one-network step mapped over them: the shortest way to write a population."""
    cell, data = world.cell, world.data
    order, asked = (rows.repeat(len(world.theta), *[1] * (rows.ndim - 1)) for rows in (data.order, data.asked))
    forward, feedback = world.weights, world.feedback
    theta = world.theta.repeat_interleave(cell.episodes, 0) / cell.batch

    def step(theta: Tensor, forward: list[Tensor], feedback: list[Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
        rates = [x]
        for weight in forward[:-1]:
            rates.append(torch.tanh(rates[-1] @ weight.t()))
        rates.append(torch.softmax(rates[-1] @ forward[-1].t(), dim=1))
        error = y - rates[-1]
        updated = list(forward)
        for layer in range(len(forward) - 1, -1, -1):
            pre, post, weight = rates[layer], rates[layer + 1], forward[layer]
            pre_error = (error @ feedback[layer].t()) * (1 - pre * pre)
            taught = theta[0] * pre + theta[1] * pre_error
            kept = theta[2] * (pre - post @ weight)
            updated[layer] = weight + torch.cat((error, post)).t() @ torch.cat((taught, kept))
            error = pre_error
        return updated

    def loss(forward: list[Tensor], x: Tensor, labels: Tensor) -> Tensor:
        for weight in forward[:-1]:
            x = torch.tanh(x @ weight.t())
        return functional.cross_entropy(x @ forward[-1].t(), labels)

    for number in range(cell.steps):
        rows = order[:, number]
        forward = torch.func.vmap(step)(theta, forward, feedback, data.images[rows], data.targets[rows])
    return torch.func.vmap(loss)(forward, data.held_out[asked], data.answers[asked])
