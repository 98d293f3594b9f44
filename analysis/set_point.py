"""Did a search find an inhibitory set-point? The rate that its six numbers predict against the rate that neurons take.

A pre spike changes the weight by alpha + kappa x_post, a post spike by beta + gamma x_pre, x traces of earlier spikes.
With independent spikes at rates r_pre and r a weight drifts by r_pre (alpha + (kappa T_post + gamma T_pre) r) + beta r,
T = 1 / (exp(1 / tau) - 1) what one spike's trace sums up to: with beta = 0 it rests at r* = -alpha / (kappa T_post +
gamma T_pre) whatever r_pre (Vogels et al. 2011; Confavreux et al. 2025).

    python analysis/set_point.py runs/inhibitory_set_point-seed*
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch

import metarule as mr
from metarule.credit.poisson_spikes import trace_of_one
from metarule.evaluation import interval
from metarule.inner import Runs
from metarule.learner import Learner
from metarule.loop import engine_for
from metarule.params import starts
from metarule.rng import noise_for, seed_number
from metarule.spec import Search
from metarule.tasks.set_point import SetPoint, SetPointEpisode


class SixNumbers(NamedTuple):
    """The rule, times in time steps."""

    tau_pre: float
    tau_post: float
    alpha: float
    kappa: float
    beta: float
    gamma: float

    @property
    def set_point(self) -> float:
        """r* in spikes per time step; nan where the rule pushes rates away from it."""
        pre, post = (float(trace_of_one(torch.tensor(tau, dtype=torch.float64))) for tau in self[:2])
        pull = self.kappa * post + self.gamma * pre
        return -self.alpha / pull if self.alpha * pull < 0 else math.nan


class Found(NamedTuple):
    """Rates in Hz, losses in Hz^2; one number per held-out network where there are several."""

    predicted: float
    target: float
    rates: list[float]
    first_loss: float
    losses: list[float]


def six_numbers(theta: dict[str, float]) -> SixNumbers:
    """The rule of a run, from its parameters by name."""
    terms = ("credit.tau_pre", "credit.tau_post", ".pre", ".post_ref_pre", ".post", ".post_pre_ref")
    return SixNumbers(*(next(value for name, value in theta.items() if name.endswith(term)) for term in terms))


def at_rest(
    search: Search, learner: Learner, numbers: Sequence[float], episodes: int
) -> tuple[list[float], list[float]]:
    """Mean rate in Hz of held-out networks on which the rule has been at work, and their losses."""
    task = search.task.held_out()
    runs = Runs((0,), tuple(range(episodes)), seed_number("analysis", "set_point"))
    theta = torch.tensor([list(numbers)], dtype=torch.float64)
    outcome = engine_for(search).evaluate(
        learner, theta, task, runs, range(search.steps), search.inner.batch, frozenset({"loss", "carry"})
    )
    assert outcome.carry is not None
    weights = outcome.carry["weights"]
    noise = noise_for([(runs.seed, "episode", episode) for episode in runs.episodes], torch.float32)
    episode = task.sample(noise.at("data"), 1)
    assert isinstance(episode, SetPointEpisode)
    rates = episode.mean_rate(lambda x: learner.network.forward(weights, x))
    return rates.tolist(), outcome.scores["held_out_loss"][0].tolist()


def measured(run: mr.Run, episodes: int = 200) -> Found:
    """The rule of a run on fresh held-out networks, and their loss by the rule that the search started from."""
    task = run.search.task
    assert isinstance(task, SetPoint)
    rates, losses = at_rest(run.search, run.learner, list(run.theta.values()), episodes)
    _, before = at_rest(run.search, run.learner, starts(run.learner.params).tolist(), episodes)
    predicted = six_numbers(run.theta).set_point * 1000 / task.step
    return Found(predicted, task.target, rates, interval(before)[0], losses)


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    predictions, rates, drops = [], [], []
    for path in paths:
        run = mr.load(path)
        found = measured(run)
        (rate, *spread), (loss, *losses) = interval(found.rates), interval(found.losses)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in six_numbers(run.theta)._asdict().items())
        print(f"{path}: {numbers}")
        print(f"  set-point {found.predicted:.2f} Hz, wanted {found.target:g} Hz")
        print(f"  {len(found.rates)} held-out networks: {rate:.2f} [{spread[0]:.2f} to {spread[1]:.2f}] Hz", end=", ")
        print(f"loss {loss:.3g} [{losses[0]:.3g} to {losses[1]:.3g}] Hz^2; at the start {found.first_loss:.3g}")
        predictions.append(found.predicted)
        rates.append(rate)
        drops.append(math.log10(found.first_loss / loss))
    for name, values in (("set-point", predictions), ("rate", rates), ("decades of loss", drops)):
        mean, low, high = interval(values)
        print(f"{name}, {len(values)} searches: {mean:.2f} [{low:.2f} to {high:.2f}]", end="")
        print(f", from {min(values):.2f} to {max(values):.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
