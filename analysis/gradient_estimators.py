"""Do the estimators of a meta-gradient point where the exact one points, and what does truncation cost?

First, on few-shot episodes of digits with feedback alignment and three terms: the cosine of each estimate with the
exact gradient of the loss along the whole unroll, by number of pairs; intervals are over independent estimates. Second,
on the noisy quadratic of Wu et al. (2018), where everything is known in closed form: the step size at which each search
ends, beside the one that is best for the whole unroll and the one that looks best from within a window.

    python analysis/gradient_estimators.py [FOLDER]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from metarule.credit.backprop import Backprop
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.evaluation import interval
from metarule.inner import Reference, Runs
from metarule.inspection.figures import PALETTE, dress, keep
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.outer.descent import Descent
from metarule.outer.estimators import Differences, Estimator, Exact, Smoothed
from metarule.outer.meta_gradient import MetaGradient
from metarule.rng import noise_for
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd
from metarule.tasks.base import Episode, Task
from metarule.tasks.few_shot import FewShot

ENGINE = Reference(dtype=torch.float64)
PAIRS = (4, 16, 64, 256, 1024)
SIGMA = 0.003
"""Distance of the pairs, on coefficients of 0.02 to 0.1."""
RATE = 0.02
WINDOW, WINDOW_OF_DIGITS = 5, 10
"""Steps between losses, and of a window where an unroll is truncated."""


@dataclass(frozen=True)
class NoisyQuadratic(Task):
    """Independent weights that are pulled to 0 with strengths h_j and noise: w_j <- w_j - rate h_j (w_j + spread s).

    One event per weight, x = root(J h_j) e_j, and the target is x spread s, s ~ N(0, 1) anew at every step; the loss is
    sum_j h_j w_j^2 / 2, without the noise.
    """

    kind = "noisy_quadratic"
    source = "Wu et al. 2018"
    metrics = {"loss": "min"}  # noqa: RUF012

    strengths: tuple[float, ...] = (1.0, 0.1)
    spread: float = 0.3

    @property
    def inputs(self) -> int:
        return len(self.strengths)

    @property
    def outputs(self) -> int:
        return 1

    @property
    def output(self) -> str:
        return "linear"

    def sample(self, noise, batch):
        return _Pulls(self, noise)

    def held_out(self):
        return self


@dataclass(frozen=True, eq=False)
class _Pulls(Episode):
    task: NoisyQuadratic
    noise: Any

    def train(self, step):
        h = torch.tensor(self.task.strengths, dtype=self.noise.dtype)
        x = (len(h) * h).sqrt().diag().expand(self.noise.runs, -1, -1)
        drawn = self.noise.at("target", step).normal(len(h), 1) * self.task.spread
        return Batch(x, x.sum(2, keepdim=True) * drawn)

    def score(self, respond, weights):
        weight = next(iter(weights.values()))[:, 0]
        return {"loss": 0.5 * weight.square() @ torch.tensor(self.task.strengths, dtype=weight.dtype)}


def quadratic_learner(task: NoisyQuadratic) -> Learner:
    """One linear unit by the delta rule; its step size is the one parameter."""
    network = Network.chain((task.inputs, 1), output="linear")
    return Learner(network, Backprop(), {ANY: Delta()}, {ANY: Sgd()})


def expected(task: NoisyQuadratic, rate: Tensor, steps: int, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """E[w^2] per weight and E[loss] after `steps` at a rate, in closed form, from E[w^2] = `start`."""
    h = torch.tensor(task.strengths, dtype=torch.float64)
    start = torch.full_like(h, 2.0 / (len(h) + 1)) if start is None else start  # the variance of initial weights
    kept = (1 - rate * h) ** 2
    noise = (rate * h * task.spread) ** 2
    square = kept**steps * start + noise * (1 - kept**steps) / (1 - kept)
    return square, 0.5 * (h * square).sum()


def slope_at(task: NoisyQuadratic, rate: float, window: int, windows: int, whole: bool) -> float:
    """d/d rate of the mean of E[loss] at the ends of windows: of the whole run, or of each window from where it is."""
    at = torch.tensor(rate, dtype=torch.float64, requires_grad=True)
    total, square = torch.zeros((), dtype=torch.float64), None
    for _ in range(windows):
        square, loss = expected(task, at, window, square)
        total = total + loss / windows
        square = square if whole else square.detach()
    return float(torch.autograd.grad(total, at)[0])


def stationary(task: NoisyQuadratic, window: int, windows: int, whole: bool) -> float:
    """The rate at which that slope vanishes, by bisection."""
    low, high = 1e-3, 1.9 / max(task.strengths)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope_at(task, middle, window, windows, whole) < 0 else (low, middle)
    return low


def searched(
    task: NoisyQuadratic, loop: MetaGradient, candidates: int, steps: int, unrolls: int, episodes: int, seed: int
) -> float:
    """The rate that a search ends with, the mean over its second half."""
    learner = quadratic_learner(task)
    loop = replace(loop)
    loop.start(learner.params)
    carry, rates, number = None, [], 0
    while (window := loop.window(number, steps)).unroll < unrolls:
        loop.prepare(window)
        theta = loop.ask(candidates, noise_for([(seed, "outer", number)]))
        first = window.unroll * candidates
        of_episodes = range(window.unroll * episodes, (window.unroll + 1) * episodes)
        runs = Runs(tuple(range(first, first + len(theta))), tuple(of_episodes), seed)
        every = loop.truncation or WINDOW
        ends = tuple(end for end in range(window.steps.start + 1, window.steps.stop + 1) if end % every == 0)
        wants = loop.wants | {"carry"}
        outcome = ENGINE.evaluate(
            learner, theta, task, runs, window.steps, wants=wants, score_at=ends,
            carry=carry if window.steps.start else None,
        )  # fmt: skip
        carry = outcome.carry
        loop.tell(theta, outcome.loss.mean(1), outcome.grad)
        rates += [float(loop.best[0])] if window.unroll >= unrolls // 2 else []
        number += 1
    return sum(rates) / len(rates)


def biases(steps: int, unrolls: int, seeds: int) -> dict[str, Any]:
    """Where each estimator ends, with intervals over seeds, beside the closed forms."""
    task = NoisyQuadratic()
    made = {
        "reverse, truncated": (MetaGradient(rate=RATE, truncation=WINDOW), 1),
        "es, truncated": (MetaGradient(rate=RATE, truncation=WINDOW, estimator="es", sigma=0.05), 8),
        "pes, truncated": (MetaGradient(rate=RATE, truncation=WINDOW, estimator="pes", sigma=0.05), 8),
        "differences, truncated": (MetaGradient(rate=RATE, truncation=WINDOW, estimator="differences"), 2),
    }
    ends = {
        name: [searched(task, loop, candidates, steps, unrolls, 32, seed) for seed in range(seeds)]
        for name, (loop, candidates) in made.items()
    }
    windows = steps // WINDOW
    # one step per unroll instead of one per window: longer ones, and more unrolls
    slow = MetaGradient(rate=3 * RATE)
    ends["reverse, whole unroll"] = [searched(task, slow, 1, steps, 4 * unrolls, 32, seed) for seed in range(seeds)]
    return {
        "best_for_the_whole": stationary(task, WINDOW, windows, whole=True),
        "best_within_a_window": stationary(task, WINDOW, windows, whole=False),
        "rates": {name: interval(values) for name, values in ends.items()},
    }


def few_shot() -> tuple[Learner, FewShot, Float[Tensor, "P"]]:
    """Three terms on feedback alignment, at a point where they learn."""
    task = FewShot(images="digits", ways=5, shots=8, queries=10)
    network = Network.chain((task.inputs, 32, task.outputs), "tanh")
    start = {"error_pre": 0.1, "error_pre_error": 0.05, "subspace_oja": 0.02}
    rule = Terms(tuple(start), start=start)
    learner = Learner(network, FeedbackAlignment(), {"forward": rule}, {ANY: Sgd()})
    return learner, task, torch.tensor(list(start.values()), dtype=torch.float64)


def estimated(estimator: Estimator, candidates: int, window: int, steps: int, place: int) -> Float[Tensor, "P"]:
    """The mean over windows of an estimate at a centre that does not move; always the same episode."""
    learner, task, _ = few_shot()
    centre = Descent(learner.params)
    runs = Runs(tuple(range(candidates)), (0,))
    total, carry = torch.zeros(len(learner.params), dtype=torch.float64), None
    for first in range(0, steps, window):
        z = estimator.rows(centre, candidates, noise_for([("estimate", place, first)]), fresh=first == 0)
        score_at = tuple(range(first + min(window, WINDOW_OF_DIGITS), first + window + 1, WINDOW_OF_DIGITS))
        outcome = ENGINE.evaluate(
            learner, centre.decoded(z), task, runs, range(first, first + window), score_at=score_at,
            wants=estimator.wants | {"carry"}, carry=carry,
        )  # fmt: skip
        carry = outcome.carry
        total += estimator.slope(centre, outcome.loss.mean(1)[:, 0], outcome.grad) * window / steps
    return total


def cosines(steps: int, pairs: tuple[int, ...], estimates: int) -> dict[str, Any]:
    """Cosine with the exact gradient, by estimator and number of pairs, with intervals over independent estimates."""
    window = WINDOW_OF_DIGITS
    exact = estimated(Exact(), 1, steps, steps, 0)
    found: dict[str, Any] = {"exact": exact.tolist()}

    def along(estimate: Tensor) -> float:
        return float(torch.cosine_similarity(estimate, exact, dim=0))

    parameters = len(exact)
    found["differences"] = along(estimated(Differences(0.01), 2 * parameters, steps, steps, 0))
    found["forward"] = along(estimated(Exact("forward"), 1, steps, steps, 0))
    found["reverse, truncated"] = along(estimated(Exact(), 1, window, steps, 0))
    for name, persistent, length in (("es", False, steps), ("es, truncated", False, window), ("pes", True, window)):
        found[name] = {
            count: interval(
                [
                    along(estimated(Smoothed(SIGMA, persistent), 2 * count, length, steps, place))
                    for place in range(estimates)
                ]
            )
            for count in pairs
        }
    return found


def numbers(
    steps: int = 40, pairs: tuple[int, ...] = PAIRS, estimates: int = 8, unrolls: int = 50, seeds: int = 6
) -> dict[str, Any]:
    """All that the figure shows."""
    return {"cosines": cosines(steps, pairs, estimates), "rates": biases(50, unrolls, seeds)}


def figure(found: dict[str, Any]) -> Figure:
    """Left: cosines by pairs. Right: where each search of a step size ends."""
    drawn = Figure(figsize=(10, 4), layout="constrained")
    left, right = drawn.subplots(1, 2)
    cosine = found["cosines"]
    for colour, name in zip(PALETTE, ("es", "es, truncated", "pes"), strict=False):
        counts = list(cosine[name])
        means, lows, highs = zip(*cosine[name].values(), strict=True)
        left.plot(counts, means, "o-", color=colour, label=name)
        left.fill_between(counts, lows, highs, color=colour, alpha=0.2)
    left.axhline(cosine["reverse, truncated"], color="0.5", label="reverse, truncated")
    left.set(xscale="log", xlabel="pairs", ylabel="cosine with the exact gradient", ylim=(None, 1.02))
    left.legend(frameon=False)
    rates = found["rates"]
    for place, (name, (mean, low, high)) in enumerate(rates["rates"].items()):
        right.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=PALETTE[0])
        right.text(mean, place + 0.15, name, ha="center", fontsize=8)
    right.axvline(rates["best_for_the_whole"], color="0.3", label="best for the whole unroll")
    right.axvline(rates["best_within_a_window"], color="0.3", linestyle=":", label="best from within a window")
    right.set(xlabel="step size that the search ends with", yticks=[], ylim=(-0.5, len(rates["rates"])))
    right.legend(frameon=False)
    for axes in (left, right):
        dress(axes)
    return drawn


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = numbers()
    print(f"cosine with the exact gradient {[round(value, 3) for value in found['cosines']['exact']]}")
    for name, value in found["cosines"].items():
        if isinstance(value, float):
            print(f"  {name:22} {value:.6f}")
        elif isinstance(value, dict):
            shown = ", ".join(f"{count}: {m:.3f} [{low:.3f}, {high:.3f}]" for count, (m, low, high) in value.items())
            print(f"  {name:22} {shown}")
    rates = found["rates"]
    print(f"step size: best for the whole unroll {rates['best_for_the_whole']:.3f}, ", end="")
    print(f"best from within a window {rates['best_within_a_window']:.3f}")
    for name, (mean, low, high) in rates["rates"].items():
        print(f"  {name:22} {mean:.3f} [{low:.3f}, {high:.3f}]")
    for file in keep(folder, "gradient_estimators", found, figure):
        print(file)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/analysis"))
