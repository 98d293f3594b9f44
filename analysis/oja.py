"""Did a search rediscover Oja's rule? Direction and length of held-out weights against what the coefficients predict.

At w = rho u, u the first principal component with eigenvalue 1, inputs Gaussian with mean 0, the expected change
along u is (c_post_pre + c_weight) rho + c_post2_weight rho^3 (odd moments vanish; what is not symmetric under rotation
averages out): the rule rests at rho^2 = -(c_post_pre + c_weight) / c_post2_weight, with raw coefficients.

    python analysis/oja.py runs/oja runs/oja_optuna
"""

from __future__ import annotations

import math
import sys

import torch

import metarule as mr
from metarule.evaluation import interval
from metarule.inner import Runs
from metarule.loop import engine_for
from metarule.rng import seed_number


def predicted_length(raw: dict[str, float]) -> float:
    """rho from raw coefficients by term; nan where the rule has no stable length."""
    square = -(raw["post_pre"] + raw.get("weight", 0.0)) / raw["post2_weight"]
    return math.sqrt(square) if square > 0 else math.nan


def measured(run: mr.Run, episodes: int = 100) -> tuple[list[float], list[float]]:
    """|cos(w, PC1)| and |w| on held-out covariances."""
    search = run.search
    engine = engine_for(search)
    fresh = search.task.held_out()
    runs = Runs((0,), tuple(range(episodes)), seed_number("analysis", "oja"))
    theta = torch.tensor([list(run.theta.values())], dtype=torch.float64)
    outcome = engine.evaluate(
        search.learner, theta, fresh, runs, range(search.steps), search.inner.batch, frozenset({"loss", "carry"})
    )
    assert outcome.carry is not None
    (weight,) = outcome.carry["weights"].values()
    return outcome.scores["cosine"][0].tolist(), weight[:, 0].norm(dim=1).tolist()


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    for path in paths:
        run = mr.load(path)
        predicted = predicted_length({term["name"]: term["raw"] for term in run.terms})
        cosines, lengths = measured(run)
        cosine, length = interval(cosines), interval(lengths)
        print(f"{path}: {run.equation}, on {len(cosines)} held-out covariances:")
        print(f"  |cos(w, PC1)| = {cosine[0]:.4f} [{cosine[1]:.4f} to {cosine[2]:.4f}]")
        print(f"  |w| = {length[0]:.4f} [{length[1]:.4f} to {length[2]:.4f}], predicted {predicted:.4f}: ", end="")
        print(f"{100 * (length[0] / predicted - 1):+.1f} %")


if __name__ == "__main__":
    main(sys.argv[1:])
