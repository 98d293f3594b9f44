"""Is what a rule follows a gradient? The curl of its update on XOR, at random weights and after it has learned.

Whatever descends a loss has a symmetric Jacobian of its update in the weights: no curl. Measured is |J - J^T| /
|J + J^T| on the four patterns of XOR (or its complement) for rows of the zoo and for the rules of the runs that are
named, each started from 20 random networks of 2, 8 and 2 units (Sandler et al. 2021).

    python analysis/curl.py runs/first_rule
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

import metarule as mr
from metarule.evaluation import interval
from metarule.inner import Reference, Runs
from metarule.inspection.curl import asymmetry
from metarule.learner import Learner
from metarule.network import Network
from metarule.rng import noise_for
from metarule.signals import Batch
from metarule.tasks.boolean import Boolean
from metarule.zoo import ZOO

ROWS = ("backprop", "feedback_alignment", "fa_oja", "three_term")

TASK = Boolean(functions="non_separable", noise_sd=0.0)
NETWORK = Network.chain((TASK.inputs, 8, TASK.outputs), "softplus", beta=10.0, bias=True)

EPISODES, STEPS = 20, 2000


def learners(paths: list[str]) -> Mapping[str, tuple[Learner, Float[Tensor, "1 P"]]]:
    """Name -> learner and its row of theta: rows of the zoo, and the rules of runs on this network."""
    found = {}
    for name in ROWS:
        learner = ZOO[name].learner(NETWORK)
        found[name] = learner, torch.tensor([[param.start for param in learner.params]], dtype=torch.float64)
    for path in paths:
        run = mr.load(path)
        theta = torch.tensor([list(run.theta.values())], dtype=torch.float64)
        found[path] = replace(run.learner, network=NETWORK), theta
    return found


def measured(
    learner: Learner, theta: Float[Tensor, "1 P"], episodes: int = EPISODES, steps: int = STEPS
) -> tuple[list[float], list[float], list[float]]:
    """Asymmetry at random weights and after learning, and the fraction of patterns that are then told, by episode."""
    runs = Runs((0,), tuple(range(episodes)))
    noise = noise_for([(runs.seed, "episode", episode) for episode in runs.episodes])
    rows = theta.expand(episodes, -1)
    episode = TASK.sample(noise.at("data"), 1)
    patterns = episode.patterns.expand(episodes, -1, -1)
    batch = Batch(patterns, torch.nn.functional.one_hot(episode.answers, TASK.outputs).to(patterns.dtype))
    before = asymmetry(learner, rows, learner.init(learner.columns(rows), noise), batch, noise)
    outcome = Reference(dtype=torch.float64).evaluate(
        learner, theta, TASK, runs, range(steps), 1, frozenset({"loss", "carry"})
    )
    assert outcome.carry is not None
    after = asymmetry(learner, rows, outcome.carry, batch, noise)
    return before.tolist(), after.tolist(), outcome.scores["accuracy"][0].tolist()


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    print(f"|J - J^T| / |J + J^T| on XOR, mean [95 % interval] of {EPISODES} networks, least to largest:")
    for name, (learner, theta) in learners(paths).items():
        before, after, accuracy = measured(learner, theta)
        for when, values in (("at random weights", before), (f"after {STEPS} steps", after)):
            whole = [value for value in values if math.isfinite(value)]
            mean, low, high = interval(whole)
            lost = f"; {len(values) - len(whole)} diverged" if len(whole) < len(values) else ""
            print(f"  {name}, {when}: {mean:.3g} [{low:.3g} to {high:.3g}], {min(whole):.2g} to {max(whole):.2g}{lost}")
        print(f"    patterns told: {interval(accuracy)[0]:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
