"""Makes the weights of an outer loop out of a run that learned an optimizer.

    metarule search learn_to_optimize
    python analysis/ship_learned_optimizer.py runs/learn_to_optimize metarule/outer/learned_optimizer.safetensors

A search then takes them by outer.kind = "learned_optimizer"; those at this path come with metarule, a file elsewhere is
given as outer.weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import metarule as mr
from metarule.learner import ANY, Learner, owner_of
from metarule.outer.learned_optimizer import Weights, write
from metarule.recurrent import Recurrent
from metarule.rng import noise_for
from metarule.rules.lstm import Lstm
from metarule.rules.terms import Terms
from metarule.spec import Search

EPISODES = 1000


def first_slope(search: Search, rule: Lstm) -> float:
    """Root mean square of the slopes that the optimizer's problems begin with."""
    network = search.network.build(search.task)
    terms = Terms(rule.terms, normalise=False, start=dict.fromkeys(rule.terms, 1.0))
    learner = Learner(network, search.credit, {ANY: terms}, search.synapses)
    noise = noise_for([(search.search.seed, "episode", episode) for episode in range(EPISODES)])
    columns = learner.columns(torch.ones(EPISODES, len(learner.params), dtype=torch.float64))
    state = learner.init(columns, noise)
    batch = search.task.sample(noise.at("data"), search.inner.batch).train(0)
    slopes = learner.induced(columns, state, batch, 0, noise)
    return float(torch.cat([slope.flatten() for slope in slopes.values()]).square().mean().sqrt())


def learned(run: mr.Run) -> Weights:
    """The optimizer that a run learned; raises ValueError where its rule is none of a single slope."""
    search = run.search
    ((key, rule),) = run.rules.items()
    if rule.kind != Lstm.kind or len(rule.terms) != 1 or rule.normalise:
        raise ValueError(
            f"{run.path} did not learn an optimizer of slopes: it takes a single rule of kind 'lstm' with one term and "
            "normalise = false"
        )
    names = [param.renamed(owner_of("rule", key)).name for param in rule.params]
    theta = torch.tensor([run.theta[name] for name in names], dtype=torch.float64)
    network = Recurrent(("slope",), rule.hidden, rule.layers, rule.reach)
    return Weights(network, theta, rule.rate, first_slope(search, rule))


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    run, path = mr.load(arguments[0]), Path(arguments[1])
    found = learned(run)
    write(path, found)
    print(f"{path}: {len(found.theta)} numbers, {path.stat().st_size} bytes, first slopes of {found.slope:.4g}")


if __name__ == "__main__":
    main(sys.argv[1:])
