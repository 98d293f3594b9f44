"""Does a user's own nn.Sequential reach the zoo's accuracy on the digits when LocalOptimizer trains it in a plain loop?

Model, loop, order of the images and first weights are torch's own; split, epochs, batch and the law of the weights are
those of the zoo's table. "engine" is the same rule in the engine, on the table's four episodes; "same draws" a model
that starts from their very weights and sees their very batches.

    python analysis/local_optimizer.py runs/analysis/local_optimizer --runs runs/first_rule
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from asked import parser, written
from torch import Tensor, nn

import metarule as mr
from metarule.acceptance import TRIALS
from metarule.evaluation import interval
from metarule.inner import Reference, Runs
from metarule.network import Network
from metarule.portable import Portable, portable
from metarule.rng import noise_for
from metarule.zoo import ZOO
from metarule.zoo.base import Host

ROWS = ("backprop", "feedback_alignment", "predictive_coding_fixed", "predictive_coding_strict", "node_perturbation")
DISCOVERED = ("ehebb", "three_term")
TASK = TRIALS["digits"].task.held_out()
ONLINE = Host(activation="softplus", epochs=4, batch=1)
"""The course of rules that were searched one image at a time, as that of the zoo's three-term rule."""

Batches = Iterable[tuple[Tensor, Tensor]]


@functools.cache
def split(batch: int) -> Any:
    """The table's split: `images`, `labels`, `train_rows`, `score_rows`."""
    return TASK.sample(noise_for([("split",)], torch.float32), batch)


def host_of(name: str) -> Host:
    """The course of a row of the zoo; that of the three-term rule for a run."""
    return ZOO[name].host if name in ZOO else ONLINE


def network_of(name: str, known: Portable) -> Network:
    """The layers that the comparison of the zoo gives to all rows, with the nonlinearity of this one."""
    if name in ZOO:
        return known.network
    own = known.network
    sizes = (TASK.inputs, *TRIALS["digits"].hidden, TASK.outputs)
    return Network.chain(sizes, own.populations[1].activation, beta=own.beta, bias=True)


def model_of(network: Network) -> nn.Sequential:
    """An ordinary model with the zoo's layers, weights by Glorot and Bengio (2010)."""
    bends = {"tanh": nn.Tanh(), "relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "softplus": nn.Softplus(network.beta)}
    parts: list[nn.Module] = []
    for projection in network.projections:
        layer = nn.Linear(network.sizes[projection.source], network.sizes[projection.target])
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        parts += [layer, bends[network.activations[projection.target]]] if projection.target != "output" else [layer]
    return nn.Sequential(*parts)


def accuracy(model: nn.Sequential, batch: int) -> float:
    """Share of the scored images that the trained model tells right."""
    parts = split(batch)
    with torch.no_grad():
        right = model(parts.images[parts.score_rows]).argmax(1) == parts.labels[parts.score_rows]
    return float(right.float().mean())


def plain(name: str, known: Portable, seed: int) -> float:
    """A user's training loop, from a seed of torch's."""
    torch.manual_seed(seed)
    host, network = host_of(name), network_of(name, known)
    model = model_of(network)
    optimizer = mr.LocalOptimizer.of(model, known, output=network.output, seed=seed)
    parts = split(host.batch)
    shown = torch.utils.data.TensorDataset(parts.images[parts.train_rows], parts.labels[parts.train_rows])
    for _ in range(host.epochs):
        for x, y in torch.utils.data.DataLoader(shown, host.batch, shuffle=True, drop_last=True):
            optimizer.step(x, y)
    return accuracy(model, host.batch)


def same_draws(name: str, known: Portable, seed: int) -> float:
    """The same from the first weights of an episode of the engine, with its batches."""
    host, network = host_of(name), network_of(name, known)
    noise = noise_for([(0, "episode", seed)], torch.float32)
    learner = known.on(network)
    weights = learner.init(learner.columns(torch.zeros(1, 0)), noise)["weights"]
    model = model_of(network)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, projection in zip(layers, network.projections, strict=True):
            layer.weight.copy_(weights[projection.name][0, :, :-1])
    optimizer = mr.LocalOptimizer.of(model, known, output=network.output, seed=seed)
    episode = TASK.sample(noise.at("data"), host.batch)
    for step in range(host.epochs * TASK.steps_per_epoch(host.batch)):
        batch = episode.train(step)
        assert batch.y is not None
        optimizer.step(batch.x[0], batch.y[0].argmax(1))
    return accuracy(model, host.batch)


def by_engine(name: str, known: Portable, seeds: int) -> list[float]:
    """The same rule in the engine on the first episodes of the table."""
    host, learner = host_of(name), known.on(network_of(name, known))
    steps = range(host.epochs * TASK.steps_per_epoch(host.batch))
    runs = Runs((0,), tuple(range(seeds)))
    outcome = Reference(dtype=torch.float32).evaluate(learner, torch.zeros(1, 0), TASK, runs, steps, host.batch)
    return outcome.scores[TASK.headline][0].tolist()


def measured(name: str, seeds: int) -> dict[str, Any]:
    """Accuracies of a row or a run, {course: {mean, low, high, values}}."""
    known = portable(name)
    found = {
        "engine": by_engine(name, known, seeds),
        "same draws": [same_draws(name, known, seed) for seed in range(seeds)],
        "plain loop": [plain(name, known, seed) for seed in range(seeds)],
    }
    rows = {}
    for course, values in found.items():
        mean, low, high = interval(values)
        rows[course] = {"mean": mean, "low": low, "high": high, "values": values}
    return rows


def main() -> None:
    options = parser(__doc__, workers=False)
    options.add_argument("--rows", nargs="*", default=[*ROWS, *DISCOVERED], help="rows of the zoo")
    options.add_argument("--runs", nargs="*", default=[], help="folders of runs")
    options.add_argument("--seeds", type=int, default=4)
    asked = options.parse_args()
    figures: dict[str, Any] = {}
    for name in (*asked.rows, *asked.runs):
        figures[name] = measured(name, asked.seeds)
        said = "   ".join(
            f"{course} {row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]" for course, row in figures[name].items()
        )
        print(f"{name:26s} {said}", flush=True)
    written(asked.folder, figures)


if __name__ == "__main__":
    main()
